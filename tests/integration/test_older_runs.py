"""Runs that older versions made, kept from each: they open, give their losses, and go on."""

import json
import shutil
from pathlib import Path

import pytest

from moreish import api
from moreish.training.events import ignore

RUNS = sorted((Path(__file__).parent.parent / "fixtures").glob("run-*"))


def test_fixtures_of_older_versions_exist() -> None:
    assert [path.name for path in RUNS] == ["run-0.1.0"]


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def test_older_runs_open_and_keep_their_losses(older: Path) -> None:
    run = api.load(older)
    assert len(run.sample(3)) == 3
    for name, score in run.evaluate().items():
        assert score.loss == pytest.approx(run.scores[name].loss, abs=1e-5)


def test_older_runs_can_be_resumed(older: Path) -> None:
    """On another machine: so not to the same bits, but nearly to the same loss."""
    before = api.load(older).scores["val"].loss
    record = json.loads((older / "run.json").read_text("utf-8"))
    (older / "run.json").write_text(json.dumps({**record, "status": "training", "splits": {}}))
    shutil.rmtree(older / "checkpoints" / "step-000060")
    resumed = api.resume(older, inexact=True, report=ignore)
    assert resumed.scores["val"].loss == pytest.approx(before, abs=1e-3)
