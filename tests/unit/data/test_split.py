from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Proved
from moreish.data import split
from moreish.errors import MoreishError


def split_items(items: list[str], seed: int) -> dict[str, list[str]]:
    number: dict[str, int] = {}
    numbers = [number.setdefault(item, len(number)) for item in items]
    places = split.split_items(np.array(numbers), seed)
    return {name: [items[i] for i in part] for name, part in places.items()}


ITEMS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=ITEMS, seed=st.integers(0, 5))
def test_copies_of_an_item_stay_in_one_split(proved: Proved, items: list[str], seed: int) -> None:
    if len(set(items)) < 3:
        with pytest.raises(MoreishError, match="cannot be split"):
            split_items(items, seed)
        return
    parts = split_items(items, seed)
    assert sorted(item for part in parts.values() for item in part) == sorted(items)
    assert all(parts.values())
    splits = [set(part) for part in parts.values()]
    assert len(set.union(*splits)) == sum(map(len, splits))
    assert split_items(items, seed) == parts
    proved(5, "no item is in two splits", {"lists": 1})


def split_item_by_item(items: list[str], seed: int) -> dict[str, list[str]]:
    """The same rule, item by item."""
    distinct = list(dict.fromkeys(items))
    frequent = [item for item in distinct if items.count(item) > max(1, len(items) / 10)]
    frequent = sorted(frequent, key=lambda item: -items.count(item))[: len(distinct) - 2]
    shuffled = [distinct[n] for n in np.random.default_rng(seed).permutation(len(distinct))]
    others = [item for item in shuffled if item not in frequent]
    total = sum(map(items.count, others))
    split_of = dict.fromkeys(frequent, "train")
    total_so_far = 0
    for place, item in enumerate(others):
        total_so_far += items.count(item)
        split_of[item] = (
            "train"
            if total_so_far <= 0.8 * total
            else "val"
            if total_so_far <= 0.9 * total
            else "test"
        )
        left = len(others) - place  # including this item
        held_out = [s for s in map(split_of.get, others[:place]) if s != "train"]
        # No split may be empty: the last two items are for validation and test.
        if place == 0 and not frequent:
            split_of[item] = "train"
        elif left <= 2 and "val" not in held_out:
            split_of[item] = "val"
        elif left == 1:
            split_of[item] = "test"
        elif not held_out and split_of[item] == "test":
            split_of[item] = "val"
    return {name: [i for i in items if split_of[i] == name] for name in ("train", "val", "test")}


COPIES = st.lists(st.sampled_from([1, 1, 1, 2, 3, 4, 6, 8, 10, 15, 40]), min_size=3, max_size=24)


@settings(max_examples=400)
@given(copies=COPIES, seed=st.integers(0, 9))
def test_split_equals_the_rule_item_by_item(copies: list[int], seed: int) -> None:
    items = [str(item) for item, count in enumerate(copies) for _ in range(count)]
    np.random.default_rng(seed).shuffle(items)
    assert split_items(items, seed) == split_item_by_item(items, seed)


def test_item_above_a_tenth_goes_to_training() -> None:
    few = [[*"aab", *map(str, range(7))], [*"aaab", *map(str, range(26))]]
    for items in few:  # a tenth of 10 items is 1, of 30 items 3
        frequent = items.count("a") > len(items) / 10
        splits = {split_items(items, seed)["train"].count("a") for seed in range(40)}
        assert (splits == {items.count("a")}) == frequent


def test_split_is_80_10_10_and_depends_on_the_seed() -> None:
    items = [str(i) for i in range(1000)]
    parts = split_items(items, 42)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 800,
        "val": 100,
        "test": 100,
    }
    assert split_items(items, 43) != parts


def test_frequent_item_leaves_no_split_empty() -> None:
    parts = split_items(["a"] * 1000 + ["b", "c"], 0)
    assert all(parts.values())


def test_lecture_split(lecture_names: list[str]) -> None:
    parts = split.split_items_as_lecture(len(lecture_names))
    assert [len(part) for part in parts.values()] == [25_626, 3_203, 3_204]
    assert [lecture_names[i] for i in parts["train"][:3]] == ["yuheng", "diondre", "xavien"]
    for count in range(6):
        with pytest.raises(MoreishError, match="6 or more lines"):
            split.split_items_as_lecture(count)
    assert all(len(part) for part in split.split_items_as_lecture(6).values())


@given(length=st.integers(0, 10_000))
def test_text_is_cut_by_position_without_gaps(length: int) -> None:
    for rule, minimum in (("seeded", 40), ("lecture", 20)):
        if length < minimum:
            continue
        bounds = list(split.text_bounds(length, rule).values())
        assert bounds[0].start == 0
        assert bounds[-1].stop == length
        assert all(a.stop == b.start for a, b in pairwise(bounds))
        assert all(part.stop - part.start >= 2 for part in bounds)


def test_text_is_cut_90_5_5_or_90_10() -> None:
    assert split.text_bounds(1000, "seeded") == {
        "train": slice(0, 900),
        "val": slice(900, 950),
        "test": slice(950, 1000),
    }
    assert split.text_bounds(1000, "lecture") == {"train": slice(0, 900), "val": slice(900, 1000)}


@pytest.mark.parametrize(("rule", "minimum"), [("seeded", 40), ("lecture", 20)])
def test_too_short_text_is_rejected(rule: split.SplitRule, minimum: int) -> None:
    for length in range(minimum - 1):  # just below it, rounding may leave enough
        try:
            bounds = split.text_bounds(length, rule)
        except MoreishError as error:
            assert f"give {minimum} or more" in str(error)
        else:
            assert all(part.stop - part.start >= 2 for part in bounds.values())
    with pytest.raises(
        MoreishError, match=f"of 5 characters is too short to split: give {minimum} or more"
    ):
        split.text_bounds(5, rule)
    split.text_bounds(minimum, rule)


def test_very_frequent_items_go_to_training() -> None:
    """97 of 100 lines are equal, which would fill the test split."""
    parts = split_items(["a"] * 97 + ["b", "c", "d"], 0)
    assert parts["train"].count("a") == 97
    assert len(parts["val"]) + len(parts["test"]) <= 3
    crowd = ["a"] * 50 + ["b"] * 30 + [str(i) for i in range(100)]
    parts = split_items(crowd, 0)
    assert parts["train"].count("a") == 50
    assert [len(part) for part in parts.values()] == [160, 10, 10]
