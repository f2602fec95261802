"""Evaluations during training: when they are due, what they record, when they stop it early."""

import math
import time

from moreish.config import TrainConfig
from moreish.distributed import ProcessGroup
from moreish.training.divergence import NonFiniteError
from moreish.training.events import Evaluated, Hooks
from moreish.training.state import TrainState

MAX_EVAL_SHARE = 0.08
"""Share of the minutes after which only the final evaluation is made."""


def is_evaluation_due(state: TrainState, config: TrainConfig) -> bool:
    """Whether to evaluate after `state.step` steps.

    A machine that was fast when the run was planned may be slow now, so evaluations stop when they
    have used their share of `train.minutes`. Without minutes, no clock decides.
    """
    if state.step == state.plan.steps:
        return True
    if state.step % state.plan.eval_every:
        return False
    after = state.eval_seconds + state.last_eval_seconds
    minutes = config.minutes
    return minutes is None or after <= MAX_EVAL_SHARE * max(state.seconds, minutes * 60)


def evaluate(state: TrainState, hooks: Hooks, group: ProcessGroup) -> float:
    """Score the validation split, and keep the weights if they are the best so far.

    Returns:
        Seconds that the scoring took, without samples and saving.

    Raises:
        NonFiniteError: the validation loss is not finite.
    """
    began = time.perf_counter()
    score = hooks.evaluate()
    scoring_seconds = group.seconds_since(began)
    if not math.isfinite(score.loss):
        raise NonFiniteError(f"the validation loss is {score.loss:.3g}")
    is_best = state.best is None or score.loss < state.best.loss
    if is_best:
        state.best, state.best_step, state.evaluations_since_best = score, state.step, 0
        hooks.save_best()
    else:
        state.evaluations_since_best += 1
    hooks.report(Evaluated(step=state.step, score=score, best=is_best))
    state.last_eval_seconds = group.seconds_since(began)
    if state.step < state.plan.steps:
        state.eval_seconds += state.last_eval_seconds
        state.seconds += state.last_eval_seconds
    return scoring_seconds
