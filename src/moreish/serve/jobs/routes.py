"""Training from the page: texts that were brought, what is said of them, and one training."""

import asyncio
import json
import logging
import math
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from moreish.errors import MoreishError
from moreish.runs import Run, backup_path
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    ApiError,
    EventStream,
    cancel_on_disconnect,
)
from moreish.serve.jobs.subprocess import TextWorker, read_messages, start_worker
from moreish.serve.jobs.uploads import UploadedText, UploadFolder, ValidName, is_valid_name
from moreish.serve.native import HistoryResponse, LoggedSample, training_history
from moreish.serve.openai import RequestBody
from moreish.serve.registry import Registry

MAX_SAMPLES = 50
"""Samples of a training that are told."""

EVENT_SECONDS = 0.2
"""Seconds between two states that a page is told."""

Status = Literal["none", "starting", "training", "stopping", "stopped", "finished", "failed"]


class TextList(BaseModel):
    texts: list[UploadedText]


class TextRequest(RequestBody):
    """A text, and how it is to be read."""

    text: str
    kind: Literal["lines", "text"] | None = None
    encoding: str | None = Field(None, max_length=40)
    dedup: bool | None = None
    nfc: bool | None = None
    clean: bool | None = None


class PlanRequest(TextRequest):
    minutes: float = Field(1.0, gt=0, le=24 * 60)
    model: str | None = Field(None, max_length=40)


class TrainRequest(PlanRequest):
    name: ValidName
    """Of the run, and of the model that it becomes."""


class ResumeRequest(RequestBody):
    name: str


class DoctorResponse(BaseModel):
    """See `moreish doctor --json`."""

    facts: dict[str, Any]
    findings: list[dict[str, Any]]
    lines: list[str]


class PlanResponse(BaseModel):
    lines: list[str]


class NameResponse(BaseModel):
    name: str


class TrainingStatus(BaseModel):
    """How the training is."""

    status: Status = "none"
    name: str | None = None
    step: int = 0
    steps: int = 0
    share: float = 0.0
    seconds_left: float | None = None
    loss: float | None = None
    val: float | None = None
    model: str | None = None
    parameters: int | None = None
    samples: list[LoggedSample] = []
    message: str | None = None
    early: bool = False
    """It has ended early, since validation did not improve any more."""
    best: float | None = None
    """The lowest loss on validation, which the weights that are kept have; told at the end."""
    best_step: int | None = None
    """When that was."""
    resumable: list[str] = []
    """Runs that were stopped and may go on."""


