"""N-grams as sorted integers: counting without dictionaries.

An n-gram is one integer whose digits in base V are its tokens, the newest last. So the n-grams of
one context lie side by side in sorted order, and a look-up is a binary search. Before the start of
a text or an item stand boundaries (of running text, which has none, its token 0).

P positions, G distinct n-grams, N tokens.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.tokenizers import BOUNDARY_ID, Ids

CHUNK = 1 << 24
"""Positions that are counted at a time: half a gigabyte of working memory."""


def max_order(vocab_size: int) -> int:
    """The most tokens of which an n-gram fits into 63 bits, or its context and a length."""
    order = 1
    size = max(2, vocab_size)  # powers of one would never end
    while size**order * max(size, order + 1) < 2**63:
        order += 1
    return order


def check_order(order: int, vocab_size: int, folds: int = 1) -> None:
    """Raises MoreishError when n-grams of `order` do not fit into 63 bits, or their contexts in so
    many `folds` do not."""
    if order > (most := max_order(vocab_size)):
        raise MoreishError(
            f"model.order={order} is too long for a vocabulary of {vocab_size}: at most {most}"
        )
    if folds * vocab_size ** (order - 1) >= 2**63:
        raise MoreishError(
            f"model.folds={folds} are too many for model.counts.order={order} and a vocabulary of "
            f"{vocab_size}: give fewer of either"
        )


class Folds:
    """Parts of a text, each to be held out from the counts of the others.

    They are cut as validation is: running text into stretches, because words and names come in
    clusters, and lists item by item, all copies of an item into the same part.
    """

    def __init__(self, tokens: TokenDataset, number: int) -> None:
        """Of `number` parts, or as many as there are things to deal.

        Raises:
            MoreishError: there are not two of them.
        """
        self.tokens, most = tokens, tokens.num_predictions
        if tokens.items:
            # In the order of their hashes, which is none.
            distinct, of_item = np.unique(_hashes(tokens), return_inverse=True)
            most = len(distinct)
        self.number = min(number, most)
        if self.number < 2:
            raise MoreishError("there is too little to hold out for a hybrid: --model kneser-ney")
        if tokens.items:
            self._of_item = of_item % self.number

    def of(self, place_P: Ids) -> Ids:
        """(P,) the part in which each of these predictions is."""
        if self.tokens.items:
            item_P = np.searchsorted(self.tokens.boundaries, place_P, side="right") - 1
            return self._of_item[np.minimum(item_P, len(self._of_item) - 1)]
        return np.minimum(place_P * self.number // self.tokens.num_predictions, self.number - 1)


def _hashes(tokens: TokenDataset) -> NDArray[np.uint64]:
    """Of each item a number that only its copies share, nearly always."""
    start_I, length_I = tokens.segments()
    factors = np.random.default_rng(0).integers(2**63, size=int(length_I.max()), dtype=np.uint64)
    hash_I = np.empty(len(start_I), np.uint64)
    edges = np.searchsorted(start_I, np.arange(0, tokens.num_predictions, CHUNK)).tolist()
    for first, last in pairwise([*edges, len(start_I)]):
        start_K, length_K = start_I[first:last], length_I[first:last]
        if not len(start_K):  # within an item that is longer than a chunk
            continue
        begin, end = int(start_K[0]), int(start_K[-1] + length_K[-1])
        offset_P = np.arange(begin, end) - np.repeat(start_K, length_K)
        # Products wrap around, which is what mixes them; the high bits are the mixed ones.
        mixed_P = (tokens.ids_N[begin + 1 : end + 1].astype(np.uint64) + np.uint64(1)) * (
            factors[offset_P]
        )
        hash_I[first:last] = np.add.reduceat(mixed_P, start_K - begin) >> np.uint64(32)
    return hash_I


def count_ngrams(
    tokens: TokenDataset, order: int, vocab_size: int, folds: Folds | None = None, without: int = 0
) -> tuple[Ids, Ids]:
    """(G,) the distinct n-grams of `tokens`, sorted, and (G,) how often each occurs; but for those
    that end with the target of a prediction in part `without` of `folds`.

    Chunks are counted one after another and their results merged like the carries of a binary
    counter, so that memory grows with the distinct n-grams and not with the text.
    """
    runs: list[tuple[Ids, Ids]] = []
    for first in range(0, tokens.num_predictions, CHUNK):
        last = min(first + CHUNK, tokens.num_predictions)
        grams_P = grams(tokens, order, vocab_size, first, last)
        if folds is not None:
            grams_P = grams_P[folds.of(np.arange(first, last)) != without]
            if not len(grams_P):
                continue
        runs.append(distinct(np.sort(grams_P)))
        while len(runs) > 1 and len(runs[-2][0]) <= 2 * len(runs[-1][0]):
            runs.append(_merged(runs.pop(), runs.pop()))
    while len(runs) > 1:
        runs.append(_merged(runs.pop(), runs.pop()))
    return runs[0]


def grams(tokens: TokenDataset, order: int, vocab_size: int, first: int = 0, last: int = -1) -> Ids:
    """(P,) the n-gram that ends with the target of each prediction from `first` to `last`."""
    last = tokens.num_predictions if last < 0 else last
    start = max(0, first - order)
    ids = tokens.ids_N[start : last + 1].astype(np.int64)
    place_P = np.arange(first - start, last - start)
    begin_P = np.zeros_like(place_P)  # where the item of each place begins, if within reach
    if tokens.items:
        marks = np.where(ids == tokens.boundary, np.arange(len(ids)), 0)
        begin_P = np.maximum.accumulate(marks)[place_P]
    gram_P = np.zeros_like(place_P)
    for back in range(order - 2, -1, -1):
        inside_P = place_P - back >= begin_P
        gram_P *= vocab_size
        gram_P += np.where(inside_P, ids[np.maximum(place_P - back, 0)], BOUNDARY_ID)
    gram_P *= vocab_size
    gram_P += ids[place_P + 1]
    return gram_P


def distinct(sorted_P: Ids) -> tuple[Ids, Ids]:
    """The distinct values of a sorted array, and how often each occurs."""
    first_G = run_starts(sorted_P)
    return sorted_P[first_G], np.diff(np.append(first_G, len(sorted_P)))


def run_starts(sorted_P: Ids) -> Ids:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.append(True, sorted_P[1:] != sorted_P[:-1]))


def _merged(a: tuple[Ids, Ids], b: tuple[Ids, Ids]) -> tuple[Ids, Ids]:
    grams_P = np.concatenate([a[0], b[0]])
    counts_P = np.concatenate([a[1], b[1]])
    order_P = np.argsort(grams_P, kind="stable")  # a radix or a merge sort: both are half sorted
    grams_P, counts_P = grams_P[order_P], counts_P[order_P]
    first_G = run_starts(grams_P)
    return grams_P[first_G], np.add.reduceat(counts_P, first_G)
