"""No data are lost, whichever operation of a save fails."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT, Proved, repetitions
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.training.checkpoint import Checkpoints
from moreish.training.events import ignore
from moreish.training.trainer import Trainer
from moreish.utils.files import PARTIAL_SUFFIX, write_atomic
from support.faults import (
    SOAK_KILLS,
    Dead,
    Disk,
    attempts,
    describe_kills,
    replace_os_functions,
)

InjectFaults = Callable[..., dict[str, int]]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Trainer]:
    """Return a function that sets a trainer to its state after one of four steps."""
    saved: list[dict[str, Any]] = []

    class Recording(Checkpoints):
        def save(self, trainer: Trainer) -> None:
            weights = {name: t.clone() for name, t in trainer.model.state_dict().items()}
            saved.append({"trainer": trainer, "weights": weights, "state": replace(trainer.state)})

    folder = tmp_path_factory.mktemp("trained")
    (folder / "names.txt").write_text("\n".join(f"anna{n}" for n in range(30)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moreish.workflows.fit.Checkpoints", Recording)
        settings = {"train": {"checkpoint_every": 1, "steps": 4}}
        api.train(
            folder / "names.txt", model="bigram", settings=settings, out=folder / "run",
            report=ignore,
        )  # fmt: skip

    def at_step(step: int) -> Trainer:
        entry = saved[step - 1]
        trainer: Trainer = entry["trainer"]
        trainer.model.load_state_dict(entry["weights"])
        trainer.state = replace(entry["state"])
        assert trainer.state.step == step
        return trainer

    return at_step


def save(folder: Path, trainer: Trainer) -> None:
    Checkpoints(folder, "run", {}).save(trainer)


def restored_step(folder: Path, steps: Callable[[int], Trainer]) -> int:
    """Restore from `folder`, check the weights, and return their step."""
    trainer = steps(1)
    Checkpoints(folder, "run", {}).restore(trainer)
    step = trainer.state.step
    found = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    expected = steps(step).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    return step


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder whose copies are damaged."""
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.fixture
def inject_faults(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proved: Proved
) -> InjectFaults:
    """Make each operation of `action` fail on a copy of `base`, then `check` the copy."""
    numbers = itertools.count()
    (tmp_path / "spare").mkdir()

    def copy() -> Path:
        return Path(shutil.copytree(base, tmp_path / f"copy-{next(numbers)}"))

    def inject(
        what: str, action: Callable[[Path], None], check: Callable[[Path, bool], None]
    ) -> dict[str, int]:
        counts = attempts(monkeypatch, copy, action, check, tmp_path / "spare")
        proved(2, what, counts)
        return counts

    return inject


@pytest.mark.parametrize("saved", [2, 3])
def test_a_checkpoint_is_never_lost(
    steps: Callable[[int], Trainer], base: Path, inject_faults: InjectFaults, saved: int
) -> None:
    """The next checkpoint is saved beside those of the first steps."""
    for step in range(1, saved + 1):
        save(base, steps(step))

    def check(folder: Path, done: bool) -> None:
        step = restored_step(folder, steps)
        assert step == saved + 1 if done else step in (saved, saved + 1)
        # The next save removes everything that a failed one left.
        save(folder, steps(saved + 1))
        assert restored_step(folder, steps) == saved + 1
        assert not list(folder.glob(f"*{PARTIAL_SUFFIX}"))
        assert len(list(folder.glob("step-*"))) == 2

    counts = inject_faults(
        "saving a checkpoint", lambda folder: save(folder, steps(saved + 1)), check
    )
    assert min(counts.values()) >= 3


def test_a_damaged_checkpoint_is_replaced(
    steps: Callable[[int], Trainer], base: Path, inject_faults: InjectFaults
) -> None:
    for step in (1, 2):
        save(base, steps(step))
    (base / "step-000002" / "weights.safetensors").write_bytes(b"torn")

    def check(folder: Path, done: bool) -> None:
        step = restored_step(folder, steps)
        assert step == 2 if done else step in (1, 2)

    inject_faults("replacing a damaged checkpoint", lambda folder: save(folder, steps(2)), check)


def test_a_file_has_its_old_or_its_new_content(base: Path, inject_faults: InjectFaults) -> None:
    old, new = b"old" * 1000, b"new" * 2000
    (base / "weights").write_bytes(old)

    def check(folder: Path, done: bool) -> None:
        found = (folder / "weights").read_bytes()
        assert found == new if done else found in (old, new)

    inject_faults("replacing a file", lambda folder: write_atomic(folder / "weights", new), check)


def test_a_run_that_is_replaced_exists_until_the_new_one_does(
    small_run: Run, base: Path, inject_faults: InjectFaults
) -> None:
    """If the process dies between the two, the error names the place of the old run."""
    shutil.copytree(small_run.path, base / "run")
    splits = {name: small_run.split(name) for name in small_run.split_names}
    tokenizer, facts = small_run.tokenizer, small_run.record.data

    def create(folder: Path) -> None:
        config = small_run.config.model_copy(update={"seed": 7})
        Run.create(folder / "run", config, tokenizer, splits, facts, overwrite=True)

    def check(folder: Path, done: bool) -> None:
        place = folder / "run"
        if not place.exists():
            with pytest.raises(MoreishError, match=r"was interrupted.*\.run\.replaced"):
                Run.open(place)
            place = folder / ".run.replaced"
        run = Run.open(place)
        if done:
            assert run.config.seed == 7
        for name in run.split_names:
            run.split(name)
        if run.config.seed != 7:
            run.load_weights(run.new_model())

    inject_faults("replacing a run", create, check)


def test_a_killed_process_has_no_further_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulated process must not clean up after its death."""
    disk = Disk(tmp_path, 2, "kills before")
    with replace_os_functions(monkeypatch, disk), pytest.raises(Dead):
        write_atomic(tmp_path / "x", b"content")
    assert [path.suffix for path in tmp_path.iterdir()] == [PARTIAL_SUFFIX]


@pytest.mark.repeated
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.usefixtures("quick_processes")
def test_training_killed_at_random_times(
    tmp_path_factory: pytest.TempPathFactory, proved: Proved
) -> None:
    """The folder is in memory where possible: there training hardly waits for the disk, so that
    kills come at any operation."""
    memory = Path("/dev/shm")  # noqa: S108
    shared = memory / f"moreish-{tmp_path_factory.getbasetemp().name}" if memory.is_dir() else None
    folder = shared or tmp_path_factory.mktemp("kills")
    folder.mkdir(exist_ok=True)
    try:
        kill_runs(folder, repetitions(200), proved)
    finally:
        shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.long
def test_training_killed_many_times_on_a_real_disk(tmp_path: Path, proved: Proved) -> None:
    kill_runs(tmp_path, SOAK_KILLS, proved)


def kill_runs(folder: Path, number: int, proved: Proved) -> None:
    command = [sys.executable, ROOT / "tests" / "support" / "crashes.py", folder, str(number), "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == number
    assert found["lost"] == 0
    assert found["finished"] >= number // 60
    proved(2, describe_kills(number), {"kills": found["kills"]})
