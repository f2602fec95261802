"""Constrained decoding: texts that end with or contain a string, or match a pattern.

A constraint is a deterministic automaton over the tokens. While a text is sampled, a token is
allowed only if an accepted end can still be reached in time. That alone would favor texts whose
beginnings are likely and whose only continuations are not, so each token's probability is
multiplied by its reach probability: the probability, under letter-pair counts, that a text
continues to an accepted end (a "twist", Whiteley and Lee 2014). The error of that estimate is known
for each text, as a weight, and texts are chosen by weight from a larger pool (Rubin 1987), so that
the result approaches the model's own distribution of matching texts as the pool grows.

B streams, S states, V vocabulary, L length in tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from moreish.data import TokenDataset
from moreish.errors import MoreishError, one_line
from moreish.generate.automaton import Dfa, Nfa
from moreish.generate.sampling import Sampling, keep_best, sampling_probabilities
from moreish.tokenizers import BOUNDARY_ID, ByteTokenizer, CharTokenizer, Ids, Tokenizer
from moreish.utils.extras import import_extra


@dataclass(frozen=True, kw_only=True)
class CompileLimits:
    """Limits on the compilation of a constraint."""

    seconds: float = 20
    """Time to build the automaton."""
    bytes: int = 2**30
    """Memory for its tables."""


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A constraint on items; None is no constraint."""

    ends: str | None = None
    contains: str | None = None
    regex: str | None = None
    length: tuple[int, int | None] | None = None
    """Minimum and maximum number of characters."""

    def __bool__(self) -> bool:
        return self != Constraint()

    def __str__(self) -> str:
        values = {flag: getattr(self, flag) for flag in ("ends", "contains", "regex")}
        flags = [f"--{flag} {value}" for flag, value in values.items() if value is not None]
        if self.length is not None:
            flags.append(f"--length {self.length[0]}..{self.length[1] or ''}")
        return " ".join(flags)


def parse_length(text: str) -> tuple[int, int | None]:
    """Parse a range of lengths: `5`, `3..7`, `3..` or `..7`. Raises MoreishError otherwise."""
    low, dots, high = text.partition("..")
    try:
        minimum = int(low) if low else 0
        maximum = (int(high) if high else None) if dots else minimum
    except ValueError:
        raise MoreishError(f"--length {text}: write 5, 3..7, 3.. or ..7") from None
    if maximum is not None and 1 <= maximum < minimum:
        raise MoreishError(f"--length {text}: the minimum is above the maximum")
    if minimum < 0 or (maximum is not None and maximum < max(1, minimum)):
        raise MoreishError(f"--length {text}: write MINIMUM..MAXIMUM, with a maximum of 1 or more")
    return minimum, maximum


@dataclass(frozen=True, eq=False)
class Automaton:
    """The tokens that may follow, by state and length, and their reach probabilities."""

    next_SV: Tensor
    """The state after each token; from the last state nothing is allowed."""
    may_end_LS: Tensor
    """Whether a text of a given number of tokens may end in a state."""
    reach_LSV: Tensor
    """The probability, by letter pairs, that a text of a given number of tokens, in a state and
    with v as its last token, continues to an accepted end; 0 if it cannot."""
    description: str

    def state_after(self, prompt: Ids) -> int:
        """Return the state after `prompt`. Raises MoreishError if no accepted end can follow."""
        state = 0
        for token in prompt:
            state = int(self.next_SV[state, int(token)])
        last = int(prompt[-1]) if len(prompt) else BOUNDARY_ID
        if len(prompt) >= len(self.reach_LSV) or not self.reach_LSV[len(prompt), state, last]:
            raise MoreishError(
                f"the model cannot generate any text that matches {self.description}"
            )
        return state

    def reach_probability(self, state_B: Tensor, length: int) -> Float[Tensor, "B V"]:
        """Return the reach probability of each token after `length` tokens; the boundary ends the
        text."""
        every_V = torch.arange(self.next_SV.shape[1])
        reach_BV = self.reach_LSV[length + 1][self.next_SV[state_B], every_V]
        reach_BV[:, BOUNDARY_ID] = self.may_end_LS[length, state_B].double()
        return reach_BV


