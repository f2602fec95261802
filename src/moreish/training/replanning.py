"""Revising the number of steps, so that a training with `train.minutes` ends on time."""

from moreish.training.state import TrainState

TOLERANCE = 0.02
"""Deviation from the minutes, as a share of them, above which the remaining steps are replanned."""

CHECKS_PER_RUN = 50
"""Checks of the plan, spread over the minutes: the speed of a machine may change at any time, and a
plan made in a slow moment must not last."""


def replan(state: TrainState, minutes: float | None) -> None:
    """Revise `state.plan` so that the training ends after `minutes` at its average speed so far.

    Args:
        state: the progress of the training; changed in place.
        minutes: the time budget; None leaves the plan as it is.
    """
    if minutes is None or state.step >= state.plan.steps:
        return
    is_last_chance = state.step + 1 == state.plan.steps
    if state.seconds - state.planned_at < minutes * 60 / CHECKS_PER_RUN and not is_last_chance:
        return
    state.planned_at = state.seconds
    step_seconds = (state.seconds - state.overhead_seconds) / state.step
    left = minutes * 60 - state.seconds
    if abs(step_seconds * (state.plan.steps - state.step) - left) > TOLERANCE * minutes * 60:
        state.plan = state.plan.replan(state.step, state.step + max(1, int(left / step_seconds)))
