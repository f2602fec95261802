"""Trackers show what metrics.jsonl contains, and never end a training run."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from conftest import ROOT, Moreish
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.compare import settings_key
from moreish.runs.run import Run
from moreish.training import trackers as tracking
from moreish.training.events import Event, Note, Step, ignore
from moreish.training.trackers import Tracker, TrackerGroup, parse_trackers
from support.interrupts import Killed, kill_at
from support.tracked_training import train


def logged(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values that trackers must show, by series."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in run.read_metrics():
        numbers = {
            f"val/{k}": v for k, v in entry.get("val", {}).items() if k in tracking.SCORE_METRICS
        }
        numbers |= {f"train/{name}": entry[name] for name in tracking.STEP_METRICS if name in entry}
        for name, value in numbers.items():
            found.setdefault(name, []).append((entry["step"], value))
    return found


def in_tensorboard(run: Run) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def in_wandb(run: Run) -> list[dict[str, list[tuple[int, float]]]]:
    """Of each offline run, in the order of their beginning. Its file has blocks of 32 kB, in which
    records lie in pieces with a header each (LevelDB's log format), after 7 bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    runs = []
    files = (run.path / "wandb").glob("offline-run-*/*.wandb")
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        found: dict[str, list[tuple[int, float]]] = {}
        for raw in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(raw)
            if record.WhichOneof("record_type") == "history":
                items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
                for name, value in items.items():
                    found.setdefault(name, []).append((record.history.step.num, json.loads(value)))
        runs.append(found)
    return runs


def records(data: bytes) -> Iterator[bytes]:
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def assert_equal(shown: Mapping[str, Any], expected: Mapping[str, Any], rel: float = 1e-6) -> None:
    for name, series in expected.items():
        steps, values = zip(*shown[name], strict=True)
        wanted_steps, wanted = zip(*series, strict=True)
        assert steps == wanted_steps, name
        assert values == pytest.approx(wanted, rel=rel), name


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path, "run", "tensorboard")
    shown, expected = in_tensorboard(run), logged(run)
    assert expected.keys() >= {"train/loss", "train/lr", "train/gradient_norm", "val/loss"}
    assert_equal(shown, expected)
    assert all(value > 0 for _, value in shown["train/tokens_per_second"])
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    samples = [(e["step"], e["samples"][0]) for e in run.read_metrics() if "samples" in e]
    texts = events.Tensors("samples/text_summary")
    assert [(t.step, t.tensor_proto.string_val[0].decode()) for t in texts] == [
        (step, f"```\n{text}\n```") for step, text in samples
    ]
    (settings,) = events.Tensors("settings/text_summary")
    assert b"batch_tokens = 64" in settings.tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_trackers_do_not_change_the_weights(tmp_path: Path) -> None:
    tracked, alone = train(tmp_path, "a", "tensorboard"), train(tmp_path, "b", None)
    weights = [(run.path / "model.safetensors").read_bytes() for run in (tracked, alone)]
    assert weights[0] == weights[1]
    assert not (alone.path / "tensorboard").exists()
    assert settings_key(tracked) == settings_key(alone)  # so they differ in nothing


@pytest.mark.usefixtures("quick_processes")
def test_tensorboard_after_a_kill_shows_every_step_once(tmp_path: Path) -> None:
    """Killed at step 15, with a checkpoint at step 12, up to which its events are on the disk."""
    command = [sys.executable, "-m", "support.tracked_training", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = Run.open(tmp_path / "run")
    assert in_tensorboard(run)["train/loss"][-1][0] >= 12
    assert logged(run)["train/loss"][-1][0] == 14
    run = api.resume(run.path, report=ignore)
    expected = logged(run)
    assert [step for step, _ in expected["train/loss"]] == list(range(1, 17))
    assert_equal(in_tensorboard(run), expected)


def test_wandb_shows_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of its own for each part of a training run, and the last has everything."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with suppress(Killed):
        train(tmp_path, "run", "wandb,tensorboard", kill_at(15))
    run = api.resume(tmp_path / "run", report=ignore)
    (first, last), expected = in_wandb(run), logged(run)
    assert [step for step, _ in first["train/loss"]] == list(range(1, 15))
    assert_equal(last, expected)
    assert_equal(in_tensorboard(run), expected)
    samples = [(e["step"], "\n".join(e["samples"])) for e in run.read_metrics() if "samples" in e]
    assert last["samples"] == samples
    assert len(samples) >= 3


def test_steps_before_a_rollback_are_dropped(tmp_path: Path) -> None:
    run = train(tmp_path, "run", "tensorboard")
    shown = TrackerGroup(run, 16, ignore)
    for step, loss in ((17, 1.0), (18, 2.0), (19, 3.0)):
        shown.log(entry(step, loss))
    shown.roll_back(17)
    for step, loss in ((18, 4.0), (19, 5.0)):
        shown.log(entry(step, loss))
    shown.close()
    losses = in_tensorboard(run)["train/loss"]
    assert [step for step, _ in losses] == list(range(1, 20))
    assert [loss for _, loss in losses[-3:]] == [1.0, 4.0, 5.0]


def entry(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "lr": 0.1, "gradient_norm": 1.0, "tokens": 9 * step,
            "seconds": float(step)}  # fmt: skip


class Recording(Tracker):
    """Records what it logs."""

    needs_replay = True

    def open(self, step: int) -> None:
        self.logged: list[tuple[int, str]] = []

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.logged += [(step, name) for name in values if "loss" in name]

    def log_texts(self, step: int, texts: Iterable[str]) -> None:
        self.logged.append((step, "samples"))

    def close(self) -> None: ...


def test_trackers_that_need_a_replay_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {**tracking.REGISTRY, "wandb": Recording}
    monkeypatch.setattr(tracking, "REGISTRY", MappingProxyType(registry))
    run = train(tmp_path, "run", "wandb")
    shown = TrackerGroup(run, 6, ignore)
    tracker = shown.trackers["wandb"]
    assert isinstance(tracker, Recording)
    until = [(step, "train/loss") for step in range(1, 6)]
    until += [(5, "val/loss"), (5, "samples"), (6, "train/loss")]
    assert tracker.logged == until
    shown.log(entry(7, 1.0))
    assert tracker.logged == [*until, (7, "train/loss")]
    shown.roll_back(5)
    assert tracker.logged == until[:-1]
    assert TrackerGroup(run, 0, ignore).trackers["wandb"].logged == []


class Broken(Recording):
    """Loses its network after a while."""

    calls = 0

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls == 3:
            raise ConnectionError("no route\nto host.")


class Closed(Recording):
    def open(self, step: int) -> None:
        raise PermissionError("log in first")


def test_a_tracker_that_fails_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {**tracking.REGISTRY, "wandb": Broken}
    monkeypatch.setattr(tracking, "REGISTRY", MappingProxyType(registry))
    events: list[Event] = []
    run = train(tmp_path, "run", "wandb,tensorboard", events.append)
    assert run.record.status == "finished"
    notes = [event.text for event in events if isinstance(event, Note)]
    assert [note for note in notes if "wandb" in note] == [
        "wandb failed (no route to host): it gets no more metrics; metrics.jsonl has all of them"
    ]
    assert_equal(in_tensorboard(run), logged(run))


def test_a_tracker_that_cannot_start_is_an_error_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {**tracking.REGISTRY, "wandb": Closed}
    monkeypatch.setattr(tracking, "REGISTRY", MappingProxyType(registry))
    steps: list[Event] = []
    with pytest.raises(MoreishError, match="wandb cannot start: log in first; WANDB_MODE"):
        train(tmp_path, "run", "tensorboard,wandb", steps.append)
    assert not any(isinstance(event, Step) for event in steps)
    assert not (tmp_path / "run").exists()


def test_unknown_or_missing_trackers_are_errors(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ["train", "names", "--steps", 1, "--out", "r", "--set"]
    refused = moreish(*plan, "train.track=tensorbord")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "there is no tracker 'tensorbord': did you mean 'tensorboard'" in refused.err

    monkeypatch.setitem(sys.modules, "wandb", None)
    refused = moreish(*plan, "train.track=wandb")
    assert "needs a library (wandb): pip install 'moreish[wandb]'" in refused.err
    assert not Path("r").exists()
    assert parse_trackers(None) == []
