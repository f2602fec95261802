"""Texts that end, contain or match what is asked for, by construction.

A constraint is a deterministic automaton over the tokens. While a text is drawn, no token is
allowed after which no allowed end can be reached in time. That alone would draw texts whose
beginnings look likely and whose only ways on are not, so the model is also told how hopeful each
way is: the chance, reckoned with letter-pair counts, that a text goes on to an allowed end (a
"twist", Whiteley and Lee 2014). What that guess gets wrong is known for each text, as a weight, and
texts are chosen by weight from a larger pool (Rubin 1987), so that the result follows the model's
own distribution of texts that match.

B streams, S states, V vocabulary, L length in tokens.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.tokenizers import BOUNDARY_ID, ByteTokenizer, CharTokenizer, Ids, Tokenizer

MOST_STATES = 2_000
"""Of an automaton while it is made: what takes more, takes minutes."""


@dataclass(frozen=True, kw_only=True)
class CompileLimits:
    """What an automaton may take."""

    seconds: float = 20
    """To make it: small ones can take long, where their parts are large on the way."""
    bytes: int = 2**30


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What the user asked of an item; None of it is no constraint."""

    ends: str | None = None
    contains: str | None = None
    regex: str | None = None
    length: tuple[int, int | None] | None = None
    """Least and most characters."""

    def __bool__(self) -> bool:
        return self != Constraint()

    def __str__(self) -> str:
        given = {flag: getattr(self, flag) for flag in ("ends", "contains", "regex")}
        asked = [f"--{flag} {value}" for flag, value in given.items() if value is not None]
        if self.length is not None:
            asked.append(f"--length {self.length[0]}..{self.length[1] or ''}")
        return " ".join(asked)


def parse_length(text: str) -> tuple[int, int | None]:
    """`5`, `3..7`, `3..`, `..7`. Raises MoreishError when it is none of these."""
    low, dots, high = text.partition("..")
    try:
        least = int(low) if low else 0
        most = (int(high) if high else None) if dots else least
    except ValueError:
        raise MoreishError(f"--length {text}: write 5, 3..7, 3.. or ..7") from None
    if least < 0 or (most is not None and most < max(1, least)):
        raise MoreishError(f"--length {text}: the least comes first, and the most is at least 1")
    return least, most


@dataclass(frozen=True, eq=False)
class Automaton:
    """Which tokens may follow, state by state and length by length, and how hopeful each is.

    Beside the states of the constraints stands one more, from which nothing is allowed.
    """

    next_SV: Tensor
    may_end_LS: Tensor
    """Whether a text of so many tokens may end in a state."""
    reach_LSV: Tensor
    """The chance that a text of so many tokens, in a state, its last token being v, goes on to an
    allowed end, in pairs of tokens; 0 if it cannot."""
    asked: str

    def state_after(self, prompt: Ids) -> int:
        """The state once `prompt` was read. Raises MoreishError when nothing can come of it."""
        state = 0
        for token in prompt:
            state = int(self.next_SV[state, int(token)])
        last = int(prompt[-1]) if len(prompt) else BOUNDARY_ID
        if len(prompt) >= len(self.reach_LSV) or not self.reach_LSV[len(prompt), state, last]:
            raise MoreishError(f"nothing that the model can write matches {self.asked}")
        return state

    def reach_probability(self, state_B: Tensor, length: int) -> Tensor:
        """(B, V) of each token that may be drawn after `length` tokens; the boundary is the end."""
        every_V = torch.arange(self.next_SV.shape[1])
        reach_BV = self.reach_LSV[length + 1][self.next_SV[state_B], every_V]
        reach_BV[:, BOUNDARY_ID] = self.may_end_LS[length, state_B].double()
        return reach_BV


