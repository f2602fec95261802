"""A run that is killed at any file operation can be resumed and ends as if it had not been."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Proved
from moreish.settings import Tree
from support.families import COUNTS, FAMILIES

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork"),
    pytest.mark.usefixtures("quick_processes"),
]

TRAIN: Tree = {"steps": 3, "checkpoint_every": 1, "eval_every": 2, "batch_size": 8}


def case(name: str, *, every: int = 1, lr: str | float = 0.01, **options: Any) -> Tree:
    """A case of `support/kill_points.py`; of `every` operations one is killed."""
    model = {**FAMILIES, **COUNTS}[name]
    settings = {"model": model, "train": {} if name in COUNTS else {**TRAIN, "lr": lr}}
    return {"name": name, "settings": settings, "every": every, **options}


def kill_everywhere(folder: Path, cases: list[Tree], proved: Proved) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "kill_points.py", folder],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    kills = json.loads(done.stdout)
    assert len(kills) >= 3
    for phase, number in kills.items():
        proved(1, f"killed at every file operation: {phase}", {"kills": number})


def test_some_kills(tmp_path: Path, proved: Proved) -> None:
    cases = [case("hybrid", every=37)]
    kill_everywhere(tmp_path, cases, proved)


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("name", [*FAMILIES, *COUNTS])
def test_every_kill(tmp_path: Path, proved: Proved, name: str) -> None:
    kill_everywhere(tmp_path, [case(name)], proved)


VARIANTS = {
    "replacing a run": case("bigram", overwrite=True),
    "fine-tuning": case("gpt", init_from=True),
    "prepared data": case("gpt", prepared=True),
    "range test": case("bigram", lr="auto", every=5),  # each takes long
}


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kill_of_other_starts(tmp_path: Path, proved: Proved, variant: str) -> None:
    kill_everywhere(tmp_path, [VARIANTS[variant]], proved)
