"""What the losses of a run mean, in words."""

from pathlib import Path

import pytest

import moreish
from moreish.errors import MoreishError
from moreish.runs import describe_losses


def test_a_list_whose_items_are_all_known(tmp_path: Path) -> None:
    items = ["yes", "no", "maybe"] * 20
    run = moreish.train(items, model="kneser-ney", out=tmp_path / "r")
    assert describe_losses(run).startswith("Every validation item is in the training split too")


def test_names_of_files_are_no_items(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("anna\n" * 9)
    with pytest.raises(MoreishError, match="give files as pathlib"):
        moreish.train([str(path), str(path)])


def test_counts_are_not_advised_to_train_longer(tmp_path: Path) -> None:
    items = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"] * 3
    run = moreish.train(items, model="ngram", out=tmp_path / "r")
    assert "minutes" not in describe_losses(run)
