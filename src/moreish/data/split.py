"""Train, validation and test: which item, or which stretch of text, belongs where.

I items, D distinct items.
"""

import random
from typing import Literal

import numpy as np

from moreish.errors import MoreishError
from moreish.tokenizers import Ids

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

SplitRule = Literal["seeded", "lecture"]

ITEM_SHARES = (0.8, 0.9)
"""Up to the first share of the items is training, up to the second validation, the rest test."""
TEXT_SHARES = (0.9, 0.95)


def split_items(item_ids_I: Ids, seed: int) -> dict[SplitName, Ids]:
    """80/10/10 by item, shuffled by `seed`; all copies of an item stay on one side.

    An item that is more than a tenth of all would fill a side alone: it goes to training, and the
    shares are those of the others. Each side keeps the order of the source.

    Args:
        numbers_I: as in `Facts`.

    Returns:
        The places of each side's items.

    Raises:
        MoreishError: there are fewer than three distinct items.
    """
    copies_D = np.bincount(item_ids_I)
    distinct = len(copies_D)
    if distinct < len(SPLITS):
        raise MoreishError(
            f"{distinct} distinct line(s) cannot be split in train, validation and test: "
            "give at least 3, or use --as text"
        )
    often = np.flatnonzero(copies_D > max(1.0, len(item_ids_I) / 10))
    often = often[np.argsort(-copies_D[often], kind="stable")][: distinct - 2]
    rest = np.random.default_rng(seed).permutation(distinct)
    rest = rest[~np.isin(rest, often)]
    # Where each item's copies end in the shuffled list decides its side, so that the shares hold
    # for copies too; the limits leave at least one distinct item to each side.
    ends = np.cumsum(copies_D[rest])
    first = int(np.searchsorted(ends, ITEM_SHARES[0] * ends[-1], side="right"))
    first = min(first, len(rest) - 2)
    second = int(np.searchsorted(ends, ITEM_SHARES[1] * ends[-1], side="right"))
    second = max(second, first + 1)
    side_D = np.zeros(distinct, np.uint8)
    side_D[rest[first:second]] = SPLITS.index("val")
    side_D[rest[second:]] = SPLITS.index("test")
    side_I = side_D[item_ids_I]
    return {name: np.flatnonzero(side_I == side) for side, name in enumerate(SPLITS)}


def split_items_as_lecture(count: int) -> dict[SplitName, Ids]:
    """The makemore lectures' split of so many items: `random.seed(42)`, shuffle, 80/10/10;
    duplicates may cross. Returns as `split_items` does, but each side in shuffled order."""
    shuffled = list(range(count))
    random.Random(42).shuffle(shuffled)  # noqa: S311 (the lecture's own generator)
    first, second = (int(share * count) for share in ITEM_SHARES)
    if first == second:
        raise MoreishError(f"{count} line(s) are too few for the lecture's 80/10/10 split")
    train, val, test = np.split(np.array(shuffled), [first, second])
    return {"train": train, "val": val, "test": test}


def text_bounds(length: int, rule: SplitRule) -> dict[SplitName, slice]:
    """Where running text of `length` tokens is cut: 90/5/5 by position, the lecture's 90/10.

    Raises:
        MoreishError: a part would be too short to predict one token from another.
    """
    first, second = (int(share * length) for share in TEXT_SHARES)
    bounds: dict[SplitName, slice] = {"train": slice(0, first), "val": slice(first, second)}
    bounds["test"] = slice(second, length)
    if rule == "lecture":
        bounds = {"train": slice(0, first), "val": slice(first, length)}
    if any(part.stop - part.start < 2 for part in bounds.values()):
        least = 20 if rule == "lecture" else 40
        raise MoreishError(f"{length} characters of running text are too few: give {least} or more")
    return bounds
