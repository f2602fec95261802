"""N-grams of inputs: their codes, which examples have which, and log-count ratios.

N tokens of all inputs, W words, E examples, P pairs of an example and an n-gram, F distinct
n-grams, L labels, V vocabulary.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreish.tokenizers import Ids

WORD_MULTIPLIER = 0x2545F4914F6CDD1D
"""Odd factor of the hash of a word in that of an n-gram of words."""

with np.errstate(over="ignore"):
    WORD_POWERS = np.cumprod(np.full(64, 0x9E3779B97F4A7C15, dtype=np.uint64))
"""Factors of the characters of a word in its hash."""


@dataclass(frozen=True)
class NGramSets:
    """Which n-grams each of some examples has."""

    example_P: Ids
    feature_P: Ids
    """The number of an example and that of an n-gram that it has, by example."""
    label_E: Ids
    """The number of the label of each example."""
    features: int
    labels: int

    @cached_property
    def joint_counts(self) -> NDArray[np.float32]:
        """The number of examples of each label that have an n-gram, (F, L)."""
        both_P = self.feature_P * self.labels + self.label_E[self.example_P]
        counts = np.bincount(both_P, minlength=self.features * self.labels)
        return counts.reshape(self.features, self.labels).astype(np.float32)

    @cached_property
    def has_ngram(self) -> Tensor:
        """Which n-grams each example has, a sparse matrix (E, F) of zeros and ones."""
        start_E = np.searchsorted(self.example_P, np.arange(len(self.label_E) + 1))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse")  # that they are in beta
            return torch.sparse_csr_tensor(
                torch.from_numpy(start_E),
                torch.from_numpy(self.feature_P),
                torch.ones(len(self.feature_P)),
                size=(len(self.label_E), self.features),
                check_invariants=False,
            )

    def where(self, chosen_E: NDArray[np.bool_]) -> "NGramSets":
        """Return some of the examples, with the same numbers of n-grams and labels."""
        kept_P = chosen_E[self.example_P]
        number_E = np.cumsum(chosen_E) - 1
        return NGramSets(
            number_E[self.example_P[kept_P]],
            self.feature_P[kept_P],
            self.label_E[chosen_E],
            self.features,
            self.labels,
        )


def ngram_codes(
    example_N: Ids, item_N: Ids, order: int, multiplier: int
) -> tuple[list[Ids], list[Ids]]:
    """Return the examples and the codes of the n-grams of some items, such as tokens, for each
    length. Codes are numbers in base `multiplier`, or hashes where those are too large."""
    examples, codes, code_N = [], [], np.zeros(len(item_N), np.int64)
    for length in range(1, order + 1):
        code_N = code_N[: len(item_N) - length + 1] * multiplier + item_N[length - 1 :]
        inside_N = example_N[: len(code_N)] == example_N[length - 1 :]
        examples.append(example_N[: len(code_N)][inside_N])
        codes.append(code_N[inside_N])
    return examples, codes


def word_hashes(
    example_N: Ids, ids_N: Ids, is_letter_V: NDArray[np.bool_], is_space_V: NDArray[np.bool_]
) -> tuple[Ids, Ids]:
    """Return the example and a hash of each word: letters side by side, or another character."""
    is_letter_N, is_space_N = is_letter_V[ids_N], is_space_V[ids_N]
    is_first_N = ~is_letter_N
    is_first_N[:1] = True
    is_first_N[1:] |= ~is_letter_N[:-1] | (example_N[1:] != example_N[:-1])
    start_W = np.flatnonzero(is_first_N)
    place_N = np.arange(len(ids_N)) - np.repeat(start_W, np.diff(start_W, append=len(ids_N)))
    factors_N = WORD_POWERS[np.minimum(place_N, len(WORD_POWERS) - 1)]
    hash_W = np.add.reduceat((ids_N.astype(np.uint64) + np.uint64(1)) * factors_N, start_W)
    is_word_W = ~is_space_N[start_W]
    return example_N[start_W][is_word_W], hash_W[is_word_W].view(np.int64)


def log_count_ratios(
    joint_FL: NDArray[np.float32], smoothing: float, without: int | None = None
) -> NDArray[np.float32]:
    """Return the log of how much more probable each n-gram is with a label than with all others
    (equation 2 of the paper, for several labels).

    Args:
        joint_FL: number of examples of each label that have an n-gram.
        smoothing: added to each count.
        without: a label of which one example that has the n-gram is left out of the counts.
    """
    total_F1, sum_L = joint_FL.sum(1, keepdims=True), joint_FL.sum(0)
    size = smoothing * len(joint_FL)
    rest_FL = total_F1 - joint_FL
    norms_2L = np.log(np.stack([sum_L, sum_L.sum() - sum_L]) + size)
    if without is not None:
        joint_FL, rest_FL = joint_FL.copy(), rest_FL.copy()
        others = np.arange(joint_FL.shape[1]) != without
        joint_FL[:, without] = np.maximum(joint_FL[:, without] - 1, 0)
        rest_FL[:, others] = np.maximum(rest_FL[:, others] - 1, 0)
    ratio_FL = np.log(joint_FL + smoothing) - np.log(rest_FL + smoothing)
    return ratio_FL - (norms_2L[0] - norms_2L[1])