def compile_constraint(
    constraint: Constraint,
    tokenizer: Tokenizer,
    tokens: TokenDataset,
    max_tokens: int,
    limits: CompileLimits = CompileLimits(),
) -> Automaton:
    """Compile a constraint for texts of at most `max_tokens` tokens.

    Args:
        tokens: items, whose letter pairs give the reach probabilities.

    Raises:
        MoreishError: the tokenizer has tokens of several characters, a character of the constraint
            is unknown to it, the regular expression is invalid, or the automaton is beyond
            `limits`.
    """
    dfa = _build_dfa(constraint, tokenizer, limits.seconds)
    states, size = dfa.next_SV.shape
    if (needed := 8 * (max_tokens + 2) * states * size) > limits.bytes:
        raise MoreishError(
            f"{constraint} needs {needed / 2**30:.1f} GB for texts of up to {max_tokens} tokens: "
            "use a simpler constraint, or a smaller --max-tokens"
        )
    minimum, maximum = constraint.length or (0, None)
    maximum = min(max_tokens, max_tokens if maximum is None else maximum)
    may_end_LS = torch.zeros(max_tokens + 2, states, dtype=torch.bool)
    may_end_LS[minimum : maximum + 1] = torch.from_numpy(dfa.accepts_S)
    reach_LSV = torch.zeros(max_tokens + 2, states, size, dtype=torch.float64)
    automaton = Automaton(torch.from_numpy(dfa.next_SV), may_end_LS, reach_LSV, str(constraint))
    pairs_VV = _pair_probabilities(tokens, size)
    for length in range(max_tokens, -1, -1):
        reach_BV = automaton.reach_probability(torch.arange(states), length)
        reach_LSV[length] = reach_BV @ pairs_VV.T
    return automaton


def _build_dfa(constraint: Constraint, tokenizer: Tokenizer, seconds: float) -> Dfa:
    greenery = import_extra("greenery", "analysis", "a constraint")
    characters = _characters(tokenizer)
    in_bytes = isinstance(tokenizer, ByteTokenizer)
    if in_bytes and not (constraint.regex or "").isascii():
        raise MoreishError(
            f"--regex {constraint.regex}: a model with a byte tokenizer supports only ASCII "
            "patterns"
        )
    too_large = f"{constraint}: it needs too many states: use a simpler constraint"
    nfa = Nfa(seconds=seconds, too_large=too_large)
    for flag in ("ends", "contains"):
        value = getattr(constraint, flag)
        if not value:
            continue
        if unknown := tokenizer.find_unknown(value):
            names = " ".join(map(repr, unknown))
            raise MoreishError(f"--{flag} {value}: not in the model's vocabulary: {names}")
        literal = value.encode().decode("latin-1") if in_bytes else value
        nfa.add_literal(literal, anywhere=flag == "contains")
    if constraint.regex is not None:
        pattern = _without_anchors(constraint.regex)
        try:
            parsed = greenery.parse(pattern)
        except Exception as error:  # greenery has no error class for what it cannot parse
            reason = one_line(error)
            if not reason or isinstance(error, IndexError):  # it read beyond the end
                reason = "it ends too early, e.g. in a bracket that is not closed"
            raise MoreishError(
                f"{constraint}: invalid pattern ({reason[:100]}); a pattern matches the whole item "
                "and supports . [ ] ( ) | * + ? { }"
            ) from None
        nfa.add_regex(parsed)
    return nfa.to_dfa(characters)


def _pair_probabilities(tokens: TokenDataset, size: int) -> Float[Tensor, "V V"]:
    """Return the probability of each token after each, smoothed so that every pair is possible."""
    ids_N = torch.from_numpy(tokens.ids_N[:].astype(np.int64))
    counts = torch.bincount(ids_N[:-1] * size + ids_N[1:], minlength=size * size).double() + 0.01
    counts_VV = counts.view(size, size)
    return counts_VV / counts_VV.sum(dim=1, keepdim=True)


