"""The events of a training run, which the progress bar, the log and the web page receive, and the
callbacks through which it reaches the run folder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moreish.data import AuditReport
from moreish.evaluate import Score
from moreish.runs import DatasetInfo


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Audited:
    """The beginning of the text was audited."""

    audit: AuditReport


@dataclass(frozen=True, kw_only=True)
class Started:
    """The data are loaded and the model is built; the run starts or resumes."""

    path: str
    data: DatasetInfo
    config: dict[str, Any]
    parameters: int
    max_length: int | None
    """Longest sequence of the model, in tokens; None if it has no limit."""
    steps: int
    """0 for a count-based model."""
    from_step: int
    device: str = "cpu"
    memory: float | None = None
    """Estimated memory of each process in bytes; None for count-based and for sharded models."""
    processes: int = 1
    sharded: bool = False
    """Whether each process holds only a shard of the weights."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """An optimizer step was taken."""

    step: int
    steps: int
    loss: float
    lr: float
    gradient_norm: float
    tokens: int
    """Predictions trained on so far."""
    seconds: float
    """Duration of training so far, including the time before it was resumed."""
    seconds_left: float
    mfu: float | None
    """Model FLOPs utilization; None where the peak of the device is unknown."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A step was skipped, because its loss or gradient is not finite."""

    step: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """The run was rolled back to `step` and continues with a lower learning rate."""

    step: int
    why: str
    lr: float
    """Peak learning rate from now on."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The validation split was evaluated after `step` steps."""

    step: int
    score: Score
    best: bool
    """Whether this is the lowest loss so far."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Texts were sampled after `step` steps."""

    step: int
    texts: list[str]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A fraction (`share`) of something other than training steps is done."""

    what: str
    share: float
    size: int | None = None
    """Size of the whole in bytes, where bytes are counted; 0 if it is unknown."""


Event = Note | Audited | Started | Step | Skipped | Rollback | Evaluated | Sampled | Progress
Report = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Discard an event."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What `Trainer.train` calls besides its own steps."""

    evaluate: Callable[[], Score]
    """Returns the exact score of the validation split."""
    save_best: Callable[[], None]
    """Saves the current weights as the best."""
    save_checkpoint: Callable[[], None]
    """Saves everything that resuming needs."""
    restore: Callable[[], None]
    """Restores the last checkpoint, or the start of the run where there is none."""
    should_stop: Callable[[], bool]
    """Whether the user asked to stop after the current step."""
    report: Report
    """Receives every event."""
