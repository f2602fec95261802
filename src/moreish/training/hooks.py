"""The callbacks through which a training reaches the run folder and the user."""

from collections.abc import Callable
from dataclasses import dataclass

from moreish.evaluate import Score
from moreish.training.events import Report


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
    """Restores the last checkpoint, or the start of the training where there is none."""
    should_stop: Callable[[], bool]
    """Whether the user asked to stop after the current step."""
    report: Report
    """Receives every event."""
