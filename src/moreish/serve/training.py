"""Training from the page: texts that were brought, what is said of them, and one training."""

import asyncio
import json
import logging
import math
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from moreish.errors import MoreishError
from moreish.files import PART, check_space
from moreish.run import Run
from moreish.run_folder import replaced_by
from moreish.serve.engine import Busy, Failed, Late
from moreish.serve.errors import ERRORS, ApiError, refused
from moreish.serve.looking import history_of
from moreish.serve.native_protocol import History
from moreish.serve.protocol import Asked
from moreish.serve.registry import Registry
from moreish.serve.side import Side
from moreish.serve.streams import EVENTS, EventStream

NAME = re.compile(r"[^\W_][\w .()+-]{0,79}")
"""Of a text or a run: no separators, nothing hidden, nothing to run."""

KEPT = 50
"""Samples of a training that are told."""

EVERY = 0.2
"""Seconds between two states that a page is told."""

Status = Literal["none", "starting", "training", "stopping", "stopped", "finished", "failed"]


class TextFile(BaseModel):
    """A text that was brought."""

    name: str
    bytes: int


class Texts(BaseModel):
    texts: list[TextFile]


class AboutText(Asked):
    """A text, and how it is to be read."""

    text: str
    kind: Literal["lines", "text"] | None = None
    encoding: str | None = Field(None, max_length=40)
    dedup: bool | None = None
    nfc: bool | None = None
    clean: bool | None = None


class PlanRequest(AboutText):
    minutes: float = Field(1.0, gt=0, le=24 * 60)
    model: str | None = Field(None, max_length=40)


class TrainRequest(PlanRequest):
    name: str
    """Of the run, and of the model that it becomes."""


class ResumeRequest(Asked):
    name: str


class Diagnosed(BaseModel):
    """See `moreish doctor --json`."""

    facts: dict[str, Any]
    findings: list[dict[str, Any]]
    lines: list[str]


class Plan(BaseModel):
    lines: list[str]


class Sample(BaseModel):
    step: int
    text: str


class State(BaseModel):
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
    samples: list[Sample] = []
    message: str | None = None
    resumable: list[str] = []
    """Runs that were stopped and may go on."""


class Trainings:
    """The folder of texts and runs, and the one training that may be on."""

    def __init__(self, registry: Registry, side: Side, home: Path) -> None:
        """`home`: where runs go; texts go to a folder in it."""
        self.registry, self.side, self.home = registry, side, home
        self.texts = home / "texts"
        self.state = State()
        self._changed = asyncio.Event()
        self._reading = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    # --- texts ---

    def list_texts(self) -> list[TextFile]:
        found = sorted(self.texts.glob("*")) if self.texts.is_dir() else []
        return [
            TextFile(name=path.name, bytes=path.stat().st_size)
            for path in found
            if path.is_file() and NAME.fullmatch(path.name)
        ]

    def text(self, name: str) -> Path:
        """Raises ApiError (404) when there is none of this name."""
        if name not in {text.name for text in self.list_texts()}:
            raise ApiError(404, f"there is no text {name[:100]!r}", param="text")
        return self.texts / name

    async def bring(self, name: str, request: Request) -> TextFile:
        """Take a text, piece by piece; one of the same name is replaced once the new one is whole.

        Raises:
            ApiError: its name will not do, it is empty or too large.
        """
        if not NAME.fullmatch(name) or name.endswith((PART, ".", " ")):
            raise refused("name", "give the text a plain name: letters, digits, . _ - ( ) +")
        most, size = self.registry.limits.upload_bytes, 0
        self.texts.mkdir(parents=True, exist_ok=True)
        check_space(self.texts, int(request.headers.get("content-length", 0)), "the text")
        beside = self.texts / f".{name}{PART}"
        try:
            with beside.open("wb") as file:
                async for piece in request.stream():
                    size += len(piece)
                    if size > most:
                        raise ApiError(413, f"a text may have {most:,} bytes at the most")
                    file.write(piece)
            if size == 0:
                raise refused("name", "the text is empty")
            beside.replace(self.texts / name)
        finally:
            beside.unlink(missing_ok=True)
        return TextFile(name=name, bytes=size)

    async def read(self, verb: str, options: dict[str, Any]) -> dict[str, Any]:
        """What a process of its own says of a text.

        Raises:
            Busy: another text is being read.
            Late: it took too long.
        """
        if self._reading.locked():
            raise Busy(2)
        async with self._reading:
            process = await self._start(verb, options)
            try:
                async with asyncio.timeout(self.registry.limits.seconds):
                    async for told in _lines(process):
                        if "mistake" in told:
                            raise ApiError(400, self._without_paths(told["mistake"]))
                        if "result" in told:
                            result = json.dumps(told["result"], ensure_ascii=False)
                            return json.loads(self._without_paths(result))
            except TimeoutError:
                raise Late from None
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            raise Failed

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
                if status in ("interrupted", "training") and NAME.fullmatch(place.parent.name):
                    found.append(place.parent.name)
        return found

    def begin(self, name: str, verb: str, options: dict[str, Any]) -> None:
        """Start a training. Raises ApiError (409) when one is on."""
        if self.on:
            raise ApiError(409, f"{self.state.name} is being trained: stop it first", code="busy")
        self.state = State(status="starting", name=name)
        self._task = asyncio.create_task(self._carry_out(verb, options))
        self._tell()

    async def _carry_out(self, verb: str, options: dict[str, Any]) -> None:
        assert self.state.name is not None
        path = self.home / self.state.name
        status: Status = "failed"
        message = "the training came to an end that should not be; the server's log says more"
        try:
            self._process = await self._start(verb, options)
            if self.state.status == "stopping":  # while it was being started
                self._process.send_signal(signal.SIGINT)
            async for told in _lines(self._process):
                if "mistake" in told:
                    message = self._without_paths(told["mistake"])
                elif "result" in told:
                    status, message = told["result"]["status"], ""
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
            self.state = self.state.model_copy(
                update={"status": status, "message": message or None, "seconds_left": None}
            )
            self._tell()

    def _take(self, event: dict[str, Any]) -> None:
        """An event of the training becomes part of the state."""
        if sample := event.pop("sample", None):
            event["samples"] = [*self.state.samples, Sample(**sample)][-KEPT:]
        if self.state.status == "stopping":
            event.pop("status", None)
        for key in ("loss", "val", "seconds_left"):
            if not math.isfinite(event.get(key) or 0.0):
                event[key] = None
        if "message" in event:
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

    def told(self) -> State:
        """The state, as it is told."""
        return self.state.model_copy(update={"resumable": [] if self.on else self.resumable()})

    def history(self) -> History:
        """Of the training that is on or was the last. Raises ApiError (404) if there is none."""
        path = self.home / (self.state.name or "")
        if self.state.name is None or not (path / "run.json").is_file():
            raise ApiError(404, "nothing has been logged yet", code="idle")
        return history_of(Run.open(path))

    async def changes(self) -> AsyncIterator[State]:
        """The state now, and whenever it changes, but not too often; until nothing is on."""
        while True:
            changed = self._changed
            yield self.told()
            if not self.on:
                return
            await asyncio.sleep(EVERY)
            await changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _start(self, verb: str, options: dict[str, Any]) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "moreish.serve.work",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server, which passes it on
            limit=1 << 24,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"verb": verb, "options": options}).encode() + b"\n")
        process.stdin.close()
        return process

    def _without_paths(self, message: str) -> str:
        """Texts and runs have names for those who ask, and no place."""
        message = self.registry.without_paths(message)
        for folder in (self.texts.resolve(), self.texts, self.home.resolve(), self.home):
            message = message.replace(f"{folder}/", "")
        return message


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    async for line in process.stdout:
        with suppress(ValueError):
            yield json.loads(line)


