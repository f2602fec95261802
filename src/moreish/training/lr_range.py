"""The learning-rate range test (Smith 2017, section 3.3; makemore, part 2)."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from moreish.errors import MoreishError
from moreish.models import CountBasedModel
from moreish.training.events import Progress, Report
from moreish.training.gradients import Backward
from moreish.training.objectives import training_objective
from moreish.training.optim import build_optimizer, default_lr, set_lr
from moreish.training.setup import TrainingSetup, build_sampler
from moreish.utils.files import encode_json, read_json

SMOOTHING = 0.97
"""Decay of the running mean of the losses."""

VALLEY_TOLERANCE = 0.03
"""The valley begins where the smoothed loss is within this fraction of its minimum. The minimum
itself is often at a much higher rate, at which the loss is about to diverge."""

SPAN = 300
"""Factor between the model's default rate and either end of the range."""

STEPS = range(10, 1_000_001)
"""Allowed numbers of steps: fewer give no curve, and all losses are kept in memory."""

LR_RANGE_FILE = "lr_range.json"

MARGIN = {"sgd": 1.0, "adamw": 2.5, "muon": 2.5}
"""Factor between the valley and the suggested rate: where Adam scales the steps, a whole run
needs a lower rate than a new model tolerates for a few steps."""


@dataclass(frozen=True, kw_only=True)
class LRRange:
    """The losses of single steps at exponentially growing learning rates."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    valley: float
    """The lowest rate at which the smoothed loss is near its minimum."""
    suggested: float

    def encode(self) -> bytes:
        """Return the content of `LR_RANGE_FILE` for the run whose learning rate it found."""
        return encode_json(asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the range test of a run; None if its learning rate was not found by one."""
        try:
            return cls(**read_json(folder / LR_RANGE_FILE))
        except (OSError, ValueError, TypeError):
            return None


def run_lr_range_test(
    setup: TrainingSetup,
    *,
    report: Report,
    low: float | None = None,
    high: float | None = None,
    steps: int = 300,
) -> LRRange:
    """Train a new model for a few steps at growing learning rates.

    The test ends early once the loss is four times its minimum, or not finite.

    Args:
        setup: data and settings.
        report: receives the progress.
        low, high: the first and the last rate; by default far below and above the model's own.
        steps: the number of rates.

    Raises:
        MoreishError: the model has no learning rate, the range is invalid, or no valley is in it.
    """
    model, config = setup.build_model(), setup.config.train
    if isinstance(model, CountBasedModel):
        raise MoreishError(
            f"{setup.config.model.name} is fitted by counting and has no learning rate"
        )
    own = default_lr(model, config.optimizer)
    low = own / SPAN if low is None else low
    high = own * SPAN if high is None else high
    if not 0 < low < high:
        raise MoreishError("give rates with 0 < low < high")
    if steps not in STEPS:
        raise MoreishError(f"--steps {steps}: give {STEPS[0]} to {STEPS[-1]:,}")
    sampler = build_sampler(setup.config, setup.splits["train"], model)
    model.fit_counts(sampler.tokens)
    model.to(setup.device).train()
    optimizer = build_optimizer(model, config)
    objective = training_objective(config.label_smoothing, config.squared_weights)
    backward = Backward(model, objective, config, setup.device)
    rates, losses, smoothed = [], [], []
    mean, lowest = 0.0, math.inf
    for step in range(steps):
        lr = low * (high / low) ** (step / (steps - 1))
        set_lr(optimizer, lr)
        torch.manual_seed((sampler.seed * 1_000_003 + step) % 2**63)
        optimizer.zero_grad(set_to_none=True)
        loss = backward(sampler.batch(step)).item()
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(lr)
        losses.append(loss)
        smoothed.append(mean / (1 - SMOOTHING ** (step + 1)))
        lowest = min(lowest, smoothed[-1])
        if loss > 4 * lowest:
            break
        nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
        optimizer.step()
        report(Progress(what="testing learning rates", share=(step + 1) / steps))
    if len(rates) < STEPS[0]:
        raise MoreishError(
            f"the loss already diverges at learning rate {low:g}: try `moreish lr-range` with a "
            "lower --low"
        )
    is_near = np.array(smoothed) <= (1 + VALLEY_TOLERANCE) * lowest
    if is_near[0]:
        raise MoreishError(
            f"the loss barely decreases at rates from {low:g} to {rates[-1]:g}: try `moreish "
            "lr-range` with more --steps, or another --low and --high"
        )
    valley = rates[int(np.argmax(is_near))]
    suggested = valley / MARGIN.get(config.optimizer, 2.5)
    return LRRange(
        rates=rates, losses=losses, smoothed=smoothed, valley=valley, suggested=suggested
    )
