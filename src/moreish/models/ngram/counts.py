"""N-grams as sorted integers: counting without dictionaries.

An n-gram is one integer whose digits in base V are its tokens, the newest last, so the n-grams of
one context are adjacent in sorted order, and a look-up is a binary search. The start of a text or
an item is padded with boundaries (running text, which has none: token 0).

P positions, G distinct n-grams, N tokens.
"""

import numpy as np

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.tokenizers import BOUNDARY_ID, Ids

CHUNK_POSITIONS = 1 << 24
"""Positions that are counted at a time; takes half a gigabyte of working memory."""


def max_order(vocab_size: int) -> int:
    """Return the longest order whose n-grams, or contexts with a length, fit into 63 bits."""
    order = 1
    size = max(2, vocab_size)  # powers of one do not grow
    while size**order * max(size, order + 1) < 2**63:
        order += 1
    return order


def check_order(order: int, vocab_size: int, folds: int = 1) -> None:
    """Raise MoreishError if n-grams of `order`, or their contexts with a fold number, do not fit
    into 63 bits."""
    if order > (maximum := max_order(vocab_size)):
        raise MoreishError(
            f"model.order={order} is too high for a vocabulary of {vocab_size}: use {maximum} or "
            "less"
        )
    if folds * vocab_size ** (order - 1) >= 2**63:
        raise MoreishError(
            f"model.folds={folds} is too high for model.counts.order={order} and a vocabulary of "
            f"{vocab_size}: lower either of them"
        )


class Folds:
    """A split of the training text into folds for cross-fitted counts: each fold is looked up in
    counts that leave it out.

    Folds are made as validation splits are: consecutive stretches of running text, because words
    and names come in clusters; the items of a list at random, so that the counts that are looked
    up know what repeats in the list.
    """

    def __init__(self, tokens: TokenDataset, number: int) -> None:
        """Make `number` folds, or as many as there are items or predictions.

        Raises:
            MoreishError: there are fewer than two.
        """
        self.tokens = tokens
        items = len(tokens.boundaries) - 1 if tokens.items else tokens.num_predictions
        self.number = min(number, items)
        if self.number < 2:
            raise MoreishError(
                "the text is too small for the folds of a hybrid: use --model kneser-ney"
            )
        if tokens.items:
            self._of_item = np.random.default_rng(0).permutation(items) % self.number

    def of(self, place_P: Ids) -> Ids:
        """Return (P,) the fold of each of these predictions."""
        if self.tokens.items:
            item_P = np.searchsorted(self.tokens.boundaries, place_P, side="right") - 1
            return self._of_item[np.minimum(item_P, len(self._of_item) - 1)]
        return np.minimum(place_P * self.number // self.tokens.num_predictions, self.number - 1)


def count_ngrams(
    tokens: TokenDataset, order: int, vocab_size: int, folds: Folds | None = None, without: int = 0
) -> tuple[Ids, Ids]:
    """Return (G,) the distinct n-grams of `tokens`, sorted, and (G,) their counts, leaving out
    those that end with the target of a prediction in fold `without` of `folds`.

    Chunks are counted one after another, and their results are merged like the carries of a binary
    counter, so that memory grows with the number of distinct n-grams and not with the text.
    """
    runs: list[tuple[Ids, Ids]] = []
    for first in range(0, tokens.num_predictions, CHUNK_POSITIONS):
        last = min(first + CHUNK_POSITIONS, tokens.num_predictions)
        ngrams_P = ngrams(tokens, order, vocab_size, first, last)
        if folds is not None:
            ngrams_P = ngrams_P[folds.of(np.arange(first, last)) != without]
            if not len(ngrams_P):
                continue
        runs.append(distinct(np.sort(ngrams_P)))
        while len(runs) > 1 and len(runs[-2][0]) <= 2 * len(runs[-1][0]):
            runs.append(_merge(runs.pop(), runs.pop()))
    while len(runs) > 1:
        runs.append(_merge(runs.pop(), runs.pop()))
    return runs[0]


def ngrams(
    tokens: TokenDataset, order: int, vocab_size: int, first: int = 0, last: int = -1
) -> Ids:
    """Return (P,) the n-gram that ends with each prediction's target, from `first` to `last`."""
    last = tokens.num_predictions if last < 0 else last
    start = max(0, first - order)
    ids = tokens.ids_N[start : last + 1].astype(np.int64)
    place_P = np.arange(first - start, last - start)
    begin_P = np.zeros_like(place_P)  # where each position's item begins, if within reach
    if tokens.items:
        marks = np.where(ids == tokens.boundary, np.arange(len(ids)), 0)
        begin_P = np.maximum.accumulate(marks)[place_P]
    ngram_P = np.zeros_like(place_P)
    for back in range(order - 2, -1, -1):
        inside_P = place_P - back >= begin_P
        ngram_P *= vocab_size
        ngram_P += np.where(inside_P, ids[np.maximum(place_P - back, 0)], BOUNDARY_ID)
    ngram_P *= vocab_size
    ngram_P += ids[place_P + 1]
    return ngram_P


def distinct(sorted_P: Ids) -> tuple[Ids, Ids]:
    """Return the distinct values of a sorted array, and their counts."""
    first_G = run_starts(sorted_P)
    return sorted_P[first_G], np.diff(np.append(first_G, len(sorted_P)))


def run_starts(sorted_P: Ids) -> Ids:
    """Return the index at which each run of equal values begins."""
    return np.flatnonzero(np.append(True, sorted_P[1:] != sorted_P[:-1]))


def _merge(a: tuple[Ids, Ids], b: tuple[Ids, Ids]) -> tuple[Ids, Ids]:
    ngrams_P = np.concatenate([a[0], b[0]])
    counts_P = np.concatenate([a[1], b[1]])
    order_P = np.argsort(ngrams_P, kind="stable")  # stable sorts are fast on two sorted runs
    ngrams_P, counts_P = ngrams_P[order_P], counts_P[order_P]
    first_G = run_starts(ngrams_P)
    return ngrams_P[first_G], np.add.reduceat(counts_P, first_G)
