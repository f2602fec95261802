"""A pseudorandom permutation whose elements are computed one by one, without storing all of them.

B indices.
"""

import numpy as np
from numpy.typing import NDArray

from moreish.tokenizers import Ids

ROUNDS = 6
"""Rounds of the Feistel network. Four suffice for long halves (Luby and Rackoff 1988); short
halves need more."""

MIN_BITS = 6
"""Smallest width of the permuted numbers: shorter halves are not mixed well."""

Words = NDArray[np.uint64]


class RandomPermutation:
    """A random permutation of the numbers from 0 to `size` - 1, the same for the same key.

    A Feistel network permutes the next power of two; results beyond `size` are permuted again
    until they are within it (cycle walking: Black and Rogaway 2002, "Ciphers with Arbitrary Finite
    Domains"), less than once on average.
    """

    def __init__(self, size: int, *key: int) -> None:
        """
        Args:
            size: number of elements, at least 1.
            key: any non-negative numbers.
        """
        assert size > 0
        self.size = size
        bits = max(MIN_BITS, (size - 1).bit_length())
        self._low, self._high = np.uint64(bits // 2), np.uint64(bits - bits // 2)
        self._keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)

    def __getitem__(self, index_B: Ids) -> Ids:
        """Return the elements at these indices, (B,)."""
        element_B = self._encrypt(index_B.astype(np.uint64))
        while len(beyond := np.flatnonzero(element_B >= self.size)):
            element_B[beyond] = self._encrypt(element_B[beyond])
        return element_B.astype(np.int64)

    def _encrypt(self, number_B: Words) -> Words:
        """Apply the network once. The halves swap in every round, so an even number of rounds
        brings each back to its own width."""
        low, high = self._low, self._high
        left_B, right_B = number_B >> low, number_B & _bit_mask(low)
        for key in self._keys:
            left_B, right_B = right_B, left_B ^ (_mix_bits(right_B ^ key) & _bit_mask(high))
            low, high = high, low
        return (left_B << low) | right_B


def _bit_mask(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


def _mix_bits(word_B: Words) -> Words:
    """Make each bit depend on all bits: the finalizer of SplitMix64 (Steele, Lea and Flood
    2014)."""
    word_B = (word_B ^ (word_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word_B = (word_B ^ (word_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word_B ^ (word_B >> np.uint64(31))
