"""From counts to the tables of Kneser-Ney smoothing.

G distinct n-grams, C distinct contexts.
"""

import numpy as np
from numpy.typing import NDArray

from moreish.data import TokenDataset
from moreish.models.ngram.counts import Folds, count_ngrams, distinct, run_starts
from moreish.tokenizers import Ids

Tables = dict[str, NDArray[np.generic]]

LEAST_DISCOUNT = 0.05
"""Something is set aside even where counts of counts are too few to say how much."""

TABLE_NAMES = ("targets", "shares", "contexts", "first", "gammas")
"""Of each order: (G,) last token of each n-gram, sorted, and its share of its context's counts
after the discount; (C,) the contexts, (C + 1,) where the n-grams of each begin, and (C,) how much
of the counts the discounts leave to the shorter context."""


def discounted(
    tokens: TokenDataset, order: int, vocab_size: int, folds: Folds | None = None, without: int = 0
) -> list[Tables]:
    """The tables of orders 1 to `order`; of `folds`, one part may be left out."""
    grams_G, counts_G = count_ngrams(tokens, order, vocab_size, folds, without)
    small = np.uint8 if vocab_size <= 256 else np.int32
    found = []
    for m in range(order, 0, -1):
        discounts_G = discounts(counts_G)[np.minimum(counts_G, 3)]
        contexts_G = grams_G // vocab_size
        first_C = run_starts(contexts_G)
        total_C = np.add.reduceat(counts_G, first_C)
        many_C = np.diff(first_C, append=len(grams_G))
        shares_G = (counts_G - discounts_G) / np.repeat(total_C, many_C)
        found.append(
            {
                "targets": (grams_G % vocab_size).astype(small),
                "shares": shares_G.astype(np.float32),
                "contexts": contexts_G[first_C],
                "first": np.append(first_C, len(grams_G)),
                "gammas": (np.add.reduceat(discounts_G, first_C) / total_C).astype(np.float32),
            }
        )
        grams_G, counts_G = distinct(np.sort(grams_G % vocab_size ** (m - 1)))
    return found[::-1]


def discounts(counts_G: Ids) -> NDArray[np.float64]:
    """By count: 0, 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (max(1, int((counts_G == k).sum())) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # A discount takes no more than the count that it is taken from.
    return np.array([0.0] + [min(k + 1, max(LEAST_DISCOUNT, d)) for k, d in enumerate(found)])
