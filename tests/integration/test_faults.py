"""Nothing is lost, whichever operation of a save fails, and however."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT, Proved
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.training.checkpoint import Checkpoints
from moreish.training.events import ignore
from moreish.training.trainer import Trainer
from moreish.utils.files import PARTIAL_SUFFIX, write_atomic
from moreish.workflows import fit
from support.faults import Dead, Disk, attempts, watched

Fresh = Callable[[], Path]


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a training is after each of four steps."""
    found: list[dict[str, Any]] = []

    class Watching(Checkpoints):
        def save(self, trainer: Trainer) -> None:
            found.append({"trainer": trainer, "weights": _copied(trainer.model.state_dict())})
            found[-1]["state"] = trainer.state.__class__(**vars(trainer.state))

    folder = tmp_path_factory.mktemp("trained")
    (folder / "names.txt").write_text("\n".join(f"anna{n}" for n in range(30)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "Checkpoints", Watching)
        settings = {"train": {"checkpoint_every": 1, "steps": 4}}
        api.train(
            folder / "names.txt", model="bigram", settings=settings, out=folder / "run",
            report=ignore,
        )  # fmt: skip
    return found


def _copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def at_step(trainers: list[dict[str, Any]], step: int) -> Trainer:
    entry = trainers[step - 1]
    trainer: Trainer = entry["trainer"]
    trainer.model.load_state_dict(entry["weights"])
    trainer.state = trainer.state.__class__(**vars(entry["state"]))
    assert trainer.state.step == step
    return trainer


def restored(folder: Path, trainers: list[dict[str, Any]]) -> int:
    """The step of what is restored from `folder`, whose weights are those of that step."""
    trainer = trainers[0]["trainer"]
    Checkpoints(folder, "run", {}).restore(trainer)
    step = trainer.state.step
    saved = trainers[step - 1]["weights"]
    assert all(torch.equal(saved[name], t) for name, t in trainer.model.state_dict().items())
    return step


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[Path], Fresh]:
    """Copies of a folder, one after another."""
    numbers = itertools.count()

    def of(base: Path) -> Fresh:
        def copy() -> Path:
            return Path(shutil.copytree(base, tmp_path / f"copy-{next(numbers)}"))

        return copy

    return of


@pytest.mark.parametrize("saved", [2, 3])
def test_a_checkpoint_is_never_lost(
    trainers: list[dict[str, Any]],
    tmp_path: Path,
    fresh: Callable[[Path], Fresh],
    monkeypatch: pytest.MonkeyPatch,
    saved: int,
    proved: Proved,
) -> None:
    """Checkpoints of some steps are there; that of the next, or the newest again, is saved."""
    base, spare = tmp_path / "base", tmp_path / "spare"
    spare.mkdir()
    for step in range(1, saved + 1):
        Checkpoints(base, "run", {}).save(at_step(trainers, step))

    def save(folder: Path) -> None:
        Checkpoints(folder, "run", {}).save(at_step(trainers, saved + 1))

    def check(folder: Path, done: bool) -> None:
        step = restored(folder, trainers)
        assert step == saved + 1 if done else step in (saved, saved + 1)
        # The next save tidies up whatever is left.
        Checkpoints(folder, "run", {}).save(at_step(trainers, saved + 1))
        assert restored(folder, trainers) == saved + 1
        assert not list(folder.glob(f"*{PARTIAL_SUFFIX}"))
        assert len(list(folder.glob("step-*"))) == 2

    counts = attempts(monkeypatch, fresh(base), save, check, spare)
    assert min(counts.values()) >= 3
    proved(2, "saving a checkpoint", counts)


def test_a_damaged_checkpoint_is_replaced(
    trainers: list[dict[str, Any]],
    tmp_path: Path,
    fresh: Callable[[Path], Fresh],
    monkeypatch: pytest.MonkeyPatch,
    proved: Proved,
) -> None:
    base, spare = tmp_path / "base", tmp_path / "spare"
    spare.mkdir()
    for step in (1, 2):
        Checkpoints(base, "run", {}).save(at_step(trainers, step))
    (base / "step-000002" / "weights.safetensors").write_bytes(b"torn")

    def save(folder: Path) -> None:
        Checkpoints(folder, "run", {}).save(at_step(trainers, 2))

    def check(folder: Path, done: bool) -> None:
        step = restored(folder, trainers)
        assert step == 2 if done else step in (1, 2)

    counts = attempts(monkeypatch, fresh(base), save, check, spare)
    proved(2, "replacing a damaged checkpoint", counts)


def test_a_file_is_the_old_one_or_the_new_one(
    tmp_path: Path,
    fresh: Callable[[Path], Fresh],
    monkeypatch: pytest.MonkeyPatch,
    proved: Proved,
) -> None:
    base, spare = tmp_path / "base", tmp_path / "spare"
    spare.mkdir()
    base.mkdir()
    old, new = b"old" * 1000, b"new" * 2000
    (base / "weights").write_bytes(old)

    def check(folder: Path, done: bool) -> None:
        found = (folder / "weights").read_bytes()
        assert found == new if done else found in (old, new)

    counts = attempts(
        monkeypatch, fresh(base), lambda folder: write_atomic(folder / "weights", new), check, spare
    )
    proved(2, "replacing a file", counts)


def test_a_run_that_is_replaced_is_there_until_the_new_one_is(
    small_run: Run,
    tmp_path: Path,
    fresh: Callable[[Path], Fresh],
    monkeypatch: pytest.MonkeyPatch,
    proved: Proved,
) -> None:
    """And if the process dies between the two, it is said where the old one is."""
    base, spare = tmp_path / "base", tmp_path / "spare"
    spare.mkdir()
    base.mkdir()
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

    counts = attempts(monkeypatch, fresh(base), create, check, spare)
    proved(2, "replacing a run", counts)


def test_after_its_death_a_process_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's own tool: cleaning up must not be possible for the dead."""
    disk = Disk(tmp_path, 2, "dead before")
    with watched(monkeypatch, disk), pytest.raises(Dead):
        write_atomic(tmp_path / "x", b"content")
    assert [path.suffix for path in tmp_path.iterdir()] == [PARTIAL_SUFFIX]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_killed_at_random_times(
    tmp_path_factory: pytest.TempPathFactory,
    proved: Proved,
) -> None:
    """200 times, in a folder in memory where there is one: there a training hardly waits, so that a
    kill may come anywhere."""
    memory = Path("/dev/shm")  # noqa: S108
    made = memory / f"moreish-{tmp_path_factory.getbasetemp().name}" if memory.is_dir() else None
    folder = made or tmp_path_factory.mktemp("kills")
    folder.mkdir(exist_ok=True)
    try:
        kills(folder, 200, proved)
    finally:
        shutil.rmtree(folder)


@pytest.mark.soak
def test_killed_a_thousand_times_on_a_real_disk(tmp_path: Path, proved: Proved) -> None:
    kills(tmp_path, 1000, proved)


def kills(folder: Path, number: int, proved: Proved) -> None:
    command = [sys.executable, ROOT / "tests" / "support" / "crashes.py", folder, str(number), "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == number
    assert found["lost"] == 0
    assert found["finished"] >= 3
    proved(2, f"training, {number} times kill -9", {"SIGKILL": found["kills"]})
