"""How long to train: steps, epochs or minutes to a plan that can be saved and resumed."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from moreish.config import TrainConfig
from moreish.data import Sampler
from moreish.distributed import SINGLE_PROCESS, ProcessGroup

MAX_EVALUATIONS = 25
"""Exact evaluations in a run, where their cost allows it."""

EVAL_SHARE = 0.06
"""Share of the run planned for evaluations; with the samples that go with them, the promise is a
tenth."""

MIN_STEPS_BETWEEN_EVALUATIONS = 40
"""Training steps between two evaluations at the least: each has costs that no token count tells."""

EVAL_COST_PER_POSITION = 1 / 2
"""Cost of evaluating a token against that of training on it: no backward pass, but a sample of what
the model writes, and saving it if it is the best."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The number of steps, and the way there. Schedules see `progress`, never a clock.

    A plan made for minutes may turn out too long or too short. `replan` then stretches or
    squeezes what is left, from the step and the progress where that happened. All of it is saved
    with each checkpoint, so that a resumed run goes the same way.
    """

    steps: int
    eval_every: int
    from_step: int = 0
    from_progress: float = 0.0

    def progress(self, step: int) -> float:
        """Share of the training that is done before `step`."""
        share = (step - self.from_step) / max(1, self.steps - self.from_step)
        return self.from_progress + (1 - self.from_progress) * share

    def replan(self, step: int, steps: int) -> "StepPlan":
        """The same training, to end after `steps` steps in all; evaluations keep their distance,
        unless there are to be many more or many fewer steps."""
        assert steps > step
        stretch = (steps - step) / max(1, self.steps - step)
        every = self.eval_every
        if not 1 / 1.5 < stretch < 1.5:
            every = max(1, round(every * stretch))
        return StepPlan(
            steps=steps, eval_every=every, from_step=step, from_progress=self.progress(step)
        )


def plan_steps(steps: int, step_positions: float, eval_positions: float) -> StepPlan:
    """A plan that no clock decides: the same settings give the same evaluations, everywhere.

    Args:
        step_positions: positions (padding included) in a training step.
        eval_positions: positions in an evaluation.
    """
    affordable = int(
        EVAL_SHARE * steps * step_positions / (EVAL_COST_PER_POSITION * eval_positions)
    )
    return _with_evaluations(steps, affordable)


def plan_minutes(minutes: float, step_seconds: float, eval_seconds: float) -> StepPlan:
    """As many steps as fit into the minutes beside their evaluations."""
    seconds = minutes * 60
    evaluations = min(MAX_EVALUATIONS, int(EVAL_SHARE * seconds / eval_seconds))
    # Two at the least: after the first it can be planned anew.
    steps = max(2, int((seconds - evaluations * eval_seconds) / step_seconds))
    return _with_evaluations(steps, evaluations)


def _with_evaluations(steps: int, affordable: int) -> StepPlan:
    """The affordable ones on the way, and one after the last step, which is the result."""
    count = max(1, min(MAX_EVALUATIONS, affordable + 1, steps // MIN_STEPS_BETWEEN_EVALUATIONS))
    return StepPlan(steps=steps, eval_every=math.ceil(steps / count))


def epochs_to_steps(epochs: float, sampler: Sampler) -> int:
    """Steps in which every piece of the training data comes `epochs` times."""
    return max(1, round(epochs * sampler.steps_per_epoch))


def median_seconds(
    action: Callable[[], object],
    should_stop: Callable[[], bool],
    seconds: float = 1.0,
    least: int = 3,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Median seconds of `action`, repeated for a while after a first call that warms up: as often
    in every process.

    Once `should_stop` says yes, one measurement has to do.
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


def budget_steps(config: TrainConfig, sampler: Sampler) -> int | None:
    """The steps that the settings ask for; None when they ask for minutes."""
    if config.steps is not None:
        return config.steps
    return None if config.epochs is None else epochs_to_steps(config.epochs, sampler)
