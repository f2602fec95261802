"""`moreish train --resume RUN --minutes N`: a finished run goes on."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import moreish as moreish_package
from conftest import Moreish
from moreish.errors import MoreishError
from moreish.workflows import fit as fit_module

TINY = [
    "--model",
    "gpt",
    "--set",
    "model.layers=1",
    "--set",
    "model.width=16",
    "--set",
    "model.heads=1",
]
NAMES = "anna\notto\nhannah\nbob\nada\neve\nelle\nnan\nmom\ndad\n" * 3


@pytest.fixture
def finished(moreish: Moreish) -> Path:
    Path("names.txt").write_text(NAMES)
    assert moreish("train", "names.txt", "--steps", 20, *TINY, "--out", "r").status == 0
    return Path("r")


def steps_of(run: Path) -> list[int]:
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [entry["step"] for entry in entries if "loss" in entry]


def test_a_finished_run_goes_on(moreish: Moreish, finished: Path) -> None:
    before = moreish_package.load(finished)
    result = moreish("train", "--resume", finished, "--steps", 15)
    assert result.status == 0 and "steps 20 to 35" in result.out
    after = moreish_package.load(finished)
    assert after.record.status == "finished" and after.record.first_step == 20
    assert after.config.train.steps == 15
    assert steps_of(finished) == list(range(1, 36))
    assert after.record.earlier_seconds == before.record.seconds
    assert after.scores["val"].loss <= before.scores["val"].loss
    assert moreish("train", "--resume", finished, "--epochs", 1).status == 0  # and again
    steps = max(steps_of(finished))
    timed = moreish("train", "--resume", finished, "--minutes", 0.005).out
    assert re.search(rf"training   from step {steps}, about \d+ more on cpu", timed)


def test_a_longer_training_that_is_killed_is_resumed(
    moreish: Moreish, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first checkpoint, it goes on from the same weights."""
    whole = Path("whole")
    shutil.copytree(finished, whole)
    assert moreish("train", "--resume", whole, "--steps", 10).status == 0

    def killed(*_: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "plan_training", killed)
        assert moreish("train", "--resume", finished, "--steps", 10).status == 9
    assert moreish("train", "--resume", finished).status == 0
    assert (finished / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()


def test_weights_that_training_longer_does_not_improve_are_kept(
    moreish: Moreish, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (finished / "model.safetensors").read_bytes()
    score, worse = moreish_package.Run.score, iter(range(100))

    def rising(self: moreish_package.Run, *args: Any, **kwargs: Any) -> Any:
        found = score(self, *args, **kwargs)
        return found.model_copy(update={"loss": found.loss + next(worse)})

    monkeypatch.setattr(moreish_package.Run, "score", rising)
    result = moreish("train", "--resume", finished, "--steps", 5)
    assert "Training longer did not lower the validation loss" in result.out
    assert (finished / "model.safetensors").read_bytes() == before


def test_what_cannot_be_trained_longer(moreish: Moreish, finished: Path) -> None:
    result = moreish("train", "--resume", finished)
    assert result.status == 2 and "--resume r --minutes 5" in result.err
    result = moreish("train", "--resume", finished, "--steps", 5, "--minutes", 1)
    assert result.status == 2
    assert moreish_package.load(finished).record.first_step == 0
    moreish("train", "names.txt", "--model", "kneser-ney", "--out", "counts")
    result = moreish("train", "--resume", "counts", "--steps", 5)
    assert result.status == 2 and "has counted it all" in result.err
    with pytest.raises(MoreishError):
        moreish_package.resume(finished, steps=0)