class ConstrainedDecoder:
    """A logits processor that applies the sampling settings and an automaton to a batch of streams,
    and records in `log_weight_B` how much it changed each stream's probability.

    Call it on the logits, then pass the sampled tokens to `accept_tokens`.
    """

    def __init__(self, automaton: Automaton, prompt: Ids, streams: int, sampling: Sampling) -> None:
        self.automaton, self.sampling = automaton, sampling
        self.state_B = torch.full((streams,), automaton.state_after(prompt))
        self.length = len(prompt)
        self.log_weight_B = torch.zeros(streams, dtype=torch.float64)
        self._log_reach_BV = torch.empty(0)

    def __call__(self, logits_BV: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Multiply the sampler's distribution by the reach probabilities. Where top-k and top-p
        leave no allowed token, multiply the model's own distribution instead."""
        reach_BV = self.automaton.reach_probability(self.state_B, self.length)
        reach_BV[~(reach_BV > 0).any(dim=1)] = 1.0  # streams that ended: their tokens are ignored
        self._log_reach_BV = reach_BV.log()
        model_BV = logits_BV.double().softmax(dim=-1) * reach_BV
        greedy = self.sampling.temperature == 0
        if greedy:
            probs_BV = model_BV
        else:
            probs_BV = sampling_probabilities(logits_BV, self.sampling) * reach_BV
            probs_BV = torch.where(probs_BV.sum(dim=1, keepdim=True) > 0, probs_BV, model_BV)
        self.log_weight_B += probs_BV.sum(dim=1).log()
        return keep_best(probs_BV) if greedy else probs_BV.log()

    def accept_tokens(self, token_B: Tensor) -> None:
        """Follow the sampled tokens; a boundary leads to the last state, where texts have ended."""
        self.log_weight_B -= self._log_reach_BV.gather(1, token_B[:, None])[:, 0]
        self.state_B = self.automaton.next_SV[self.state_B, token_B]
        self.length += 1


def resample(
    log_weights: Sequence[float], n: int, seed: int, *, distinct: bool = False
) -> list[int]:
    """Return `n` indices drawn by weight, in order: each as often as its share of the weights asks,
    rounded up or down (systematic resampling, Kitagawa 1996), or `distinct` ones (Gumbel's trick,
    Vieira 2014), which favor low weights where few have most of the weight."""
    generator, logs = np.random.default_rng((seed, 1)), np.array(log_weights)
    if distinct:
        noise = generator.gumbel(size=len(logs))
        return sorted(np.argsort(-(logs + noise), kind="stable")[:n].tolist())
    shares = np.exp(logs - logs.max()).cumsum()
    points = (np.arange(n) + generator.random()) / n * shares[-1]
    return np.minimum(np.searchsorted(shares, points, side="right"), len(logs) - 1).tolist()


def effective_size(log_weights: Sequence[float]) -> float:
    """Return the number of equally weighted texts that would estimate as well as these."""
    weights = np.exp(np.array(log_weights) - max(log_weights))
    return float(weights.sum() ** 2 / (weights**2).sum())


def _characters(tokenizer: Tokenizer) -> list[str]:
    """Return the character of each token, empty for the boundary; bytes are characters too."""
    first = [""] * int(tokenizer.boundary_id is not None)
    if isinstance(tokenizer, CharTokenizer):
        return first + list(tokenizer.characters)
    if isinstance(tokenizer, ByteTokenizer):
        return first + [chr(byte) for byte in range(256)]
    raise MoreishError("constraints require a character or byte tokenizer")


def _without_anchors(regex: str) -> str:
    """Remove `^` at the start and `$` at the end, since a pattern matches whole items anyway.

    To greenery both are ordinary characters; only `^` in a class needs a backslash.

    Raises:
        MoreishError: an anchor is at another position.
    """
    parts: list[str] = []
    in_class = False
    pieces = re.findall(r"\\.|.|\n", regex, re.DOTALL)
    for place, piece in enumerate(pieces):
        if piece in ("^", "$") and not in_class:
            if place != {"^": 0, "$": len(pieces) - 1}[piece]:
                raise MoreishError(
                    f"--regex {regex}: a pattern matches whole items: leave out ^ and $, or write "
                    "\\^ and \\$"
                )
            continue
        if in_class and piece == "^" and parts[-1] != "[":
            piece = "\\^"
        plain = piece == "\\$" or (piece == "\\^" and not in_class)
        in_class = piece != "]" if in_class else piece == "["
        parts.append(piece[1:] if plain else piece)
    return "".join(parts)
