"""Checkpoints: everything that resuming needs, written to a partial folder and then renamed."""

import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors

from moreish.config import TrainConfig
from moreish.distributed import gather_full, load_state
from moreish.errors import MoreishError, command, one_line
from moreish.models import CountBasedModel, Model
from moreish.training.optim import optimizer_state_bytes, optimizer_tensors, restore_optimizer
from moreish.training.state import TrainState
from moreish.training.trainer import Trainer
from moreish.utils.files import (
    PARTIAL_SUFFIX,
    check_disk_space,
    encode_json,
    file_sha256,
    fsync_folder,
    partial_path,
    read_json,
    remove_partial_files,
    write_durable,
)
from moreish.utils.platforms import rename_folder
from moreish.utils.safetensors_io import iter_safetensors_bytes

MAX_CHECKPOINTS = 2
"""Number of checkpoints that are kept; the best weights are stored apart from them."""

MANIFEST = "manifest.json"

PARTS = ("weights.safetensors", "optimizer.safetensors", "state.json")

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

LOGS = ("metrics.jsonl", "samples.txt")
"""Files of the run whose content up to a checkpoint is verified when it is restored."""

LOGGED = TypeAdapter(dict[Literal["metrics.jsonl", "samples.txt"], tuple[NonNegativeInt, str]])
"""The length and the sha256 of each log."""


def checkpoint_bytes(model: Model, config: TrainConfig) -> int:
    """Return the size of a checkpoint of a model that is trained by gradients, in bytes."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return weights + optimizer_state_bytes(model, config)


def peak_disk_bytes(model: Model, config: TrainConfig) -> int:
    """Return the peak size of a run folder in bytes, without its data."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    if isinstance(model, CountBasedModel):
        return weights
    # While a file is written, the old one is still there.
    return 2 * weights + (MAX_CHECKPOINTS + 1) * checkpoint_bytes(model, config)


