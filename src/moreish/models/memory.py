"""Memory of recent text: earlier occurrences of the current context, and what followed them.

Cache models (Kuhn and De Mori 1990) count recent tokens; the match models of the PAQ compressors
(Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data Compression") predict what
followed the last occurrence of a long context. Here the latest occurrences of several contexts vote
for the tokens that followed them, and how much a vote weighs is learned for each length of the
context and class of distance.

B batch, T positions, S positions seen, P positions of all rows (B·T), K contexts, M votes, H heads,
V vocabulary, N candidates of all positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

CONTEXTS = (
    (1, 32), (2, 24), (3, 24), (4, 24), (5, 16), (6, 16), (8, 8), (12, 4), (20, 2),
)  # fmt: skip
"""Lengths of the contexts in tokens, and how many of the latest occurrences of each vote."""

LONGEST_CONTEXT = CONTEXTS[-1][0]

MAX_REACH = 1 << 15
"""Maximum distance of an occurrence in tokens; distances fit into 16 bits."""

DISTANCE_CLASS = np.frexp(np.arange(MAX_REACH + 1))[1] - 1
"""Class of each distance from 1: the exponent of the power of two below it."""

NUM_CLASSES = int(DISTANCE_CLASS.max()) + 1

NEAR = (-5.5, -3.0, -1.5, -0.8, -0.6, -0.2, 0.2, 0.3, 0.3)
"""Logarithm of the weight of a near vote before training, for each context."""

SLOPES = (0.5, 0.4, 0.3, 0.2)
"""How much less it is for each class of distance, in each head."""

HEADS = len(SLOPES)
"""Weightings of the votes, each of which gives a distribution."""

BEST_HEAD = 1
"""The head with the lowest loss before training, on tiny Shakespeare."""

UNKNOWN = -1
"""Stands for a position before the start of the text."""

CHUNK = 1 << 20
"""Positions of the training text that are indexed at a time."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: products with it have evenly distributed digits."""

POWERS = np.cumprod(np.full(LONGEST_CONTEXT, MULTIPLIER))
"""Factors of the tokens of a context in its hash, the latest first."""


class Votes(NamedTuple):
    """Votes of earlier occurrences, in no particular order."""

    position_M: Int[Tensor, " M"]
    """The position, of P, that each is for."""
    token_M: Int[Tensor, " M"]
    """The token that followed."""
    kind_M: Int[Tensor, " M"]
    """Context and class of distance: an index of K · `NUM_CLASSES`."""

    @classmethod
    def of_positions(cls, votes: "Sequence[Votes]") -> "Votes":
        """Return the votes of several positions, given those of each alone."""
        numbered = [each._replace(position_M=each.position_M + n) for n, each in enumerate(votes)]
        return cls(*map(torch.cat, zip(*numbered, strict=True)))


class TextIndex:
    """A text in which the earlier occurrences of every context can be found.

    Attributes:
        ids_S: the tokens of all rows, one after another.
        distance_KS: for each context and position, the distance of the occurrence before; 0 for
            none within `MAX_REACH`.
    """

    def __init__(self, ids_BS: NDArray[np.integer]) -> None:
        self.ids_S = ids_BS.ravel()
        self.distance_KS = np.zeros((len(CONTEXTS), ids_BS.size), dtype=np.uint16)
        size = ids_BS.shape[1]
        for first in range(0, size, CHUNK):
            begin, end = max(0, first - MAX_REACH), min(size, first + CHUNK)
            found_KBS = _distances(ids_BS[:, begin:end])
            view_KBS = self.distance_KS.reshape(len(CONTEXTS), *ids_BS.shape)
            view_KBS[:, :, first:end] = found_KBS[:, :, first - begin :]

    def votes(
        self, place_P: NDArray[np.int64], first_P: NDArray[np.int64], reach: int = MAX_REACH
    ) -> Votes:
        """Return the votes for what follows the tokens at some places.

        Args:
            place_P: the places, as indices of `ids_S`.
            first_P: the first place that each may see.
            reach: maximum distance in tokens.
        """
        positions, tokens, kinds = [], [], []
        first_P = np.maximum(first_P, place_P - reach)
        every_P = np.arange(len(place_P))
        for context, (_, number) in enumerate(CONTEXTS):
            distance_S = self.distance_KS[context]
            index_M, at_M = every_P, place_P
            for _ in range(number):
                step_M = distance_S[at_M]
                before_M = at_M - step_M
                is_seen_M = (step_M > 0) & (before_M >= first_P[index_M])
                index_M, at_M = index_M[is_seen_M], before_M[is_seen_M]
                if not len(index_M):
                    break
                positions.append(index_M)
                tokens.append(self.ids_S[at_M + 1])
                classes_M = DISTANCE_CLASS[place_P[index_M] - at_M]
                kinds.append(context * NUM_CLASSES + classes_M)
        return _votes(positions, tokens, kinds)


