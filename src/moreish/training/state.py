"""The plan and the progress of a training run, as its checkpoints store them."""

from dataclasses import dataclass

from moreish.evaluate import Score

INITIAL_LOSS_SCALE = 2.0**16

REPLAN_TOLERANCE = 0.02
"""Deviation from the minutes, as a share of them, above which the remaining steps are replanned."""

REPLAN_CHECKS = 50
"""Checks of the plan, spread over the minutes: the speed of a machine may change at any time, and a
plan made in a slow moment must not last."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The number of steps and the schedule, which depends on `progress` and never on a clock.

    If a plan made for minutes turns out too long or too short, `replan` changes the remaining
    steps. Each checkpoint contains the plan, so a resumed run continues it.
    """

    steps: int
    eval_every: int
    from_step: int = 0
    """The step at which the plan was last changed."""
    from_progress: float = 0.0
    """The progress at that step."""

    def progress(self, step: int) -> float:
        """Return the fraction of the run that is done before `step`."""
        share = (step - self.from_step) / max(1, self.steps - self.from_step)
        return self.from_progress + (1 - self.from_progress) * share

    def replan(self, step: int, steps: int) -> "StepPlan":
        """Return a plan that continues this one at `step` and has `steps` steps in all.

        The distance of evaluations changes only if many steps are added or removed.
        """
        assert steps > step
        stretch = (steps - step) / max(1, self.steps - step)
        every = self.eval_every
        if not 1 / 1.5 < stretch < 1.5:
            every = max(1, round(every * stretch))
        return StepPlan(
            steps=steps, eval_every=every, from_step=step, from_progress=self.progress(step)
        )


@dataclass(kw_only=True)
class TrainState:
    """Progress of a training run: with the weights and the optimizer state, all that resuming
    needs."""

    plan: StepPlan
    step: int = 0
    first_step: int = 0
    """The step from which a finished run is trained longer."""
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


def replan(state: TrainState, minutes: float | None) -> None:
    """Revise `state.plan` so that the run ends after `minutes` at its average speed so far.

    Args:
        state: the progress of the run; changed in place.
        minutes: the time budget; None leaves the plan as it is.
    """
    if minutes is None or state.step >= state.plan.steps:
        return
    is_last_chance = state.step + 1 == state.plan.steps
    if state.seconds - state.planned_at < minutes * 60 / REPLAN_CHECKS and not is_last_chance:
        return
    state.planned_at = state.seconds
    steps = state.step - state.first_step
    step_seconds = (state.seconds - state.overhead_seconds) / steps
    left = minutes * 60 - state.seconds
    if abs(step_seconds * (state.plan.steps - state.step) - left) > REPLAN_TOLERANCE * minutes * 60:
        state.plan = state.plan.replan(state.step, state.step + max(1, int(left / step_seconds)))