def compile_constraint(
    asked: Constraint,
    tokenizer: Tokenizer,
    tokens: TokenDataset,
    max_tokens: int,
    effort: CompileLimits = CompileLimits(),
) -> Automaton:
    """The automaton of all that was asked, for texts of at most `max_tokens` tokens.

    Args:
        tokens: items whose pairs tell what is hopeful.

    Raises:
        MoreishError: the tokenizer has tokens of several characters, a character of the constraint
            is unknown to it, or the regular expression is not understood.
    """
    characters = _characters(tokenizer)
    fsm = _parsed(asked, tokenizer, effort.seconds)
    numbers = {state: i for i, state in enumerate(dict.fromkeys([fsm.initial, *fsm.map]))}
    dead, size = len(numbers), tokenizer.vocab_size
    if (needed := 8 * (max_tokens + 2) * (dead + 1) * size) > effort.bytes:
        raise MoreishError(
            f"{asked} needs {needed / 2**30:.1f} GB for texts of up to {max_tokens} tokens: ask "
            "for something simpler, or fewer --max-tokens"
        )
    next_SV = torch.full((dead + 1, size), dead)
    members = {
        kind: torch.tensor([i for i, c in enumerate(characters) if c and kind.accepts(c)]).long()
        for kind in fsm.alphabet
    }
    for state, row in fsm.map.items():
        for kind, target in row.items():
            next_SV[numbers[state], members[kind]] = numbers[target]
    accepts_S = torch.zeros(dead + 1, dtype=torch.bool)
    accepts_S[[numbers[state] for state in fsm.finals]] = True
    least, most = asked.length or (0, None)
    most = min(max_tokens, max_tokens if most is None else most)
    may_end_LS = torch.zeros(max_tokens + 2, dead + 1, dtype=torch.bool)
    may_end_LS[least : most + 1] = accepts_S
    reach_LSV = torch.zeros(max_tokens + 2, dead + 1, size, dtype=torch.float64)
    automaton = Automaton(next_SV, may_end_LS, reach_LSV, str(asked))
    pairs_VV = _pairs(tokens, size)
    for length in range(max_tokens, -1, -1):
        reach_LSV[length] = automaton.reach_probability(torch.arange(dead + 1), length) @ pairs_VV.T
    return automaton


def _pairs(tokens: TokenDataset, size: int) -> Tensor:
    """(V, V) the share of each token after each, every pair being possible."""
    ids_N = torch.from_numpy(tokens.ids_N[:].astype(np.int64))
    counts = torch.bincount(ids_N[:-1] * size + ids_N[1:], minlength=size * size).double() + 0.01
    counts_VV = counts.view(size, size)
    return counts_VV / counts_VV.sum(dim=1, keepdim=True)


class ConstrainedDecoder:
    """Walks the automaton beside a batch of streams, and weighs its own influence."""

    def __init__(self, automaton: Automaton, prompt: Ids, streams: int) -> None:
        self.automaton = automaton
        self.state_B = torch.full((streams,), automaton.state_after(prompt))
        self.length = len(prompt)
        self.log_weight_B = torch.zeros(streams, dtype=torch.float64)
        self._log_reach_BV = torch.empty(0)

    def reweight(self, probs_BV: Tensor, plain_BV: Tensor, *, greedy: bool) -> Tensor:
        """The distribution to draw from: the sampler's own times hope.

        Args:
            shares_BV: what the sampler would draw from.
            plain_BV: what the model says, for streams of which the sampler (top-k, top-p) leaves
                nothing that may follow.
            greedy: take the best of it.
        """
        reach_BV = self.automaton.reach_probability(self.state_B, self.length)
        # Streams that have ended are drawn all the same, and not looked at.
        reach_BV[~(reach_BV > 0).any(dim=1)] = 1.0
        self._log_reach_BV = reach_BV.log()
        steered_BV = (plain_BV if greedy else probs_BV) * reach_BV
        steered_BV = torch.where(
            steered_BV.sum(dim=1, keepdim=True) > 0, steered_BV, plain_BV * reach_BV
        )
        total_B1 = steered_BV.sum(dim=1, keepdim=True)
        self.log_weight_B += total_B1[:, 0].log()
        if greedy:
            return torch.nn.functional.one_hot(steered_BV.argmax(-1), reach_BV.shape[1]).double()
        return steered_BV / total_B1

    def accept_token(self, token_B: Tensor) -> None:
        """Follow the tokens that were drawn. A boundary leads to the state where nothing is
        allowed, and so nothing weighed, any more."""
        self.log_weight_B -= self._log_reach_BV.gather(1, token_B[:, None])[:, 0]
        self.state_B = self.automaton.next_SV[self.state_B, token_B]
        self.length += 1


def resample(log_weights: list[float], n: int, seed: int) -> list[int]:
    """`n` distinct places drawn by weight, in order (Gumbel's trick, Vieira 2014)."""
    noise = np.random.default_rng((seed, 1)).gumbel(size=len(log_weights))
    return sorted(np.argsort(-(np.array(log_weights) + noise), kind="stable")[:n].tolist())