class Checkpoints:
    """The checkpoints of one run, in its folder `checkpoints`."""

    def __init__(self, folder: Path, run: str, environment: Mapping[str, str]) -> None:
        """
        Args:
            folder: the folder of the checkpoints.
            run: the sha256 of the run's settings, data and tokenizer.
            environment: what the bits of a run depend on, see `moreish.runs.environment`.
        """
        self.folder, self.run, self.environment = folder, run, dict(environment)

    def __bool__(self) -> bool:
        return bool(self._newest_first())

    def save(self, trainer: Trainer) -> None:
        """Write the folder `step-N`, then remove all but the newest checkpoints; collective."""
        state = trainer.state
        contents = (
            iter_safetensors_bytes(gather_full(trainer.model.state_dict())),
            iter_safetensors_bytes(gather_full(optimizer_tensors(trainer.optimizer))),
            [encode_json(TRAIN_STATE.dump_python(state, mode="json"))],
        )
        if not trainer.group.is_main:
            return
        place = self.folder / f"step-{state.step:06d}"
        remove_partial_files(self.folder)  # of a process that was killed
        if read_manifest(place) is None:  # a resumed run reaches the same step again
            check_disk_space(
                self.folder, checkpoint_bytes(trainer.model, trainer.config), "a checkpoint"
            )
            self._write(place, dict(zip(PARTS, contents, strict=True)))
        for old in self._newest_first()[MAX_CHECKPOINTS:]:
            _remove(old)

    def _write(self, place: Path, contents: Mapping[str, Iterable[bytes]]) -> None:
        partial = partial_path(place)
        try:
            partial.mkdir(parents=True)
            digests = {name: hashlib.sha256() for name in contents}
            for name, chunks in contents.items():
                write_durable(partial / name, _hashed(chunks, digests[name]))
            logs = {name: self.folder.parent / name for name in LOGS}
            manifest = {
                "sha256": {name: digest.hexdigest() for name, digest in digests.items()},
                "run": self.run,
                "here": self.environment,
                "logged": {name: _length_and_hash(p) for name, p in logs.items() if p.exists()},
            }
            write_durable(partial / MANIFEST, [encode_json(manifest)])
            fsync_folder(partial)
            if place.exists():  # a damaged one
                _remove(place)
            rename_folder(partial, place)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        fsync_folder(self.folder)

    def restore(self, trainer: Trainer, *, inexact: bool = False) -> list[str]:
        """Restore the newest undamaged checkpoint into `trainer`.

        Returns:
            Notes for the user.

        Raises:
            MoreishError: there is none, it belongs to another run, or resuming from it here would
                not give the same bits (unless `inexact`).
        """
        notes = []
        for place in self._newest_first():
            manifest = read_manifest(place)
            if manifest is None:
                notes.append(f"{place} is damaged: an older checkpoint is used")
                continue
            if manifest.get("run", self.run) != self.run:
                raise MoreishError(
                    f"{place} is a checkpoint of another run: its settings, data or tokenizer are "
                    "not those of this one"
                )
            if not inexact:
                self._check_exact(place, manifest)
            try:
                _restore(place, trainer)
            except (RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
                raise MoreishError(
                    f"{place} is not a checkpoint of this run ({one_line(error)})"
                ) from None
            before, now = (
                environment.get("processes", "1")
                for environment in (manifest.get("here", self.environment), self.environment)
            )
            if before != now:
                notes.append(
                    f"{now} processes now, {before} before: the result is the same up to rounding."
                )
            return notes
        raise MoreishError(
            f"{self.folder} has no undamaged checkpoint: there is nothing to resume. If the run "
            f"has weights, {command('sample', self.folder.parent)} uses the best; or train again "
            "with --overwrite"
        )

    def _check_exact(self, place: Path, manifest: Mapping[str, Any]) -> None:
        """Raises MoreishError when resuming from a checkpoint would not give the same bits."""
        for name, (length, digest) in manifest["logged"].items():
            path = self.folder.parent / name
            if not path.exists() or _length_and_hash(path, length) != (length, digest):
                raise MoreishError(
                    f"{path} is not what it was when {place.name} was saved, so the log would be "
                    "incomplete. Restore it, or resume with --inexact"
                )
        before, now = manifest.get("here", self.environment), self.environment
        changed = {key for key in before.keys() | now if before.get(key) != now.get(key)}
        if "processes" in changed:  # a choice of the user; launchers set the threads as well
            changed -= {"processes", "threads"}
        if changed:
            changes = "; ".join(
                f"{key} was {before.get(key)} and is {now.get(key)}" for key in sorted(changed)
            )
            raise MoreishError(
                f"resuming would not give the same bits: {changes}. Restore that, or resume with "
                "--inexact"
            )

    def _newest_first(self) -> list[Path]:
        steps = {path: path.name.removeprefix("step-") for path in self.folder.glob("step-*")}
        complete = [path for path, step in steps.items() if step.isdecimal()]
        return sorted(complete, key=lambda path: int(steps[path]), reverse=True)


def read_manifest(place: Path) -> dict[str, Any] | None:
    """Read the manifest of a checkpoint; None if one of its files is missing or damaged."""
    try:
        manifest = read_json(place / MANIFEST)
        digests = manifest["sha256"]
        if not isinstance(manifest.get("here", {}), dict) or set(digests) != set(PARTS):
            return None
        manifest["logged"] = LOGGED.validate_python(manifest.get("logged", {}))
        for name in PARTS:
            if file_sha256(place / name) != digests[name]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest


def _remove(place: Path) -> None:
    """Remove a checkpoint; a process that is killed meanwhile leaves only a partial folder."""
    partial = place.with_name(f"{place.name}.{os.getpid()}.old{PARTIAL_SUFFIX}")
    rename_folder(place, partial)
    shutil.rmtree(partial)


def _hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    """Yield the chunks and update the digest with each."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _length_and_hash(path: Path, length: int = -1) -> tuple[int, str]:
    """Return the length and the sha256 of the first `length` bytes of a file, or of all of it."""
    with path.open("rb") as file:
        content = file.read(length)
    return len(content), hashlib.sha256(content).hexdigest()


def _restore(place: Path, trainer: Trainer) -> None:
    weights, optimizer = ((place / name).read_bytes() for name in PARTS[:2])
    stored = read_json(place / PARTS[2])
    entries = {RENAMED_STATE.get(name, name): value for name, value in stored.items()}
    state = TRAIN_STATE.validate_python(entries)
    numbers = [value for value in vars(state).values() if isinstance(value, float)]
    if state.step < 0 or state.plan.eval_every < 1 or not all(map(math.isfinite, numbers)):
        raise ValueError("its numbers are out of range")
    load_state(trainer.model, from_safetensors(weights))
    restore_optimizer(trainer.optimizer, from_safetensors(optimizer))
    trainer.state = state
