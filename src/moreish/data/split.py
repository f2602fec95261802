"""Training, validation and test splits of items and of running text."""

import random
from collections.abc import Mapping
from typing import Literal

import numpy as np

from moreish.errors import MoreishError
from moreish.tokenizers import Ids
from moreish.utils.text import plural

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

SPLIT_TITLES: Mapping[str, str] = {"train": "training", "val": "validation", "test": "test"}
"""The names of the splits in messages."""

SplitRule = Literal["seeded", "lecture"]

ITEM_SHARES = (0.8, 0.9)
"""Items up to the first fraction are for training, up to the second for validation, the rest for
test."""
TEXT_SHARES = (0.9, 0.95)
"""The same for running text, by position."""


def split_items(count: int, seed: int) -> dict[SplitName, Ids]:
    """Split items 80/10/10 at random, item by item: copies of an item may be in several splits, as
    they are among new draws from the same source. Each split keeps the order of the list.

    Args:
        count: number of items.
        seed: random seed of the split.

    Returns:
        The indices of each split's items.

    Raises:
        MoreishError: there are fewer than three items.
    """
    if count < len(SPLITS):
        raise MoreishError(
            f"{plural(count, 'line')} cannot be split into training, validation and test: give at "
            "least 3, or use --as text"
        )
    first = min(int(ITEM_SHARES[0] * count), count - 2)
    second = max(int(ITEM_SHARES[1] * count), first + 1)
    shuffled = np.random.default_rng(seed).permutation(count)
    parts = np.split(shuffled, [first, second])
    return {name: np.sort(part) for name, part in zip(SPLITS, parts, strict=True)}


def split_items_as_lecture(count: int) -> dict[SplitName, Ids]:
    """Split items as the makemore lectures do: `random.seed(42)`, shuffle, 80/10/10.

    Copies of an item may be in several splits.

    Args:
        count: number of items.

    Returns:
        The indices of each split's items, in shuffled order.

    Raises:
        MoreishError: there are too few items.
    """
    shuffled = list(range(count))
    random.Random(42).shuffle(shuffled)  # noqa: S311 (the lecture's own generator)
    first, second = (int(share * count) for share in ITEM_SHARES)
    if first == second:
        raise MoreishError(f"the lecture's 80/10/10 split needs 6 or more lines, not {count}")
    train, val, test = np.split(np.array(shuffled), [first, second])
    return {"train": train, "val": val, "test": test}


def text_bounds(length: int, rule: SplitRule) -> dict[SplitName, slice]:
    """Return the splits of running text by position: 90/5/5, or 90/10 as in the lecture.

    Args:
        length: number of characters.
        rule: which of the two.

    Raises:
        MoreishError: a split would have fewer than two characters.
    """
    first, second = (int(share * length) for share in TEXT_SHARES)
    bounds: dict[SplitName, slice] = {"train": slice(0, first), "val": slice(first, second)}
    bounds["test"] = slice(second, length)
    if rule == "lecture":
        bounds = {"train": slice(0, first), "val": slice(first, length)}
    if any(part.stop - part.start < 2 for part in bounds.values()):
        minimum = 20 if rule == "lecture" else 40
        raise MoreishError(
            f"running text of {plural(length, 'character')} is too short to split: give {minimum} "
            "or more"
        )
    return bounds
