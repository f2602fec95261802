"""Checkpoints: everything that resuming needs, written beside its place and renamed when whole."""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors

from moreish.distributed import gather_full, load_state
from moreish.errors import MoreishError, command
from moreish.evaluate import Score
from moreish.runs import SavedScore
from moreish.training.optim import optimizer_tensors, restore_optimizer
from moreish.training.state import TrainState
from moreish.training.trainer import Trainer
from moreish.utils.files import (
    PARTIAL_SUFFIX,
    check_disk_space,
    encode_json,
    fsync_folder,
    read_json,
    remove_partial_files,
    write_durable,
)
from moreish.utils.safetensors_io import iter_safetensors_bytes

Parts = Iterable[tuple[str, Iterable[bytes]]]
"""Names of files, and what is in them."""

CHECKPOINTS_KEPT = 2
"""Newest checkpoints that stay; the best weights are apart from them."""

MANIFEST = "manifest.json"

PROCESSES_KEY = "processes"
"""Of what decides the bits of a training: how many share it, where it is not one."""

PARTS = ("weights.safetensors", "optimizer.safetensors", "state.json")

LOGS = ("metrics.jsonl", "samples.txt")
"""Of the run: what was logged until a checkpoint goes with it."""

TRAIN_STATE = TypeAdapter(TrainState)
RENAMED_STATE = {
    "before": "overhead_seconds",
    "last_taken": "last_eval_seconds",
    "retreats": "rollbacks",
    "scale": "loss_scale",
    "since_scaled": "steps_since_rescale",
    "skipped": "skipped_in_a_row",
    "slower": "lr_scale",
}
"""Fields of `TrainState` under the names that checkpoints of version 0.1.0 give them."""

LOGGED = TypeAdapter(dict[Literal["metrics.jsonl", "samples.txt"], tuple[NonNegativeInt, str]])


