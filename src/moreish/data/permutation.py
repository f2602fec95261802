"""A shuffled order in which every place can be asked for by itself: no list of all of it.

B some places.
"""

import numpy as np
from numpy.typing import NDArray

from moreish.tokenizers import Ids

ROUNDS = 6
"""Of the network. Four make an order that cannot be told from chance (Luby and Rackoff 1988) where
halves are long; more help where they are short."""

LEAST_BITS = 6
"""Of the numbers that are shuffled: with fewer, halves are too short to be mixed well."""

Words = NDArray[np.uint64]


class RandomPermutation:
    """The numbers from 0 to `size` - 1 in a random order, the same for the same key.

    A Feistel network shuffles the next power of two; what falls beyond `size` is shuffled again
    until it falls within (cycle walking: Black and Rogaway 2002, "Ciphers with Arbitrary Finite
    Domains"), less than once on average.
    """

    def __init__(self, size: int, *key: int) -> None:
        """`key`: any numbers from 0 on."""
        assert size > 0
        self.size = size
        bits = max(LEAST_BITS, (size - 1).bit_length())
        self._low, self._high = np.uint64(bits // 2), np.uint64(bits - bits // 2)
        seeds = np.random.SeedSequence(key)
        self._keys = seeds.generate_state(ROUNDS, np.uint64)

    def __getitem__(self, place_B: Ids) -> Ids:
        """(B,) the numbers that stand at these places."""
        found_B = self._mixed(place_B.astype(np.uint64))
        while len(beyond := np.flatnonzero(found_B >= self.size)):
            found_B[beyond] = self._mixed(found_B[beyond])
        return found_B.astype(np.int64)

    def _mixed(self, number_B: Words) -> Words:
        """One pass: the halves change places in every round, so an even number of rounds brings
        each back to its own width."""
        low, high = self._low, self._high
        left_B, right_B = number_B >> low, number_B & _ones(low)
        for key in self._keys:
            left_B, right_B = right_B, left_B ^ (_scrambled(right_B ^ key) & _ones(high))
            low, high = high, low
        return (left_B << low) | right_B


def _ones(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


def _scrambled(word_B: Words) -> Words:
    """Each bit depends on all bits: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    word_B = (word_B ^ (word_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word_B = (word_B ^ (word_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word_B ^ (word_B >> np.uint64(31))
