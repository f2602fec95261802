from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Moreish
from moreish.data import split
from moreish.errors import MoreishError
from moreish.runs import Run


def split_items(items: list[str], seed: int) -> dict[str, list[str]]:
    places = split.split_items(len(items), seed)
    return {name: [items[i] for i in part] for name, part in places.items()}


@given(count=st.integers(0, 60), seed=st.integers(0, 5))
def test_every_item_is_in_one_split(count: int, seed: int) -> None:
    if count < 3:
        with pytest.raises(MoreishError, match="cannot be split"):
            split.split_items(count, seed)
        return
    parts = split.split_items(count, seed)
    assert sorted(np.concatenate([*parts.values()]).tolist()) == list(range(count))
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts.values())
    again = split.split_items(count, seed)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)


def test_copies_of_an_item_are_split_like_draws_from_the_data() -> None:
    """Each split has an item in its share of the data."""
    items = ["common"] * 500 + ["rare"] * 20 + [str(i) for i in range(480)]
    counts = np.array(
        [[part.count("common") for part in split_items(items, seed).values()] for seed in range(50)]
    )
    assert counts.sum(axis=1).tolist() == [500] * 50
    # The mean of 50 hypergeometric counts, and about four of its standard errors.
    assert np.allclose(counts.mean(axis=0), [400, 50, 50], atol=4)


def test_split_is_80_10_10_and_depends_on_the_seed() -> None:
    items = [str(i) for i in range(1000)]
    parts = split_items(items, 42)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 800,
        "val": 100,
        "test": 100,
    }
    assert split_items(items, 43) != parts


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


@pytest.mark.parametrize("kind", ["lines", "text"])
def test_splits_from_files_of_their_own(kind: str, moreish: Moreish) -> None:
    texts = {"train": "anna\notto\nbob\n" * 9, "val": "eve\nada\n", "test": "nan\nmom\nelle\n"}
    for name, text in texts.items():
        Path(f"{name}.txt").write_text(text)
    result = moreish(
        "train", "train.txt", "--validation-file", "val.txt", "--test-file", "test.txt",
        "--as", kind,
        "--model", "ngram", "--out", "r",
    )  # fmt: skip
    assert result.status == 0, result
    run = Run.open("r")
    for name, text in texts.items():
        tokens = run.split(name)
        found = run.tokenizer.decode(tokens.ids_N[:])
        assert found == text.replace("\n", "" if kind == "lines" else "\n")
        assert tokens.ids_N[0] == tokens.ids_N[-1] == run.tokenizer.boundary_id
    result = moreish("train", "train.txt", "--test-file", "test.txt")
    assert result.status == 2 and "--test-file needs --validation-file" in result.err