class Checkpoints:
    """The checkpoints of one run, in its folder `checkpoints`."""

    def __init__(self, folder: Path, run: str, here: Mapping[str, str]) -> None:
        """
        Args:
            run: the sha256 of what the run is, so that those of another are told from its own.
            here: what decides the bits of a training, see `moreish.runs.record.environment`.
        """
        self.folder, self.run, self.here = folder, run, dict(here)

    def __bool__(self) -> bool:
        return bool(self._by_age())

    @property
    def _logs(self) -> dict[str, Path]:
        return {name: self.folder.parent / name for name in LOGS}

    def save(self, trainer: Trainer) -> None:
        """Write `step-N`; older ones than the newest few are removed afterwards. Every process
        gives its part, and the first one writes."""
        parts = _parts(trainer)
        if trainer.group.is_main:
            self._save(trainer, parts)

    def _save(self, trainer: Trainer, parts: Parts) -> None:
        place = self.folder / f"step-{trainer.state.step:06d}"
        remove_partial_files(self.folder)  # of a process that was killed
        if _manifest(place) is None:  # a training that is cut and resumed makes the same again
            self._write(place, trainer, parts)
        for old in self._by_age()[CHECKPOINTS_KEPT:]:
            _remove(old)

    def _write(self, place: Path, trainer: Trainer, parts: Parts) -> None:
        check_disk_space(self.folder, size(trainer), "a checkpoint")
        beside = place.with_name(f"{place.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        digests = {}
        try:
            beside.mkdir(parents=True)
            for name, pieces in parts:
                digest = hashlib.sha256()
                write_durable(beside / name, _told(pieces, digest.update))
                digests[name] = digest.hexdigest()
            logged = {name: _logged(path) for name, path in self._logs.items() if path.exists()}
            manifest = {"sha256": digests, "run": self.run, "here": self.here, "logged": logged}
            write_durable(beside / MANIFEST, [encode_json(manifest)])
            fsync_folder(beside)
            if place.exists():  # a damaged one
                _remove(place)
            beside.rename(place)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        fsync_folder(self.folder)

    def restore(self, trainer: Trainer, *, inexact: bool = False) -> list[Path]:
        """Put the newest whole checkpoint into `trainer`; returns the damaged ones before it.

        Raises:
            MoreishError: there is none, it is another run's, or what is trained on from it here
                would not have the same bits (unless `inexact`).
        """
        damaged = []
        for place in self._by_age():
            manifest = _manifest(place)
            if manifest is None:
                damaged.append(place)
                continue
            self._check(place, manifest, inexact)
            try:
                _restore(place, trainer)
            except (RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
                reason = " ".join(str(error).split())[:200]
                raise MoreishError(f"{place} is not a checkpoint of this run ({reason})") from None
            return damaged
        run = self.folder.parent
        raise MoreishError(
            f"{self.folder} holds no whole checkpoint: there is nothing to resume. If the run has "
            f"weights, {command('sample', run)} takes the best; or train again with --overwrite"
        )

    def _check(self, place: Path, manifest: Mapping[str, Any], inexact: bool) -> None:
        if manifest.get("run", self.run) != self.run:
            raise MoreishError(
                f"{place} is a checkpoint of another run: its settings, data or tokenizer are not "
                "those of this one"
            )
        if inexact:
            return
        for name, (length, digest) in manifest["logged"].items():
            path = self._logs[name]
            there_now = path.stat().st_size if path.exists() else -1
            if there_now < length or _logged(path, length) != (length, digest):
                raise MoreishError(
                    f"{path} is not what it was when {place.name} was saved: its log would not be "
                    "whole. Put it back, or go on all the same with --inexact"
                )
        there = manifest.get("here", self.here)
        kinds = sorted(set(there) | set(self.here))
        changed = {kind for kind in kinds if there.get(kind) != self.here.get(kind)}
        if (
            PROCESSES_KEY in changed
        ):  # which whoever starts them wants; launchers set threads as well
            changed -= {PROCESSES_KEY, "threads"}
        if changed:
            how = "; ".join(
                f"{kind} was {there.get(kind)} and is {self.here.get(kind)}"
                for kind in sorted(changed)
            )
            raise MoreishError(
                f"going on would not give the same bits: {how}. Restore that, or go on all the "
                "same with --inexact"
            )

    @property
    def processes(self) -> int | None:
        """How many have trained together until the newest checkpoint, as it says; whether that is
        whole is asked when it is read."""
        try:
            return int(read_json(self._by_age()[0] / MANIFEST)["here"].get(PROCESSES_KEY, 1))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _by_age(self) -> list[Path]:
        """Newest first."""
        steps = {path: path.name.removeprefix("step-") for path in self.folder.glob("step-*")}
        whole = [path for path, step in steps.items() if step.isdecimal()]
        return sorted(whole, key=lambda path: int(steps[path]), reverse=True)


def _remove(place: Path) -> None:
    """In one go: what is killed on the way leaves a part, and no half checkpoint."""
    part = place.with_name(f"{place.name}.{os.getpid()}.old{PARTIAL_SUFFIX}")
    place.rename(part)
    shutil.rmtree(part)


def size(trainer: Trainer) -> int:
    """Bytes of a checkpoint."""
    weights, moments = trainer.model.state_dict(), optimizer_tensors(trainer.optimizer)
    return sum(tensor.nbytes for part in (weights, moments) for tensor in part.values())


def _parts(trainer: Trainer) -> Parts:
    """The files of a checkpoint, each in pieces."""
    best = trainer.state.best
    state = {**asdict(trainer.state), "best": best and best.as_json()}
    contents = (
        iter_safetensors_bytes(gather_full(trainer.model.state_dict())),
        iter_safetensors_bytes(gather_full(optimizer_tensors(trainer.optimizer))),
        [encode_json(state)],
    )
    return zip(PARTS, contents, strict=True)


def _told(pieces: Iterable[bytes], hear: Callable[[bytes], None]) -> Iterator[bytes]:
    """The same pieces, of each of which somebody else hears."""
    for piece in pieces:
        hear(piece)
        yield piece


def _restore(place: Path, trainer: Trainer) -> None:
    weights, optimizer = ((place / name).read_bytes() for name in PARTS[:2])
    stored = read_json(place / PARTS[2])
    entries = {RENAMED_STATE.get(name, name): value for name, value in stored.items()}
    if (best := entries["best"]) is not None:
        best = Score.from_json(SavedScore.model_validate(best).model_dump())
    state = TRAIN_STATE.validate_python({**entries, "best": None})
    numbers = [value for value in vars(state).values() if isinstance(value, float)]
    if state.step < 0 or state.plan.eval_every < 1 or not all(map(math.isfinite, numbers)):
        raise ValueError("its numbers cannot be")
    state.best = best
    load_state(trainer.model, from_safetensors(weights))
    restore_optimizer(trainer.optimizer, from_safetensors(optimizer))
    trainer.state = state


def _logged(path: Path, most: int = -1) -> tuple[int, str]:
    """The length of the first `most` bytes of a log, or of all of it, and their sha256."""
    with path.open("rb") as file:
        content = file.read(most)
    return len(content), hashlib.sha256(content).hexdigest()


def _manifest(place: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint, if all its files are there as it says."""
    try:
        manifest = read_json(place / MANIFEST)
        digests = manifest["sha256"]
        if not isinstance(manifest.get("here", {}), dict) or set(digests) != set(PARTS):
            return None
        manifest["logged"] = LOGGED.validate_python(manifest.get("logged", {}))
        for name in PARTS:
            with (place / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digests[name]:
                    return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest
