"""The progress of a training, as its checkpoints store it."""

from dataclasses import dataclass

from moreish.evaluate import Score
from moreish.training.budget import StepPlan

INITIAL_LOSS_SCALE = 2.0**16


@dataclass(kw_only=True)
class TrainState:
    """Progress of a training: with the weights and the optimizer state, all that resuming needs."""

    plan: StepPlan
    step: int = 0
    tokens: int = 0
    """Targets trained on so far."""
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    """Part of `seconds` spent on counting and measuring before the first step, and on steps that
    a rollback discarded."""
    eval_seconds: float = 0.0
    """Part of `seconds` spent on evaluations before the last step. The one after the last step is
    the result."""
    last_eval_seconds: float = 0.0
    """Duration of the last evaluation, with its samples."""
    planned_at: float = 0.0
    """Value of `seconds` when the plan was last revised."""
    best: Score | None = None
    """The lowest validation score so far."""
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped_in_a_row: int = 0
    """Consecutive steps, up to the current one, that were skipped as non-finite."""
    rollbacks: int = 0
    """Number of rollbacks to a checkpoint."""
    lr_scale: float = 1.0
    """Factor on the learning rate; each rollback lowers it."""
    loss_scale: float = INITIAL_LOSS_SCALE
    """Factor on the loss in float16 training."""
    steps_since_rescale: int = 0
    """Steps since `loss_scale` last changed."""
