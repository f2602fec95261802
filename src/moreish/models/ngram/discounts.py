"""The tables of modified Kneser-Ney smoothing, from counts.

G distinct n-grams, C distinct contexts.
"""

import numpy as np
from numpy.typing import NDArray

from moreish.data import TokenDataset
from moreish.models.ngram.counts import Folds, count_ngrams, distinct, run_starts
from moreish.tokenizers import Ids

Tables = dict[str, NDArray[np.generic]]

MIN_DISCOUNT = 0.05
"""Used where counts of counts are too few for an estimate."""

TABLE_NAMES = ("targets", "shares", "contexts", "first", "gammas")
"""For each order: (G,) the last token of each n-gram, sorted, and its discounted share of its
context's counts; (C,) the contexts, (C + 1,) where the n-grams of each begin, and (C,) the backoff
mass, which the discounts leave to the shorter context."""


def discounted_tables(
    tokens: TokenDataset, order: int, vocab_size: int, folds: Folds | None = None, without: int = 0
) -> list[Tables]:
    """Return the tables of orders 1 to `order`, leaving out one of the `folds` if there are any."""
    ngrams_G, counts_G = count_ngrams(tokens, order, vocab_size, folds, without)
    small = np.uint8 if vocab_size <= 256 else np.int32
    found = []
    for m in range(order, 0, -1):
        discounts_G = discounts(counts_G)[np.minimum(counts_G, 3)]
        contexts_G = ngrams_G // vocab_size
        first_C = run_starts(contexts_G)
        total_C = np.add.reduceat(counts_G, first_C)
        many_C = np.diff(first_C, append=len(ngrams_G))
        shares_G = (counts_G - discounts_G) / np.repeat(total_C, many_C)
        found.append(
            {
                "targets": (ngrams_G % vocab_size).astype(small),
                "shares": shares_G.astype(np.float32),
                "contexts": contexts_G[first_C],
                "first": np.append(first_C, len(ngrams_G)),
                "gammas": (np.add.reduceat(discounts_G, first_C) / total_C).astype(np.float32),
            }
        )
        ngrams_G, counts_G = distinct(np.sort(ngrams_G % vocab_size ** (m - 1)))
    return found[::-1]


def discounts(counts_G: Ids) -> NDArray[np.float64]:
    """Estimate the discounts of counts 0, 1, 2 and 3+ (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (max(1, int((counts_G == k).sum())) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # A discount must not exceed the count.
    return np.array([0.0] + [min(k + 1, max(MIN_DISCOUNT, d)) for k, d in enumerate(found)])
