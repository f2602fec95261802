"""Request and response bodies of the training routes."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from moreish.options import OPTIONS
from moreish.serve.http import RequestBody
from moreish.serve.jobs.uploads import UploadedText, ValidName
from moreish.serve.native import LoggedSample

TrainingState = Literal["none", "starting", "training", "stopping", "stopped", "finished", "failed"]


def option(name: str, default: Any = None, **bounds: Any) -> Any:
    """Return the field of an option of `moreish train`."""
    return Field(default, description=OPTIONS[name].help, **bounds)


class TextRequest(RequestBody):
    """A text and how to read it."""

    text: str
    """Name of an uploaded text or of a built-in data set."""
    kind: Literal["lines", "text", "examples"] | None = option("kind")
    column: str | None = option("column", max_length=200)
    input: str | None = option("input", max_length=200)
    target: str | None = option("target", max_length=200)
    encoding: str | None = option("encoding", max_length=40)
    dedup: bool | None = option("dedup")
    nfc: bool | None = option("nfc")
    clean: bool | None = option("clean")

    def train_options(self) -> dict[str, Any]:
        """Return the keyword arguments for `moreish.train` and the like."""
        return {
            name: value
            for name, value in self.model_dump().items()
            if name in OPTIONS and value not in (None, False)
        }


class PlanRequest(TextRequest):
    minutes: float = option("minutes", 1.0, gt=0, le=24 * 60)
    model: str | None = option("model", max_length=40)


class TrainRequest(PlanRequest):
    name: ValidName
    """Name of the run and of the model."""


class ResumeRequest(RequestBody):
    name: str
    minutes: float | None = Field(None, gt=0, le=60 * 24)
    """How long to train a finished run further; null resumes an interrupted one."""


class DeleteRequest(RequestBody):
    name: str


class RenameRequest(RequestBody):
    name: str
    new_name: ValidName


class UploadList(BaseModel):
    texts: list[UploadedText]
    datasets: list[str]
    """Built-in data sets, which may be named in place of a text."""


class DoctorResponse(BaseModel):
    """The output of `moreish doctor --json`."""

    facts: dict[str, Any]
    findings: list[dict[str, Any]]
    lines: list[str]


class PlanResponse(BaseModel):
    lines: list[str]


class NameResponse(BaseModel):
    name: str


class RunInfo(BaseModel):
    """A run in the server's folder; fields that a damaged run does not have are null."""

    name: str
    status: str | None = None
    """As in run.json: "finished", "interrupted", "stopped early" and so on."""
    model: str | None = None
    data: str | None = None
    parameters: int | None = None
    loss: float | None = None
    """Of the saved weights on the validation split, in nats per token."""
    created: str | None = None
    can_resume: bool = False
    """Whether `/api/training/resume` takes it."""


class TrainingStatus(BaseModel):
    """The progress of the current or last training."""

    status: TrainingState = "none"
    name: str | None = None
    step: int = 0
    steps: int = 0
    share: float = 0.0
    """The fraction of the steps that is done."""
    seconds_left: float | None = None
    loss: float | None = None
    val: float | None = None
    val_step: int | None = None
    """The step after which `val` was measured."""
    model: str | None = None
    parameters: int | None = None
    plan: list[str] = []
    """What the run was planned to do, and why, with the speed measured when it started."""
    samples: list[LoggedSample] = []
    message: str | None = None
    early: bool = False
    """Whether it stopped early because the validation loss did not improve any more."""
    best: float | None = None
    """The validation loss of the saved weights; set at the end."""
    best_step: int | None = None
    """The step of these weights."""
    runs: list[RunInfo] = []
    """The runs in the server's folder, the newest first; empty while training."""
