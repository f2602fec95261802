"""The folder of texts and runs, and the one training run that may be in progress."""

import asyncio
import json
import logging
import math
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from moreish.data import CATALOG
from moreish.errors import MoreishError
from moreish.runs import Run
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import ApiError
from moreish.serve.jobs.run_store import TEXTS, RunStore
from moreish.serve.jobs.schemas import TextRequest, TrainingStatus
from moreish.serve.jobs.subprocess import WorkerQueue, read_messages, start_worker
from moreish.serve.jobs.uploads import UploadFolder
from moreish.serve.native import HistoryResponse, LoggedSample, read_history
from moreish.serve.registry import Registry
from moreish.utils.platforms import interrupt_process

MAX_SAMPLES = 50
"""Samples that a status has."""

EVENT_SECONDS = 0.2
"""Minimum time between two events of a stream."""


class TrainingManager:
    """Runs audits, plans and training in worker processes, and serves the trained models."""

    def __init__(self, registry: Registry, executor: BackgroundExecutor, home: Path) -> None:
        """
        Args:
            registry: serves the trained models.
            executor: loads them.
            home: folder of the runs; uploaded texts go to its folder `texts`.
        """
        self.registry, self.executor, self.home = registry, executor, home
        self.texts = UploadFolder(home / TEXTS, registry.limits.upload_bytes)
        self.runs = RunStore(home, registry)
        self._status = TrainingStatus()
        self._queue = WorkerQueue()
        self._changed = asyncio.Event()
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def run_worker(self, command: str, body: TextRequest) -> dict[str, Any]:
        """Run "doctor" or "plan" on a text and return the result; see `WorkerQueue.run`.

        Raises:
            ApiError: there is no such text (404), or it cannot be read (400).
        """
        message = await self._queue.run(command, self._worker_options(body))
        if "error" in message:
            # In quotes, since a name may look like words of the sentence.
            text = message["error"].replace(str(self.texts.path / body.text), repr(body.text))
            raise ApiError(400, self._without_paths(text), param=message.get("param"))
        return json.loads(self._without_paths(json.dumps(message["result"], ensure_ascii=False)))

    def _worker_options(self, body: TextRequest) -> dict[str, Any]:
        uploaded = {text.name for text in self.texts.contents()}
        is_built_in = body.text in CATALOG and body.text not in uploaded
        source = body.text if is_built_in else str(self.texts.find(body.text))
        return {"source": source, **body.train_options()}

    @property
    def is_training(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def status(self) -> TrainingStatus:
        """The progress of the current or last training, and the runs."""
        runs = [] if self.is_training else self.runs.contents()
        return self._status.model_copy(update={"runs": runs})

    async def status_changes(self) -> AsyncIterator[TrainingStatus]:
        """Yield the status now and after changes, until no training is in progress."""
        while True:
            changed = self._changed
            yield self.status
            if not self.is_training:
                return
            await asyncio.sleep(EVENT_SECONDS)
            await changed.wait()

    def history(self) -> HistoryResponse:
        """Return what the current or last training has logged.

        Raises:
            ApiError: there is none (404).
        """
        path = self.home / (self._status.name or "")
        if self._status.name is None or not (path / "run.json").is_file():
            raise ApiError(404, "nothing has been logged yet", code="idle")
        return read_history(Run.open(path))

    def train(self, name: str, body: TextRequest) -> None:
        """Start a training run.

        Raises:
            ApiError: the name is taken, a training run is in progress (409), or there is no such
                text (404).
        """
        self.runs.check_available(name)
        options = {**self._worker_options(body), "out": str(self.home / name)}
        self._start(name, "train", options)

    def resume(self, name: str, minutes: float | None) -> None:
        """Resume a training run, or train a finished one for more minutes.

        Raises:
            ApiError: there is no such run (404), or a training run is in progress (409).
        """
        if not any(run.can_resume for run in self.runs.contents() if run.name == name):
            message = f"there is no run {name[:100]!r} that can be resumed or trained longer"
            raise ApiError(404, message, param="name")
        self._start(name, "resume", {"path": str(self.home / name), "minutes": minutes})

    async def delete(self, name: str) -> None:
        """Delete a run; see `RunStore.delete`.

        Raises:
            ApiError: it is being trained (409), or there is no such run (404).
        """
        self._check_not_training(name)
        await self.runs.delete(name)
        if self._status.name == name:
            self._update(**TrainingStatus().model_dump())

    async def rename(self, name: str, new_name: str) -> None:
        """Rename a run; see `RunStore.rename`.

        Raises:
            ApiError: it is being trained or the new name is taken (409), or there is no such run
                (404).
        """
        self._check_not_training(name)
        await self.runs.rename(name, new_name)
        if self._status.name == name:
            self._update(name=new_name)

    def _check_not_training(self, name: str) -> None:
        if self.is_training and name == self._status.name:
            raise ApiError(409, f"{name!r} is being trained: stop it first", code="busy")

    def interrupt(self) -> None:
        """Stop the run so that it can be resumed.

        Raises:
            ApiError: there is none (409).
        """
        if not self.is_training:
            raise ApiError(409, "no training is in progress", code="idle")
        if self._process is not None and self._process.returncode is None:
            interrupt_process(self._process)
        self._update(status="stopping")

    async def stop(self) -> None:
        """Interrupt the run, if there is one, and wait until it has ended."""
        self.runs.stop()
        if self.is_training:
            assert self._task is not None
            self.interrupt()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), 60)
            if self._process is not None:
                self._process.kill()

    def _start(self, name: str, command: str, options: dict[str, Any]) -> None:
        if self.is_training:
            message = f"{self._status.name!r} is being trained: stop it first"
            raise ApiError(409, message, code="busy")
        self._status = TrainingStatus(status="starting", name=name)
        self._task = asyncio.create_task(self._train(self.home / name, command, options))
        self._update()

    async def _train(self, path: Path, command: str, options: dict[str, Any]) -> None:
        """Run a worker process to its end, then serve its model."""
        message = "the training process failed; see the server's log"
        final: dict[str, Any] = {"status": "failed", "message": message}
        try:
            self._process = await start_worker(command, options)
            if self._status.status == "stopping":  # interrupted while the process was starting
                interrupt_process(self._process)
            async for found in read_messages(self._process):
                if "error" in found:
                    final["message"] = self._without_paths(found["error"])
                elif "result" in found:
                    final = {**found["result"], "message": None}
                else:
                    self._apply_event(found["event"])
            await self._process.wait()
            self._process = None
            if final["status"] != "failed" and (path / "model.safetensors").is_file():
                load = partial(self.registry.load, path, replace=True)
                self.registry.add(await self.executor.run(load))
        except MoreishError as error:
            final |= {"status": "failed", "message": self._without_paths(str(error))}
        except Exception:  # the status must not stay "training", whatever it is
            logging.getLogger("moreish.serve").exception("a training run failed")
            final |= {"status": "failed", "message": "the run failed; see the server's log"}
        finally:
            self._process = None
            self._update(**final, seconds_left=None)

    def _apply_event(self, event: dict[str, Any]) -> None:
        """Update the status from an event of the worker."""
        if sample := event.pop("sample", None):
            event["samples"] = [*self._status.samples, LoggedSample(**sample)][-MAX_SAMPLES:]
        if self._status.status == "stopping":
            event.pop("status", None)
        for key in ("loss", "val", "seconds_left"):
            if not math.isfinite(event.get(key) or 0.0):
                event[key] = None
        if event.get("message"):
            event["message"] = self._without_paths(event["message"])
        if event.get("plan"):
            event["plan"] = [self._without_paths(line) for line in event["plan"]]
        steps = event.get("steps", self._status.steps)
        share = event.get("step", self._status.step) / steps if steps else 0.0
        self._update(**event, share=share)

    def _update(self, **fields: Any) -> None:
        """Change the status and wake up the event streams."""
        self._status = self._status.model_copy(update=fields)
        self._changed.set()
        self._changed = asyncio.Event()

    def _without_paths(self, message: str) -> str:
        """Remove the folders of texts and runs, since clients must not learn where they are."""
        message = self.registry.without_paths(message)
        for folder in (self.texts.path.resolve(), self.texts.path, self.home.resolve(), self.home):
            message = message.replace(f"{folder}/", "")
        return message