def _distances(ids_BS: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Return (K, B, S) the distance to the occurrence before of each context, as in `TextIndex`."""
    rows, size = ids_BS.shape
    distance_KBS = np.zeros((len(CONTEXTS), rows, size), dtype=np.uint16)
    begin_B1 = (ids_BS == UNKNOWN).sum(axis=1, keepdims=True)  # they are the first ones
    token_BS = (ids_BS + 1).astype(np.uint64)
    hash_BS, length = np.zeros_like(token_BS), 0
    # Sorted together with their positions in the low digits, equal hashes are adjacent, the earlier
    # first. To sort numbers is several times as fast as to find their order.
    shift = np.uint64(size.bit_length())
    place_S = np.arange(size, dtype=np.uint64)
    for context, (longer, _) in enumerate(CONTEXTS):
        for back in range(length, min(longer, size)):
            hash_BS[:, back:] += token_BS[:, : size - back] * POWERS[back]
        length = longer
        key_BS = ((hash_BS >> shift) << shift) | place_S
        key_BS.sort(axis=1)
        order_BS = (key_BS & ((np.uint64(1) << shift) - np.uint64(1))).astype(np.int64)
        sorted_BS = np.take_along_axis(hash_BS, order_BS, axis=1)
        gap_BS = np.diff(order_BS, axis=1)
        is_same_BS = (sorted_BS[:, 1:] == sorted_BS[:, :-1]) & (gap_BS < MAX_REACH)
        np.put_along_axis(
            distance_KBS[context], order_BS[:, 1:], np.where(is_same_BS, gap_BS, 0), axis=1
        )
        distance_KBS[context][np.arange(size) < begin_B1 + length - 1] = 0
    return distance_KBS


class Reader:
    """A text that is read token by token, with the votes of `TextIndex` for what follows each.

    Args:
        reach: maximum distance in tokens; beyond `MAX_REACH`, distances are of the last class.
    """

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self._ids: list[int] = []
        self._bytes = bytearray()
        self._last: list[dict[bytes, int]] = [{} for _ in CONTEXTS]  # where each context ended
        self._before: list[list[int]] = [[] for _ in CONTEXTS]  # the occurrence before each place

    def read(self, ids: Sequence[int]) -> Votes:
        """Read more tokens, and return the votes for what follows each of them."""
        positions, tokens, kinds = [], [], []
        for position, token in enumerate(ids):
            place = len(self._ids)
            self._ids.append(token)
            self._bytes += token.to_bytes(4, "little")
            for context, (length, number) in enumerate(CONTEXTS):
                before = self._before[context]
                if place + 1 < length:
                    before.append(-1)
                    continue
                key = bytes(self._bytes[4 * (place + 1 - length) :])
                at = self._last[context].get(key, -1)
                self._last[context][key] = place
                before.append(at)
                for _ in range(number):
                    distance = place - at
                    if at < 0 or distance > self.reach:
                        break
                    positions.append(position)
                    tokens.append(self._ids[at + 1])
                    farness = min(distance.bit_length(), NUM_CLASSES) - 1
                    kinds.append(context * NUM_CLASSES + farness)
                    at = before[at]
        return Votes(*(torch.tensor(part, dtype=torch.long) for part in (positions, tokens, kinds)))


def latest_votes(ids_BS: NDArray[np.integer], reach: int) -> Votes:
    """Return the votes for what follows the last token of each row, without an index."""
    positions, tokens, kinds = [], [], []
    last = ids_BS.shape[1] - 1
    ids_BS = ids_BS[:, max(0, last - reach - LONGEST_CONTEXT) :]
    last = ids_BS.shape[1] - 1
    ends_BS = np.ones((len(ids_BS), last), dtype=bool)  # where the same context ends
    ends_BS[:, : max(0, last - reach)] = False
    length = 0
    for context, (longer, number) in enumerate(CONTEXTS):
        for back in range(length, min(longer, last + 1)):
            ends_BS[:, back:] &= ids_BS[:, : last - back] == ids_BS[:, last - back, None]
            ends_BS[:, :back] = False
        length = longer
        is_known_B = ids_BS[:, max(0, last - length + 1)] != UNKNOWN
        if last + 1 < length or not ends_BS.any():
            break
        for row in np.flatnonzero(is_known_B):
            at_M = np.flatnonzero(ends_BS[row])[-number:]
            positions.append(np.full(len(at_M), row))
            tokens.append(ids_BS[row, at_M + 1])
            kinds.append(context * NUM_CLASSES + DISTANCE_CLASS[last - at_M])
    return _votes(positions, tokens, kinds)


def _votes(*lists: Sequence[NDArray[np.integer]]) -> Votes:
    empty = np.zeros(0, dtype=np.int64)
    joined = (np.concatenate([empty, *arrays]).astype(np.int64) for arrays in lists)
    return Votes(*map(torch.from_numpy, joined))


class Memory(nn.Module):
    """Distributions of the next token by the votes of earlier occurrences.

    Each head h weighs a vote by its kind and by the longest context that occurred, as shorter ones
    then tell little more, and adds a prior of weight one:
    p_h(v) = (sum of the weights of votes for v + p(v)) / (sum of all weights + 1).
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        steps = (torch.arange(NUM_CLASSES) - 4).clamp(min=-2)
        near_K1 = torch.tensor(NEAR)[:, None]
        log_weight_HKC = torch.stack([near_K1 - slope * steps for slope in SLOPES])
        index_K = torch.arange(len(CONTEXTS))
        longer_KK = (index_K[:, None] - index_K).clamp(min=0)
        log_scale_KK = (-0.3 * longer_KK).clamp(min=-2.0)
        # Vectors, so that optimizers of matrices leave them to AdamW.
        self.log_weight = nn.Parameter(log_weight_HKC.flatten())
        self.log_scale = nn.Parameter(log_scale_KK.repeat(HEADS, 1, 1).flatten())

    def forward(
        self, votes: Votes, prior_PV: Float[Tensor, "P V"]
    ) -> tuple[Float[Tensor, "P H V"], Float[Tensor, "P H"]]:
        """Return each head's log-probabilities, and the logarithm of its weights' sum plus one.

        Args:
            votes: see `TextIndex.votes`.
            prior_PV: probabilities without votes, all positive.
        """
        entry_M = votes.position_M * self.vocab_size + votes.token_M
        weights = self._weights(votes, len(prior_PV))
        sums = [prior_PV.flatten().index_add(0, entry_M, weight_M) for weight_M in weights]
        sums_PHV = torch.stack([sum_N.view_as(prior_PV) for sum_N in sums], dim=1)
        total_PH = sums_PHV.sum(-1).log()
        return sums_PHV.log() - total_PH[..., None], total_PH

    def of_candidates(
        self,
        votes: Votes,
        entry_N: Int[Tensor, " N"],
        prior_N: Float[Tensor, " N"],
        positions: int,
    ) -> tuple[Float[Tensor, "N H"], Float[Tensor, "P H"]]:
        """Return for some tokens of each position, among which are those of all votes, how much
        higher their log-probabilities are than without votes but with the same normalization, and
        the logarithm of the weights' sum plus one.

        Args:
            votes: see `TextIndex.votes`.
            entry_N: position times V plus token of each, in order.
            prior_N: its probability without votes.
            positions: the number of positions.
        """
        entry_M = votes.position_M * self.vocab_size + votes.token_M
        index_M = torch.searchsorted(entry_N, entry_M)
        weights, ones_P = self._weights(votes, positions), prior_N.new_ones(positions)
        sums = [prior_N.index_add(0, index_M, weight_M) for weight_M in weights]
        totals = [ones_P.index_add(0, votes.position_M, weight_M) for weight_M in weights]
        total_PH = torch.stack(totals, dim=1).log()
        return (torch.stack(sums, dim=1) / prior_N[:, None]).log(), total_PH

    def _weights(self, votes: Votes, positions: int) -> list[Float[Tensor, " M"]]:
        """Return the weight of each vote by each head."""
        contexts, context_M = len(CONTEXTS), votes.kind_M // NUM_CLASSES
        longest_P = context_M.new_zeros(positions)
        longest_P = longest_P.scatter_reduce(0, votes.position_M, context_M, "amax")
        table_HLKC = self.log_weight.view(HEADS, 1, contexts, NUM_CLASSES)
        table_HLKC = table_HLKC + self.log_scale.view(HEADS, contexts, contexts, 1)
        index_M = longest_P[votes.position_M] * (contexts * NUM_CLASSES) + votes.kind_M
        return [weight_N.index_select(0, index_M) for weight_N in table_HLKC.exp().flatten(1)]
