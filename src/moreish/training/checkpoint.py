"""Checkpoints: everything that resuming needs, written beside its place and renamed when whole."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from moreish.errors import MoreishError
from moreish.evaluate.metrics import Score
from moreish.files import PART, flush_folder, to_json, write_durable
from moreish.training.budget import Plan
from moreish.training.loop import Position, Trainer
from moreish.training.optim import optimizer_tensors, restore_optimizer

KEPT = 2
"""Newest checkpoints that stay; the best weights are apart from them."""

MANIFEST = "manifest.json"

PARTS = ("weights.safetensors", "optimizer.safetensors", "state.json")


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write `folder`/step-N; older checkpoints than the newest few are removed afterwards."""
    best = trainer.position.best
    position = {**asdict(trainer.position), "best": best and best.as_json()}
    parts = {
        "weights.safetensors": to_safetensors(_owned(trainer.model.state_dict())),
        "optimizer.safetensors": to_safetensors(_owned(optimizer_tensors(trainer.optimizer))),
        "state.json": to_json(position),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    place = folder / f"step-{trainer.position.step:06d}"
    beside = place.with_name(f"{place.name}.{os.getpid()}{PART}")
    try:
        beside.mkdir(parents=True)
        for name, content in parts.items():
            write_durable(beside / name, content)
        write_durable(beside / MANIFEST, to_json({"sha256": digests}))
        flush_folder(beside)
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    flush_folder(folder)
    for old in _by_age(folder)[KEPT:]:
        shutil.rmtree(old)


def restore_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Put the newest whole checkpoint into `trainer`.

    Raises:
        MoreishError: there is none.
    """
    for place in _by_age(folder):
        parts = _read_whole(place)
        if parts is None:
            continue
        try:
            _restore(parts, trainer)
        except (RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MoreishError(f"{place} is not a checkpoint of this run ({reason})") from None
        return
    raise MoreishError(f"{folder} holds no whole checkpoint: there is nothing to resume")


def _restore(parts: dict[str, bytes], trainer: Trainer) -> None:
    trainer.model.load_state_dict(from_safetensors(parts["weights.safetensors"]))
    restore_optimizer(trainer.optimizer, from_safetensors(parts["optimizer.safetensors"]))
    state = json.loads(parts["state.json"])
    best = state["best"] and Score.from_json(state["best"])
    trainer.position = Position(**{**state, "plan": Plan(**state["plan"]), "best": best})


def _by_age(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(
        (path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()),
        key=lambda path: int(path.name.removeprefix("step-")),
        reverse=True,
    )


def _read_whole(place: Path) -> dict[str, bytes] | None:
    """The files of a checkpoint, if all are there as the manifest says."""
    try:
        digests = json.loads((place / MANIFEST).read_bytes())["sha256"]
        parts = {name: (place / name).read_bytes() for name in PARTS}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(digests, dict) or set(digests) != set(PARTS):
        return None
    whole = all(hashlib.sha256(parts[name]).hexdigest() == digests[name] for name in digests)
    return parts if whole else None


def _owned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor with its own memory, on the CPU, as safetensors wants it."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