class TrainingManager:
    """The folder of texts and runs, and the one training that may be on."""

    def __init__(self, registry: Registry, side: BackgroundExecutor, home: Path) -> None:
        """`home`: where runs go; texts go to a folder in it."""
        self.registry, self.side, self.home = registry, side, home
        self.texts = UploadFolder(home / "texts", registry.limits.upload_bytes)
        self.state = TrainingStatus()
        self._readings = TextWorker(registry.limits.seconds)
        self._changed = asyncio.Event()
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    # --- texts ---

    async def read(self, verb: str, asked: TextRequest, **options: Any) -> dict[str, Any]:
        """What a process of its own says of a text; see `TextWorker.ask`."""
        told = await self._readings.ask(verb, {**self.source(asked), **options})
        if "mistake" in told:
            # Names may look like words of the sentence.
            message = told["mistake"].replace(str(self.texts.path(asked.text)), repr(asked.text))
            raise ApiError(400, self._without_paths(message), param=told.get("param"))
        return json.loads(self._without_paths(json.dumps(told["result"], ensure_ascii=False)))

    def source(self, asked: TextRequest) -> dict[str, Any]:
        """How it is to be read, for a process. Raises ApiError (404) if there is no such text."""
        how = asked.model_dump(include={"kind", "encoding", "dedup", "nfc", "clean"})
        given = {key: value for key, value in how.items() if value not in (None, False)}
        return {"source": str(self.texts.path(asked.text)), **given}

    # --- the training ---

    @property
    def on(self) -> bool:
        return self._task is not None and not self._task.done()

    def resumable(self) -> list[str]:
        """Runs of this folder that were stopped on their way."""
        found = []
        for place in sorted(self.home.glob("*/run.json")):
            with suppress(OSError, ValueError):
                status = json.loads(place.read_bytes()).get("status")
                if status in ("interrupted", "training") and is_valid_name(place.parent.name):
                    found.append(place.parent.name)
        return found

    def is_taken(self, name: str) -> bool:
        """Whether no new run can have the name: one has it, or is served by it from elsewhere."""
        path = self.home / name
        there = path.exists() or backup_path(path).exists() or path == self.texts.place
        return there or any(served.name == name for served in self.registry)

    def free_name(self, wanted: str) -> str:
        """The name, with a number if it is taken."""
        if not self.is_taken(wanted):
            return wanted
        while not is_valid_name(f"{wanted}-9999"):
            wanted = wanted[:-1]
        names = (f"{wanted}-{number}" for number in count(2))
        return next(name for name in names if not self.is_taken(name))

    def begin(self, name: str, verb: str, options: dict[str, Any]) -> None:
        """Start a training. Raises ApiError (409) when one is on."""
        if self.on:
            raise ApiError(409, f"{self.state.name!r} is being trained: stop it first", code="busy")
        self.state = TrainingStatus(status="starting", name=name)
        self._task = asyncio.create_task(self._carry_out(verb, options))
        self._tell()

    async def _carry_out(self, verb: str, options: dict[str, Any]) -> None:
        assert self.state.name is not None
        path = self.home / self.state.name
        status: Status = "failed"
        message = "the training came to an end that should not be; the server's log says more"
        ended: dict[str, Any] = {}
        try:
            self._process = await start_worker(verb, options)
            if self.state.status == "stopping":  # while it was being started
                self._process.send_signal(signal.SIGINT)
            async for told in read_messages(self._process):
                if "mistake" in told:
                    message = self._without_paths(told["mistake"])
                elif "result" in told:
                    ended, message = told["result"], ""
                    status = ended["status"]
                else:
                    self._take(told["event"])
            await self._process.wait()
            self._process = None
            if status != "failed" and (path / "model.safetensors").is_file():
                served = await self.side.run(partial(self.registry.load, path, again=True))
                self.registry.add(served)
        except MoreishError as error:
            status, message = "failed", self._without_paths(str(error))
        except Exception:  # it has to end in a state, whatever it is
            logging.getLogger("moreish.serve").exception("a training failed")
            status, message = "failed", "it failed for a reason that the server's log tells"
        finally:
            self._process = None
            ended |= {"status": status, "message": message or None, "seconds_left": None}
            self.state = self.state.model_copy(update=ended)
            self._tell()

    def _take(self, event: dict[str, Any]) -> None:
        """An event of the training becomes part of the state."""
        if sample := event.pop("sample", None):
            event["samples"] = [*self.state.samples, LoggedSample(**sample)][-MAX_SAMPLES:]
        if self.state.status == "stopping":
            event.pop("status", None)
        for key in ("loss", "val", "seconds_left"):
            if not math.isfinite(event.get(key) or 0.0):
                event[key] = None
        if event.get("message"):
            event["message"] = self._without_paths(event["message"])
        state = self.state.model_copy(update=event)
        share = state.step / state.steps if state.steps else 0.0
        self.state = state.model_copy(update={"share": share})
        self._tell()

    def halt(self) -> None:
        """Stop the training so that it can go on. Raises ApiError (409) when there is none."""
        if not self.on:
            raise ApiError(409, "nothing is being trained", code="idle")
        self.state = self.state.model_copy(update={"status": "stopping"})
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        self._tell()

    async def stop(self) -> None:
        """The server ends: so does the training, which can go on later."""
        if self.on:
            assert self._task is not None
            self.halt()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), 60)
            if self._process is not None:
                self._process.kill()

    def told(self) -> TrainingStatus:
        """The state, as it is told."""
        return self.state.model_copy(update={"resumable": [] if self.on else self.resumable()})

    def history(self) -> HistoryResponse:
        """Of the training that is on or was the last. Raises ApiError (404) if there is none."""
        path = self.home / (self.state.name or "")
        if self.state.name is None or not (path / "run.json").is_file():
            raise ApiError(404, "nothing has been logged yet", code="idle")
        return training_history(Run.open(path))

    async def changes(self) -> AsyncIterator[TrainingStatus]:
        """The state now, and whenever it changes, but not too often; until nothing is on."""
        while True:
            changed = self._changed
            yield self.told()
            if not self.on:
                return
            await asyncio.sleep(EVENT_SECONDS)
            await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _without_paths(self, message: str) -> str:
        """Texts and runs have names for those who ask, and no place."""
        message = self.registry.without_paths(message)
        for folder in (
            self.texts.place.resolve(),
            self.texts.place,
            self.home.resolve(),
            self.home,
        ):
            message = message.replace(f"{folder}/", "")
        return message


