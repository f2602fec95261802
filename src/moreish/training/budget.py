"""The plan of a training run: from a budget in steps, epochs or minutes to steps and
evaluations."""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from moreish.config import TrainConfig
from moreish.data import BatchSampler
from moreish.distributed import SINGLE_PROCESS, ProcessGroup
from moreish.evaluate import batch_losses, evaluation_batches, evaluation_windows
from moreish.runs import Run
from moreish.training.optim import build_optimizer
from moreish.training.state import StepPlan, TrainState
from moreish.training.trainer import Trainer

MAX_EVALUATIONS = 25
"""Largest number of evaluations in a run."""

EVAL_SHARE = 0.06
"""Share of the run that is planned for evaluations; with their samples, it stays below a tenth."""

MIN_STEPS_BETWEEN_EVALUATIONS = 40
"""Smallest number of steps between two evaluations, each of which has some constant cost."""

EVAL_COST_PER_POSITION = 1 / 2
"""Cost of evaluating a position relative to training on it: there is no backward pass, but samples
are drawn and the best weights saved."""


def plan_steps(steps: int, step_positions: float, eval_positions: float) -> StepPlan:
    """Plan a training run of `steps` steps without a clock, so that the plan is reproducible.

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


def budget_steps(config: TrainConfig, sampler: BatchSampler) -> int | None:
    """Return the number of steps for a budget in steps or epochs; None for minutes."""
    if config.epochs is not None:
        return max(1, round(config.epochs * sampler.steps_per_epoch))
    return config.steps


def median_seconds(
    action: Callable[[], object],
    should_stop: Callable[[], bool],
    seconds: float = 1.0,
    min_repeats: int = 3,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Measure the median duration of `action` after a warmup call, the same in every process.

    Args:
        action: the function to measure.
        should_stop: returns whether to stop after the current measurement.
        seconds: minimum total duration of the measurements.
        min_repeats: minimum number of measurements.
        group: the processes that call it together.
    """
    if not group.any(should_stop()):
        action()
    times: list[float] = []
    while not times or (
        not group.any(should_stop()) and (len(times) < min_repeats or sum(times) < seconds)
    ):
        began = time.perf_counter()
        action()
        times.append(group.broadcast(time.perf_counter() - began))
    return statistics.median(times)


def plan_training(
    run: Run, trainer: Trainer, should_stop: Callable[[], bool], began: float
) -> StepPlan:
    """Plan the steps and evaluations of a training run from its budget.

    For minutes, a short trial measures steps and evaluations; it leaves the weights as they were.

    Args:
        run: the run that is trained.
        trainer: its trainer.
        should_stop: whether to end a trial early.
        began: time (of `time.perf_counter`) from which the minutes count.
    """
    config, model, group = run.config.train, trainer.model, trainer.group
    validation = run.validation_sample
    windows = evaluation_windows(model, validation)
    positions = float(windows.length_W.sum())
    steps = budget_steps(config, trainer.sampler)
    if steps is not None:
        plan = plan_steps(steps, trainer.sampler.batch(0).tokens_BT.numel(), positions)
    else:
        assert config.minutes is not None
        step_seconds = measure_step_seconds(trainer, should_stop, seconds=min(0.5, config.minutes))
        some = windows[:: max(1, len(windows) // 2000)]
        batches = [batch for _, batch in evaluation_batches(model, validation, some, group)]
        measured = sum(batch.tokens_BT.numel() for batch in batches)

        @torch.inference_mode()
        def evaluate_some() -> None:
            for batch in batches:
                batch_losses(model, batch, 1)

        eval_seconds = median_seconds(
            evaluate_some, should_stop, seconds=0.0, min_repeats=1, group=group
        )
        eval_seconds *= positions / group.broadcast(measured) / group.size
        left = max(0.0, config.minutes - group.seconds_since(began) / 60)
        plan = plan_minutes(left, step_seconds, eval_seconds)
    return plan if config.eval_every is None else replace(plan, eval_every=config.eval_every)


def measure_step_seconds(
    trainer: Trainer, should_stop: Callable[[], bool], seconds: float
) -> float:
    """Measure the median duration of a training step, in seconds.

    The trial compiles the model if that is requested, and leaves the weights as they were.

    Args:
        trainer: the trainer whose steps are measured.
        should_stop: whether to end the trial early.
        seconds: approximate duration of the trial.
    """
    model = trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trial = copy.copy(trainer)  # shares the compiled backward pass
    trial.short_sampler = trainer.sampler
    trial.optimizer = build_optimizer(model, trainer.config)
    trial.state = TrainState(plan=StepPlan(steps=1_000_000, eval_every=1))
    duration = median_seconds(trial.train_step, should_stop, seconds=seconds, group=trainer.group)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
            p.grad = None
    return duration
