"""Train, validation and test: which item, or which stretch of text, belongs where."""

import random
from typing import Literal

import numpy as np

from moreish.data.text import Corpus
from moreish.errors import MoreishError

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

Rule = Literal["seeded", "lecture"]

ITEM_SHARES = (0.8, 0.9)
"""Up to the first share of the items is training, up to the second validation, the rest test."""
TEXT_SHARES = (0.9, 0.95)


def split_items(items: list[str], seed: int) -> dict[SplitName, list[str]]:
    """80/10/10 by item, shuffled by `seed`; all copies of an item stay on one side.

    An item that is more than a tenth of all would fill a side alone: it goes to training, and the
    shares are those of the others. Each side keeps the order of the source.

    Raises:
        MoreishError: there are fewer than three distinct items.
    """
    distinct = list(dict.fromkeys(items))
    if len(distinct) < len(SPLITS):
        raise MoreishError(
            f"{len(distinct)} distinct line(s) cannot be split in train, validation and test: "
            "give at least 3, or use --as text"
        )
    copies: dict[str, int] = dict.fromkeys(distinct, 0)
    for item in items:
        copies[item] += 1
    often = [item for item in distinct if copies[item] > max(1.0, len(items) / 10)]
    often = sorted(often, key=lambda item: -copies[item])[: len(distinct) - 2]
    side: dict[str, SplitName] = dict.fromkeys(often, "train")
    order = [distinct[i] for i in np.random.default_rng(seed).permutation(len(distinct))]
    rest = [item for item in order if item not in side]
    # Where each item's copies end in the shuffled list decides its side, so that the shares hold
    # for copies too; the clip leaves at least one distinct item to each side.
    ends = np.cumsum([copies[item] for item in rest])
    first = int(np.searchsorted(ends, ITEM_SHARES[0] * ends[-1], side="right"))
    first = min(max(first, 0 if often else 1), len(rest) - 2)
    second = int(np.searchsorted(ends, ITEM_SHARES[1] * ends[-1], side="right"))
    second = min(max(second, first + 1), len(rest) - 1)
    for place, item in enumerate(rest):
        side[item] = "train" if place < first else "val" if place < second else "test"
    parts: dict[SplitName, list[str]] = {name: [] for name in SPLITS}
    for item in items:
        parts[side[item]].append(item)
    return parts


def split_items_as_lecture(items: list[str]) -> dict[SplitName, list[str]]:
    """The makemore lectures' split: `random.seed(42)`, shuffle, 80/10/10; duplicates may cross."""
    shuffled = list(items)
    random.Random(42).shuffle(shuffled)  # noqa: S311 (the lecture's own generator)
    first, second = (int(share * len(items)) for share in ITEM_SHARES)
    if not 0 < first < second < len(items):
        raise MoreishError(f"{len(items)} line(s) are too few for the lecture's 80/10/10 split")
    return {"train": shuffled[:first], "val": shuffled[first:second], "test": shuffled[second:]}


def text_bounds(length: int, rule: Rule) -> dict[SplitName, slice]:
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


def split_corpus(corpus: Corpus, rule: Rule, seed: int) -> dict[SplitName, list[str]]:
    """Items of each side. Running text is cut by `text_bounds` once it is tokens."""
    assert corpus.kind == "lines"
    if rule == "lecture":
        return split_items_as_lecture(corpus.documents)
    return split_items(corpus.documents, seed)