def router(trainings: TrainingManager) -> APIRouter:
    """The routes of texts and training below /api."""
    api = APIRouter(prefix="/api", tags=["training"], responses=ERROR_RESPONSES)

    @api.get("/texts")
    async def list_texts() -> TextList:
        """Texts that were brought."""
        return TextList(texts=trainings.texts.listed())

    @api.post(
        "/texts",
        max_body_size=trainings.registry.limits.upload_bytes,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "minLength": 1}}
                },
            }
        },
    )
    async def bring_text(name: ValidName, request: Request) -> UploadedText:
        """Bring a text: its bytes are the body."""
        return await trainings.texts.bring(name, request)

    @api.post("/doctor", response_model=DoctorResponse)
    async def doctor(asked: TextRequest, request: Request) -> Any:
        """What is wrong with a text, and what would mend it."""
        return await cancel_on_disconnect(trainings.read("doctor", asked), request)

    @api.post("/plan", response_model=PlanResponse)
    async def plan(asked: PlanRequest, request: Request) -> Any:
        """What would be trained, and why."""
        wishes = {"minutes": asked.minutes, "model": asked.model}
        return await cancel_on_disconnect(trainings.read("plan", asked, **wishes), request)

    @api.get("/training/name")
    async def name(wanted: ValidName) -> NameResponse:
        """A name that a new run may have: that one, or one like it."""
        return NameResponse(name=trainings.free_name(wanted))

    @api.post("/training", status_code=202)
    async def train(asked: TrainRequest) -> TrainingStatus:
        """Start a training."""
        name = asked.name
        if trainings.is_taken(name):
            message = f"there is a {name!r} already, but no {trainings.free_name(name)!r}"
            raise ApiError(409, message, param="name", code="taken")
        wishes = {"minutes": asked.minutes, "model": asked.model}
        out = {"out": str(trainings.home / name)}
        trainings.begin(name, "train", {**trainings.source(asked), **wishes, **out})
        return trainings.told()

    @api.get("/training")
    async def training() -> TrainingStatus:
        """How the training is."""
        return trainings.told()

    @api.get("/training/history", response_model=HistoryResponse)
    async def training_history(request: Request) -> Any:
        """What it has logged so far."""
        work = trainings.side.run(trainings.history)
        return await cancel_on_disconnect(work, request, trainings.registry.limits.seconds)

    @api.get("/training/events", responses=EVENT_STREAM_RESPONSE, response_class=Response)
    async def training_events() -> Response:
        """The same whenever it changes, as server-sent events."""
        events = (state.model_dump_json() async for state in trainings.changes())
        return EventStream(events)

    @api.post("/training/stop", status_code=202)
    async def stop() -> TrainingStatus:
        """Stop it; it can go on later."""
        trainings.halt()
        return trainings.told()

    @api.post("/training/resume", status_code=202)
    async def resume(asked: ResumeRequest) -> TrainingStatus:
        """Go on with one that was stopped."""
        if asked.name not in trainings.resumable():
            raise ApiError(404, f"there is no stopped run {asked.name[:100]!r}", param="name")
        trainings.begin(asked.name, "resume", {"path": str(trainings.home / asked.name)})
        return trainings.told()

    return api