def router(trainings: Trainings) -> APIRouter:
    """The routes of texts and training below /api."""
    api = APIRouter(prefix="/api", tags=["training"], responses=ERRORS)

    @api.get("/texts")
    async def list_texts() -> Texts:
        """Texts that were brought."""
        return Texts(texts=trainings.list_texts())

    @api.post(
        "/texts",
        max_body_size=trainings.registry.limits.upload_bytes,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string"}}},
            }
        },
    )
    async def bring_text(name: str, request: Request) -> TextFile:
        """Bring a text: its bytes are the body."""
        return await trainings.bring(name, request)

    @api.post("/doctor")
    async def doctor(asked: AboutText) -> Diagnosed:
        """What is wrong with a text, and what would mend it."""
        return Diagnosed(**await trainings.read("doctor", _source(asked)))

    @api.post("/plan")
    async def plan(asked: PlanRequest) -> Plan:
        """What would be trained, and why."""
        options = {**_source(asked), "minutes": asked.minutes, "model": asked.model}
        return Plan(**await trainings.read("plan", options))

    @api.post("/training", status_code=202)
    async def train(asked: TrainRequest) -> State:
        """Start a training."""
        if not NAME.fullmatch(asked.name) or asked.name.endswith((".", " ")):
            raise refused("name", "give the run a plain name: letters, digits, . _ - ( ) +")
        path = trainings.home / asked.name
        if path.exists() or replaced_by(path).exists() or asked.name == trainings.texts.name:
            raise refused("name", f"there is something of the name {asked.name} already")
        options = {**_source(asked), "minutes": asked.minutes, "model": asked.model}
        trainings.begin(asked.name, "train", {**options, "out": str(path)})
        return trainings.told()

    @api.get("/training")
    async def training() -> State:
        """How the training is."""
        return trainings.told()

    @api.get("/training/history")
    async def training_history() -> History:
        """What it has logged so far."""
        return await trainings.side.run(trainings.history)

    @api.get("/training/events", responses=EVENTS, response_class=Response)
    async def training_events() -> Response:
        """The same whenever it changes, as server-sent events."""
        events = (state.model_dump_json() async for state in trainings.changes())
        return EventStream(events)

    @api.post("/training/stop", status_code=202)
    async def stop() -> State:
        """Stop it; it can go on later."""
        trainings.halt()
        return trainings.told()

    @api.post("/training/resume", status_code=202)
    async def resume(asked: ResumeRequest) -> State:
        """Go on with one that was stopped."""
        if asked.name not in trainings.resumable():
            raise ApiError(404, f"there is no stopped run {asked.name[:100]!r}", param="name")
        trainings.begin(asked.name, "resume", {"path": str(trainings.home / asked.name)})
        return trainings.told()

    def _source(asked: AboutText) -> dict[str, Any]:
        read = asked.model_dump(include={"kind", "encoding", "dedup", "nfc", "clean"})
        given = {key: value for key, value in read.items() if value not in (None, False)}
        return {"source": str(trainings.text(asked.text)), **given}

    return api
