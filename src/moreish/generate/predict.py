"""Prediction of targets: greedy, sampled, or by beam search.

N inputs, B inputs of a batch, K beams, R = B·K rows, V vocabulary, L tokens of targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from moreish.generate.decode import SMALL_STEP, fast_module_calls
from moreish.generate.sampling import uniform_noise
from moreish.models import Model, select_rows
from moreish.tokenizers import Ids

BATCH_POSITIONS = 8192
"""Tokens of inputs that are read in one batch."""

MAX_ROWS = 512
"""Largest number of rows of a batch, beams included."""


@dataclass(frozen=True)
class Hypothesis:
    """A target, and how probable it is."""

    ids: Ids
    """Its tokens, without its end."""
    log_probability: float
    """Of all of its tokens and of its end."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How targets are looked for."""

    beams: int = 1
    """Number of hypotheses that beam search keeps; 1 always takes the most likely token."""
    length_penalty: float = 1.0
    """Hypotheses are compared by their log-probability divided by their length to this power; 0
    compares the probabilities themselves, which favors short targets."""
    temperature: float = 0.0
    """Above 0, tokens are sampled instead, at this temperature."""
    seed: int = 0
    max_labels: int = 5
    """Largest number of labels that are returned for an input, where targets are labels."""


@torch.inference_mode()
def predict_targets(
    model: Model,
    inputs: Sequence[Ids],
    *,
    is_target_V: NDArray[np.bool_],
    eos_token: int | None,
    max_tokens: int,
    search: Search,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Yield the number of each input and its targets, the best first: as many as there are beams,
    or, where a target is one token, `max_labels`. Inputs of equal length are read together, so the
    order is not that of `inputs`.

    Args:
        inputs: the tokens of each input, from the boundary to the separator.
        is_target_V: whether a token can occur in a target.
        eos_token: the token after a target; None where a target is one token.
        max_tokens: largest number of tokens of a target.
    """
    allowed_V = torch.from_numpy(is_target_V.copy())
    if eos_token is not None:
        allowed_V[eos_token] = True
    by_length: dict[int, list[int]] = {}
    for number, ids in enumerate(inputs):
        by_length.setdefault(len(ids), []).append(number)
    was_training = model.training
    model.eval()
    small = sum(p.numel() for p in model.parameters()) < SMALL_STEP
    with fast_module_calls(model, small=small):
        for length, numbers in sorted(by_length.items()):
            rows = max(1, min(MAX_ROWS // search.beams, BATCH_POSITIONS // length))
            for first in range(0, len(numbers), rows):
                chosen = numbers[first : first + rows]
                batch_BT = torch.from_numpy(np.stack([inputs[n] for n in chosen]).astype(np.int64))
                if eos_token is None:
                    found = _best_labels(model, batch_BT, allowed_V, search.max_labels)
                else:
                    beam = _BeamSearch(model, batch_BT, allowed_V, eos_token, search, chosen)
                    found = beam.run(max_tokens)
                yield from zip(chosen, found, strict=True)
    model.train(was_training)


def _read_inputs(
    model: Model, inputs_BT: Tensor, allowed_V: Bool[Tensor, " V"]
) -> tuple[Float[Tensor, "B V"], Any]:
    """Return the log-probabilities of the first token of the targets, and the state before it."""
    tokens_BT, state = model.skip_to_end(inputs_BT.to(model.device))
    logits_BTV, state = model(tokens_BT, state)
    return _normalize(logits_BTV[:, -1], allowed_V), state


def _best_labels(
    model: Model, inputs_BT: Tensor, allowed_V: Bool[Tensor, " V"], number: int
) -> list[list[Hypothesis]]:
    """Return the most probable labels of each input."""
    log_probs_BV, _ = _read_inputs(model, inputs_BT, allowed_V)
    best_BN = log_probs_BV.topk(min(number, int(allowed_V.sum())))
    rows = zip(best_BN.indices.tolist(), best_BN.values.tolist(), strict=True)
    return [
        [Hypothesis(np.array([token]), score) for token, score in zip(*row, strict=True)]
        for row in rows
    ]


def _normalize(
    logits_RV: Float[Tensor, "R V"], allowed_V: Bool[Tensor, " V"]
) -> Float[Tensor, "R V"]:
    """Return log-probabilities of the allowed tokens."""
    allowed_V = allowed_V[: logits_RV.shape[1]]  # a classifier predicts the first tokens only
    masked_RV = logits_RV.cpu().double().masked_fill(~allowed_V, -torch.inf)
    return masked_RV.log_softmax(-1)


class _BeamSearch:
    """A search for the targets of some inputs, all at once.

    A hypothesis whose end is among the best K continuations is finished; an input is finished when
    K of its hypotheses are (as in Vaswani et al. 2017, section 6.1, with the length normalization
    of Wu et al. 2016, equation 14, in its plain form).
    """

    def __init__(
        self,
        model: Model,
        inputs_BT: Tensor,
        allowed_V: Tensor,
        eos_token: int,
        search: Search,
        numbers: list[int],
    ) -> None:
        """
        Args:
            numbers: the number of each input, on which the random numbers of sampling depend.
        """
        inputs = len(numbers)
        self.model, self.allowed_V, self.eos_token = model, allowed_V, eos_token
        self.search, self.beams, self.numbers = search, search.beams, numbers
        log_probs_BV, state = _read_inputs(model, inputs_BT, allowed_V)
        self.score_BK = torch.full((inputs, self.beams), -torch.inf, dtype=torch.double)
        self.score_BK[:, 0] = 0  # all beams begin alike
        self.row_R = torch.arange(inputs).repeat_interleave(self.beams)
        self.log_probs_RV, self.state = select_rows((log_probs_BV, state), self.row_R)
        self.tokens_RL = torch.zeros((len(self.row_R), 0), dtype=torch.long)
        self.finished: list[list[tuple[float, Hypothesis]]] = [[] for _ in range(inputs)]
        self.alive = list(range(inputs))

    def run(self, max_tokens: int) -> list[list[Hypothesis]]:
        for length in range(1, max_tokens + 1):
            chosen_RL = self._step(length)
            if not self.alive:
                break
            if length < max_tokens:
                logits_R1V, self.state = self.model(
                    chosen_RL[:, None].to(self.model.device), self.state
                )
                self.log_probs_RV = _normalize(logits_R1V[:, -1], self.allowed_V)
        for place, number in enumerate(self.alive):  # those without an end are the last resort
            for beam in range(self.beams if not self.finished[number] else 0):
                row = place * self.beams + beam
                self._finish(number, self.tokens_RL[row], float(self.score_BK[place, beam]))
        return [
            [hypothesis for _, hypothesis in sorted(found, key=lambda pair: -pair[0])]
            for found in self.finished
        ]

    def _finish(self, number: int, tokens_L: Tensor, score: float) -> None:
        if score == -torch.inf:
            return
        rank = score / (len(tokens_L) + 1) ** self.search.length_penalty
        self.finished[number].append((rank, Hypothesis(tokens_L.numpy(), score)))

    def _step(self, length: int) -> Tensor:
        """Choose the next token of each beam, and drop inputs that are finished."""
        beams, vocabulary = self.beams, self.log_probs_RV.shape[1]
        total_BC = (self.score_BK.flatten()[:, None] + self.log_probs_RV).unflatten(
            0, (len(self.alive), beams)
        )
        if self.search.temperature > 0:
            best_BC = self._sample(length)
            best_score_BC = total_BC.flatten(1).gather(1, best_BC)
        else:
            best_score_BC, best_BC = total_BC.flatten(1).topk(min(2, vocabulary) * beams)
        keep_rows: list[int] = []
        keep_tokens: list[int] = []
        scores: list[list[float]] = []
        alive: list[int] = []
        for place, (number, best, best_scores) in enumerate(
            zip(self.alive, best_BC.tolist(), best_score_BC.tolist(), strict=True)
        ):
            going: list[tuple[float, int, int]] = []
            for rank, (candidate, score) in enumerate(zip(best, best_scores, strict=True)):
                if score == -torch.inf:
                    break
                beam, token = divmod(candidate, vocabulary)
                row = place * beams + beam
                if token == self.eos_token:
                    if rank < beams:
                        self._finish(number, self.tokens_RL[row], score)
                elif len(going) < beams:
                    going.append((score, row, token))
            if len(self.finished[number]) >= beams or not going:
                continue
            going += [(-torch.inf, going[0][1], going[0][2])] * (beams - len(going))
            alive.append(number)
            scores.append([score for score, _, _ in going])
            keep_rows += [row for _, row, _ in going]
            keep_tokens += [token for _, _, token in going]
        self.alive = alive
        self.score_BK = torch.tensor(scores, dtype=torch.double).reshape(len(alive), beams)
        rows_R, tokens_R = torch.tensor(keep_rows).long(), torch.tensor(keep_tokens).long()
        if not (len(rows_R) == len(self.tokens_RL) and (rows_R == torch.arange(len(rows_R))).all()):
            self.state = select_rows(self.state, rows_R)
        self.tokens_RL = torch.cat([self.tokens_RL[rows_R], tokens_R[:, None]], dim=1)
        return tokens_R

    def _sample(self, length: int) -> Tensor:
        """Return a sampled continuation of each input, (B, 1); there is one beam."""
        scaled_RV = self.log_probs_RV / self.search.temperature
        numbers = torch.tensor([self.numbers[each] for each in self.alive])
        noise = uniform_noise(self.search.seed, length, range(int(numbers.max()) + 1))
        cumulative_RV = scaled_RV.softmax(-1).cumsum(-1)
        uniform_R1 = noise[numbers, :1]
        return torch.searchsorted(cumulative_RV, uniform_R1 * cumulative_RV[:, -1:]).clamp_max(
            cumulative_RV.shape[1] - 1
        )