def _characters(tokenizer: Tokenizer) -> list[str]:
    """The character of each token; none for the boundary. A byte stands for one of 256."""
    first = [""] * int(tokenizer.boundary_id is not None)
    if isinstance(tokenizer, CharTokenizer):
        return first + list(tokenizer.characters)
    if isinstance(tokenizer, ByteTokenizer):
        return first + [chr(byte) for byte in range(256)]
    raise MoreishError("constraints need a character or byte tokenizer")


def _without_anchors(regex: str) -> str:
    """The pattern without a `^` before it and a `$` after it: it matches whole items anyway. To
    greenery both are characters like others, with a backslash only for `^` in a class.

    Raises:
        MoreishError: one stands inside.
    """
    parts: list[str] = []
    in_class = False
    pieces = re.findall(r"\\.|.|\n", regex, re.DOTALL)
    for place, piece in enumerate(pieces):
        if piece in ("^", "$") and not in_class:
            if place != {"^": 0, "$": len(pieces) - 1}[piece]:
                raise MoreishError(
                    f"--regex {regex}: it matches whole items: leave out ^ and $, or write \\^ and "
                    "\\$"
                )
            continue
        if in_class and piece == "^" and parts[-1] != "[":
            piece = "\\^"
        plain = piece == "\\$" or (piece == "\\^" and not in_class)
        in_class = piece != "]" if in_class else piece == "["
        parts.append(piece[1:] if plain else piece)
    return "".join(parts)


@contextmanager
def _bounded(asked: Constraint, seconds: float) -> Iterator[None]:
    """greenery makes automata state by state; some patterns (`.*a.{20}`) need millions of them."""
    fsm: Any = import_module("greenery.fsm")
    crawl = fsm.crawl

    until = time.monotonic() + seconds

    def bounded(alphabet: Any, initial: Any, final: Any, follow: Any) -> Any:
        left = MOST_STATES * len(alphabet)

        def counted(state: Any, symbol: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 or time.monotonic() > until:
                raise MoreishError(f"{asked}: it needs too many states: ask for something simpler")
            return follow(state, symbol)

        return crawl(alphabet, initial, final, counted)

    fsm.crawl = bounded
    try:
        yield
    finally:
        fsm.crawl = crawl


def _parsed(asked: Constraint, tokenizer: Tokenizer, seconds: float) -> Any:
    try:
        from greenery import parse
    except ImportError:
        raise MoreishError("constraints need a library: pip install 'moreish[analysis]'") from None

    in_bytes = isinstance(tokenizer, ByteTokenizer)
    if in_bytes and not (asked.regex or "").isascii():
        raise MoreishError(f"--regex {asked.regex}: only ASCII for a model of bytes")
    pattern = None if asked.regex is None else _without_anchors(asked.regex)
    with _bounded(asked, seconds):
        fsm = parse(".*").to_fsm()
        for flag in ("ends", "contains"):
            value = getattr(asked, flag)
            if not value:
                continue
            if unknown := tokenizer.find_unknown(value):
                names = " ".join(map(repr, unknown))
                raise MoreishError(f"--{flag} {value}: the model never saw {names}")
            literal = value.encode().decode("latin-1") if in_bytes else value
            fsm = fsm & _with(literal, anywhere=flag == "contains")
        if pattern is None:
            return fsm
        try:
            return fsm & parse(pattern).to_fsm()
        except MoreishError:
            raise
        except Exception as error:  # greenery has no error of its own for what it cannot read
            reason = " ".join(str(error).split()) or type(error).__name__
            raise MoreishError(
                f"{asked}: not understood ({reason[:100]}); it matches the whole item, "
                "and knows . [ ] ( ) | * + ? { }"
            ) from None


def _with(literal: str, *, anywhere: bool) -> Any:
    """The automaton of texts that end with `literal`, or hold it (Knuth, Morris and Pratt 1977)."""
    from greenery import Charclass, Fsm

    kinds = {character: Charclass(character) for character in literal}
    others = ~Charclass("".join(kinds))
    end = len(literal)
    rows: dict[int, dict[Any, int]] = {}
    shorter = 0  # the state of what was read, but for its first character
    for state in range(end + 1):
        row = dict(rows[shorter]) if state else dict.fromkeys((*kinds.values(), others), 0)
        if state:
            shorter = rows[shorter][kinds[literal[state]]] if state < end else shorter
        if state < end:
            row[kinds[literal[state]]] = state + 1
        elif anywhere:
            row = dict.fromkeys(row, end)
        rows[state] = row
    return Fsm(
        alphabet={*kinds.values(), others}, states=set(rows), initial=0, finals={end}, map=rows
    )
