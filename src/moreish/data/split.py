"""Training, validation and test splits of items and of running text.

I items, D distinct items.
"""

import random
from typing import Literal

import numpy as np

from moreish.errors import MoreishError
from moreish.tokenizers import Ids
from moreish.utils.text import plural

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

SplitRule = Literal["seeded", "lecture"]

ITEM_SHARES = (0.8, 0.9)
"""Items up to the first fraction are for training, up to the second for validation, the rest for
test."""
TEXT_SHARES = (0.9, 0.95)
"""The same for running text, by position."""


def split_items(item_ids_I: Ids, seed: int) -> dict[SplitName, Ids]:
    """Split items 80/10/10 at random, with all copies of an item in one split.

    An item that makes up more than a tenth of the list would fill a split alone: it goes to
    training, and the fractions hold for the other items. Each split keeps the order of the list.

    Args:
        item_ids_I: for each item, the number of its text: equal items have equal numbers.
        seed: random seed of the split.

    Returns:
        The indices of each split's items.

    Raises:
        MoreishError: there are fewer than three distinct items.
    """
    copies_D = np.bincount(item_ids_I)
    distinct = len(copies_D)
    if distinct < len(SPLITS):
        raise MoreishError(
            f"{plural(distinct, 'distinct line')} cannot be split into train, validation and test: "
            "give at least 3, or use --as text"
        )
    frequent = np.flatnonzero(copies_D > max(1.0, len(item_ids_I) / 10))
    frequent = frequent[np.argsort(-copies_D[frequent], kind="stable")][: distinct - 2]
    rest = np.random.default_rng(seed).permutation(distinct)
    rest = rest[~np.isin(rest, frequent)]
    # The position of an item's last copy in the shuffled list decides its split, so that the
    # fractions count copies. The limits leave at least one distinct item to each split.
    ends = np.cumsum(copies_D[rest])
    first = int(np.searchsorted(ends, ITEM_SHARES[0] * ends[-1], side="right"))
    first = min(first, len(rest) - 2)
    second = int(np.searchsorted(ends, ITEM_SHARES[1] * ends[-1], side="right"))
    second = max(second, first + 1)
    split_D = np.zeros(distinct, np.uint8)
    split_D[rest[first:second]] = SPLITS.index("val")
    split_D[rest[second:]] = SPLITS.index("test")
    split_I = split_D[item_ids_I]
    return {name: np.flatnonzero(split_I == number) for number, name in enumerate(SPLITS)}


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
