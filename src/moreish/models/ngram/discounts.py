"""The tables of modified Kneser-Ney smoothing, from counts.

G distinct n-grams, C distinct contexts.
"""

import numpy as np
from numpy.typing import NDArray

from moreish.data import TokenDataset
from moreish.models.ngram.counts import Folds, count_ngrams, distinct, ngrams, run_starts
from moreish.tokenizers import Ids

Tables = dict[str, NDArray[np.generic]]

MIN_DISCOUNT = 0.05
"""Used where counts of counts are too few for an estimate."""

PRIOR_COUNTS = np.array([2, 1, 2 / 3, 1 / 2])
"""Counts of counts 1 to 4 from which the discounts are 1/2, 1 and 3/2."""

PRIORS = (0.0, 10.0, 100.0, 1e9)
"""Weights of the prior to choose from: none at all, up to nothing else."""

MAX_TOKENS_FOR_PRIOR = 20_000
"""Predictions above which counts of counts are many enough, and there is no prior."""

CV_FOLDS = 10
"""Number of folds of the cross-validation that chooses the prior."""

TABLE_NAMES = ("targets", "shares", "contexts", "first", "gammas")
"""For each order: (G,) the last token of each n-gram, sorted, and its discounted share of its
context's counts; (C,) the contexts, (C + 1,) where the n-grams of each begin, and (C,) the backoff
mass, which the discounts leave to the shorter context."""


def discounted_tables(
    tokens: TokenDataset,
    order: int,
    vocab_size: int,
    folds: Folds | None = None,
    without: int = 0,
    *,
    prior: float = 0.0,
) -> list[Tables]:
    """Return the tables of orders 1 to `order`, leaving out one of the `folds` if there are any;
    `prior` as in `discounts`."""
    ngrams_G, counts_G = count_ngrams(tokens, order, vocab_size, folds, without)
    small = np.uint8 if vocab_size <= 256 else np.int32
    found = []
    for m in range(order, 0, -1):
        discounts_G = discounts(counts_G, prior)[np.minimum(counts_G, 3)]
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


def discounts(counts_G: Ids, prior: float = 0.0) -> NDArray[np.float64]:
    """Estimate the discounts of counts 0, 1, 2 and 3+ (Chen and Goodman 1999, equation 26).

    In a small text with many repetitions, counts of counts are so few that the estimate takes
    nearly everything away from the most frequent n-grams.

    Args:
        counts_G: how often each n-gram occurs.
        prior: weight of `PRIOR_COUNTS`, which are added to the counts of counts; 0 is the paper's
            estimate.
    """
    observed = [max(1, int((counts_G == k).sum())) for k in (1, 2, 3, 4)]
    n1, n2, n3, n4 = observed + prior * PRIOR_COUNTS
    y = n1 / (n1 + 2 * n2)
    found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # A discount must not exceed the count.
    return np.array([0.0] + [min(k + 1, max(MIN_DISCOUNT, d)) for k, d in enumerate(found)])


def choose_prior(tokens: TokenDataset, order: int, vocab_size: int) -> float:
    """Return the weight of `PRIORS` with the lowest loss in a cross-validation; 0 for a text that
    is large, or that has one item only."""
    if tokens.num_predictions > MAX_TOKENS_FOR_PRIOR or (
        tokens.items and len(tokens.boundaries) <= 2
    ):
        return 0.0
    folds = Folds(tokens, CV_FOLDS)
    ngrams_P = ngrams(tokens, order, vocab_size)
    fold_P = folds.of(np.arange(tokens.num_predictions))

    def loss(prior: float) -> float:
        total = 0.0
        for fold in range(folds.number):
            tables = discounted_tables(tokens, order, vocab_size, folds, fold, prior=prior)
            total -= np.log(ngram_probabilities(tables, ngrams_P[fold_P == fold], vocab_size)).sum()
        return total

    return min(PRIORS, key=loss)


def ngram_probabilities(
    tables: list[Tables], ngrams_P: Ids, vocab_size: int
) -> NDArray[np.float64]:
    """Return (P,) the probability of the last token of each n-gram after the others.

    Args:
        tables: those of orders 1 to the length of the n-grams.
        ngrams_P: n-grams as integers, see `moreish.models.ngram.counts`.
        vocab_size: the number of tokens.
    """
    probs_P = np.full(len(ngrams_P), 1 / vocab_size)
    for m, table in enumerate(tables, 1):
        context_P, target_P = np.divmod(ngrams_P % vocab_size**m, vocab_size)
        contexts_C, first_C = table["contexts"], table["first"]
        index_P = np.minimum(np.searchsorted(contexts_C, context_P), len(contexts_C) - 1)
        is_seen_P = contexts_C[index_P] == context_P
        known_G = np.repeat(contexts_C, np.diff(first_C)) * vocab_size + table["targets"].astype(
            np.int64
        )
        gram_P = context_P * vocab_size + target_P
        place_P = np.minimum(np.searchsorted(known_G, gram_P), len(known_G) - 1)
        share_P = np.where(known_G[place_P] == gram_P, table["shares"][place_P], 0.0)
        probs_P = np.where(is_seen_P, share_P + table["gammas"][index_P] * probs_P, probs_P)
    return probs_P
