"""The runs in the server's folder: listed, served, renamed and deleted."""

import asyncio
import json
import logging
import re
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from moreish.errors import MoreishError
from moreish.models import CountBasedModel, model_class
from moreish.runs import backup_path, training_lock
from moreish.serve.http import ApiError
from moreish.serve.jobs.schemas import RunInfo
from moreish.serve.jobs.uploads import is_valid_name
from moreish.serve.registry import Registry

MAX_RESTORED = 20
"""The newest runs of the folder, which a new server serves."""

REMOVED_SUFFIX = ".removed"
"""Of the folder of a run while it is being deleted."""

RESUMABLE = ("interrupted", "training")
"""Statuses in run.json of runs that can be resumed; one in training was killed."""

DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a damaged run.json may raise."""

EXTENSIBLE = ("finished", "stopped early")
"""Statuses of runs that can be trained longer, if their models are trained by gradients."""

TEXTS = "texts"
"""The folder of uploaded texts, which is beside the runs."""


class RunStore:
    """Runs by name; a name from a request is looked up here and nowhere else."""

    def __init__(self, home: Path, registry: Registry) -> None:
        """
        Args:
            home: folder of the runs.
            registry: serves their models.
        """
        self.home, self.registry = home, registry
        self._restoring: asyncio.Task[None] | None = None

    def contents(self) -> list[RunInfo]:
        """Describe the runs, the newest first."""
        found = [
            _describe_run(record)
            for record in self.home.glob("*/run.json")
            if is_valid_name(record.parent.name) and not record.parent.is_symlink()
        ]
        return sorted(found, key=lambda run: (run.created or "", run.name), reverse=True)

    def find(self, name: str) -> RunInfo:
        """Return a run.

        Raises:
            ApiError: there is none of this name (404).
        """
        for run in self.contents():
            if run.name == name:
                return run
        raise ApiError(404, f"there is no run {name[:100]!r}", param="name")

    def available_name(self, name: str) -> str:
        """Return the name, with a number at the end if it is taken."""
        if not self._is_taken(name):
            return name
        while not is_valid_name(f"{name}-9999"):
            name = name[:-1]
        candidates = (f"{name}-{number}" for number in count(2))
        return next(name for name in candidates if not self._is_taken(name))

    def _is_taken(self, name: str) -> bool:
        """Whether a run has the name, here or among those served from other folders."""
        path = self.home / name
        exists = path.exists() or backup_path(path).exists() or name == TEXTS
        return exists or name in self.registry

    def check_available(self, name: str, param: str = "name") -> None:
        """Check that a run can get this name.

        Raises:
            ApiError: it is taken (409); the message has one that is not.
        """
        if self._is_taken(name):
            message = f"the name {name!r} is taken; {self.available_name(name)!r} is available"
            raise ApiError(409, message, param=param, code="taken")

    async def delete(self, name: str) -> None:
        """Delete a run and stop serving it.

        Raises:
            ApiError: there is no such run (404).
            MoreishError: another process is training it.
        """
        path = self.home / self.find(name).name
        removed = self.home / f".{uuid4().hex}{REMOVED_SUFFIX}"
        self._move(path, removed)  # the run is there as a whole, or not at all
        await asyncio.to_thread(shutil.rmtree, removed, ignore_errors=True)

    async def rename(self, name: str, new_name: str) -> None:
        """Rename a run, and serve it under its new name if it was served.

        Raises:
            ApiError: there is no such run (404), or the new name is taken (409).
            MoreishError: another process is training it.
        """
        path = self.home / self.find(name).name
        self.check_available(new_name, "new_name")
        new_path = self.home / new_name
        if self._move(path, new_path):
            self.registry.add(await asyncio.to_thread(self.registry.load, new_path))

    def _move(self, path: Path, to: Path) -> bool:
        """Rename a folder and stop serving it; return whether it was served."""
        with training_lock(path):
            pass  # Windows renames no folder with an open file, so the lock is only tried
        path.rename(to)
        return self.registry.remove(path)

    def start(self) -> None:
        """Begin to serve the runs of the folder; call it on the event loop."""
        for removed in self.home.glob(f".*{REMOVED_SUFFIX}"):
            if re.fullmatch(rf"\.[0-9a-f]{{32}}{re.escape(REMOVED_SUFFIX)}", removed.name):
                shutil.rmtree(removed, ignore_errors=True)  # the server was killed meanwhile
        paths = [self.home / run.name for run in self.contents() if run.name not in self.registry]
        paths = [path for path in paths if (path / "model.safetensors").is_file()][:MAX_RESTORED]
        self.registry.num_loading = len(paths)
        self._restoring = asyncio.create_task(self._restore(paths))

    async def _restore(self, paths: list[Path]) -> None:
        """Load runs one by one; one that is damaged is left out."""
        for path in paths:
            try:
                if path.name not in self.registry:
                    self.registry.add(await asyncio.to_thread(self.registry.load, path))
            except MoreishError as error:
                logging.getLogger("moreish.serve").warning("not served: %s", error)
            except Exception:  # the others are served, whatever it is
                logging.getLogger("moreish.serve").exception("%s is not served", path)
            self.registry.num_loading -= 1

    def stop(self) -> None:
        """Load no more runs."""
        if self._restoring is not None:
            self._restoring.cancel()


def _can_resume(status: str, model: str) -> bool:
    """Return whether a run can be resumed or trained longer."""
    counts_only = issubclass(model_class(model), CountBasedModel)
    return status in RESUMABLE or (status in EXTENSIBLE and not counts_only)


def _validation_loss(path: Path, record: dict[str, Any]) -> float | None:
    """Return the loss of the saved weights: the final one or, of a stopped run, the best so far."""
    if (score := record.get("splits", {}).get("val")) is not None:
        return score.get("loss")
    states = sorted(path.glob("checkpoints/*/state.json"))
    with suppress(*DAMAGE):
        return json.loads(states[-1].read_bytes())["best"]["loss"]
    return None


def _describe_run(path: Path) -> RunInfo:
    """Describe a run from its run.json, without checking the rest of the folder."""
    name = path.parent.name
    with suppress(*DAMAGE, MoreishError):
        record = json.loads(path.read_bytes())
        return RunInfo(
            name=name,
            status=record["status"],
            model=record["config"]["model"]["name"],
            data=record["data"]["name"],
            parameters=record.get("parameters"),
            loss=_validation_loss(path.parent, record),
            created=record["created"],
            can_resume=_can_resume(record["status"], record["config"]["model"]["name"]),
        )
    return RunInfo(name=name)
