"""What a training tells its watchers: the progress bar, the log, a page."""

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
    """What the doctor found at the beginning of the text."""

    audit: AuditReport


@dataclass(frozen=True, kw_only=True)
class Started:
    """The data are understood and the model is built; training begins (or goes on)."""

    path: str
    data: DatasetInfo
    config: dict[str, Any]
    parameters: int
    max_length: int | None
    """Positions that the model can see at once."""
    steps: int
    """0 for a model that is counted."""
    from_step: int
    device: str
    memory: float | None
    """Bytes that each process will need, about; None where it is not known: of a model that is
    counted, or in parts."""
    processes: int = 1
    sharded: bool = False
    """Whether each process has a part of the weights, not all of them."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One update of the weights is done."""

    step: int
    steps: int
    loss: float
    lr: float
    gradient_norm: float
    tokens: int
    """Predictions trained on since the start."""
    seconds: float
    """Trained since the start, resumed parts included."""
    seconds_left: float
    mfu: float | None
    """Share of the GPU's peak that was used; None where no peak is known."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A step whose loss or gradient is not finite: the weights stay as they were."""

    step: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Steps were skipped one after another, or weights are lost: it goes on from `step`, slower."""

    step: int
    why: str
    lr: float
    """The highest learning rate from now on."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The validation split was evaluated after `step` steps; `best` if never lower before."""

    step: int
    score: Score
    best: bool


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What the model writes after `step` steps."""

    step: int
    texts: list[str]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Something beside the training takes a while; `share` of it is done."""

    what: str
    share: float


Event = Note | Audited | Started | Step | Skipped | Rollback | Evaluated | Sampled | Progress
Report = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Tell nobody."""
