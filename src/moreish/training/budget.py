"""The plan of a training: from a budget in steps, epochs or minutes to steps and evaluations."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from moreish.config import TrainConfig
from moreish.data import Sampler
from moreish.distributed import SINGLE_PROCESS, ProcessGroup

MAX_EVALUATIONS = 25
"""Largest number of evaluations in a run."""

EVAL_SHARE = 0.06
"""Share of the run that is planned for evaluations; with their samples, it stays below a tenth."""

MIN_STEPS_BETWEEN_EVALUATIONS = 40
"""Smallest number of steps between two evaluations, each of which has some constant cost."""

EVAL_COST_PER_POSITION = 1 / 2
"""Cost of evaluating a position relative to training on it: there is no backward pass, but samples
are drawn and the best weights saved."""


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
        """Return the fraction of the training that is done before `step`."""
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


def plan_steps(steps: int, step_positions: float, eval_positions: float) -> StepPlan:
    """Plan a training of `steps` steps without a clock, so that the plan is reproducible.

    Args:
        steps: the number of steps.
        step_positions: positions (padding included) in a training step.
        eval_positions: positions in an evaluation.
    """
    eval_cost = EVAL_COST_PER_POSITION * eval_positions
    return _with_evaluations(steps, int(EVAL_SHARE * steps * step_positions / eval_cost))


def plan_minutes(minutes: float, step_seconds: float, eval_seconds: float) -> StepPlan:
    """Plan as many steps as fit into `minutes` with their evaluations."""
    seconds = minutes * 60
    evaluations = min(MAX_EVALUATIONS, int(EVAL_SHARE * seconds / eval_seconds))
    # At least two: the plan can be revised after the first.
    steps = max(2, int((seconds - evaluations * eval_seconds) / step_seconds))
    return _with_evaluations(steps, evaluations)


def _with_evaluations(steps: int, affordable: int) -> StepPlan:
    """Distribute the affordable evaluations; one more follows the last step."""
    count = max(1, min(MAX_EVALUATIONS, affordable + 1, steps // MIN_STEPS_BETWEEN_EVALUATIONS))
    return StepPlan(steps=steps, eval_every=math.ceil(steps / count))


def budget_steps(config: TrainConfig, sampler: Sampler) -> int | None:
    """Return the number of steps for a budget in steps or epochs; None for minutes."""
    if config.epochs is not None:
        return max(1, round(config.epochs * sampler.steps_per_epoch))
    return config.steps


def median_seconds(
    action: Callable[[], object],
    should_stop: Callable[[], bool],
    seconds: float = 1.0,
    least: int = 3,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Measure the median duration of `action` after a warmup call, the same in every process.

    Args:
        action: the function to measure.
        should_stop: whether a single measurement must do.
        seconds: smallest total duration.
        least: smallest number of measurements.
        group: the processes that call it together.
    """
    if not group.any(should_stop()):
        action()
    times: list[float] = []
    while not times or (
        not group.any(should_stop()) and (len(times) < least or sum(times) < seconds)
    ):
        began = time.perf_counter()
        action()
        times.append(group.broadcast(time.perf_counter() - began))
    return statistics.median(times)
