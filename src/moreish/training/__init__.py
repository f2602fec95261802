"""Optimization: setup, gradient steps, checkpoints."""

from moreish.training.budget import Plan, budget_steps, measure, plan_minutes, plan_steps
from moreish.training.checkpoint import KEPT, PROCESSES, Checkpoints
from moreish.training.divergence import DivergenceError
from moreish.training.events import (
    Evaluated,
    Event,
    Examined,
    Note,
    Report,
    Sampled,
    Skipped,
    Started,
    Step,
    WentBack,
    Working,
    silent,
)
from moreish.training.flops import Work, peak_named, peak_of
from moreish.training.lr_range import LRRange
from moreish.training.metrics_log import Log
from moreish.training.objectives import next_token, with_squared_weights
from moreish.training.optim import (
    build_optimizer,
    check_optimizer,
    default_rate,
    memory_of,
    moments_of,
    set_rate,
)
from moreish.training.parallel import in_parts, spread
from moreish.training.precision import lacking, precision_of, recomputing
from moreish.training.setup import (
    WINDOW,
    Ready,
    available_memory,
    find_device,
    make_sampler,
    make_tokenizer,
    parameters_of,
    prepare,
    try_rates,
)
from moreish.training.trackers import tracker_names, trackers_of
from moreish.training.trainer import Hooks, Position, Trainer, time_of_step
from moreish.training.warm_start import SLOWER, check_start, inherited, source_of, start_from

__all__ = [
    "KEPT",
    "PROCESSES",
    "SLOWER",
    "WINDOW",
    "Checkpoints",
    "DivergenceError",
    "Evaluated",
    "Event",
    "Examined",
    "Hooks",
    "LRRange",
    "Log",
    "Note",
    "Plan",
    "Position",
    "Ready",
    "Report",
    "Sampled",
    "Skipped",
    "Started",
    "Step",
    "Trainer",
    "WentBack",
    "Work",
    "Working",
    "available_memory",
    "budget_steps",
    "build_optimizer",
    "check_optimizer",
    "check_start",
    "default_rate",
    "find_device",
    "in_parts",
    "inherited",
    "lacking",
    "make_sampler",
    "make_tokenizer",
    "measure",
    "memory_of",
    "moments_of",
    "next_token",
    "parameters_of",
    "peak_named",
    "peak_of",
    "plan_minutes",
    "plan_steps",
    "precision_of",
    "prepare",
    "recomputing",
    "set_rate",
    "silent",
    "source_of",
    "spread",
    "start_from",
    "time_of_step",
    "tracker_names",
    "trackers_of",
    "try_rates",
    "with_squared_weights",
]
