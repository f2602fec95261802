"""The learning-rate range test (Smith 2017, section 3.3; makemore, part 2)."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from moreish.config import TrainConfig
from moreish.data import Sampler
from moreish.errors import MoreishError
from moreish.models import Model
from moreish.training.gradients import Backward
from moreish.training.objectives import Objective
from moreish.training.optim import build_optimizer, default_lr, set_lr
from moreish.utils.files import encode_json, read_json, write_atomic

SMOOTHING = 0.97
"""Weight of the past in the running mean of the losses."""

FLOOR = 0.03
"""The valley begins where the smoothed loss is within this share of its lowest. Its lowest point
itself is often far to the right, where a few steps more would have burst."""

SPAN = 300
"""How far the range reaches below and above the model's own rate."""

STEPS = range(10, 1_000_001)
"""How many there may be: fewer make no curve, and all are kept."""

FILE = "lr_range.json"

MARGIN = {"sgd": 1.0, "adamw": 2.5, "muon": 2.5}
"""How far below the valley the suggested rate lies: what a fresh model bears for a few steps is
more than is good for it in the long run, where Adam scales the steps."""


@dataclass(frozen=True, kw_only=True)
class LRRange:
    """One step at each rate, from low to high, spaced by exponent."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    valley: float
    """The lowest rate that brought the smoothed loss near its lowest."""
    suggested: float

    def save(self, folder: Path) -> None:
        """Into the run that takes its rate from here."""
        write_atomic(folder / FILE, encode_json(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What `save` left in a run, if its rate came from a range test."""
        try:
            return cls(**read_json(folder / FILE))
        except (OSError, ValueError, TypeError):
            return None


def lr_range(
    model: Model,
    sampler: Sampler,
    config: TrainConfig,
    objective: Objective,
    *,
    device: torch.device,
    low: float | None = None,
    high: float | None = None,
    steps: int = 300,
    progress: Callable[[float], None] = lambda share: None,
) -> LRRange:
    """Train `model` (which is spoilt by it) for `steps` steps at growing rates.

    It ends early once the loss is four times what it was at its lowest, or not finite.

    Args:
        low, high: by default far below and above the rate that the model itself names.

    Raises:
        MoreishError: the rates or the steps make no range, or there is no valley in it.
    """
    own = default_lr(model, config.optimizer)
    low = own / SPAN if low is None else low
    high = own * SPAN if high is None else high
    if not 0 < low < high:
        raise MoreishError("give rates with 0 < low < high")
    if steps not in STEPS:
        raise MoreishError(f"--steps {steps}: give {STEPS[0]} to {STEPS[-1]:,}")
    model.fit_counts(sampler.tokens)
    model.to(device).train()
    optimizer = build_optimizer(model, config)
    backward = Backward(model, objective, config, device)
    rates, losses, smoothed = [], [], []
    mean, lowest = 0.0, math.inf
    for step in range(steps):
        lr = low * (high / low) ** (step / (steps - 1))
        set_lr(optimizer, lr)
        torch.manual_seed((sampler.seed * 1_000_003 + step) % 2**63)
        optimizer.zero_grad(set_to_none=True)
        value = backward(sampler.batch(step)).item()
        if not math.isfinite(value):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        rates.append(lr)
        losses.append(value)
        smoothed.append(mean / (1 - SMOOTHING ** (step + 1)))
        lowest = min(lowest, smoothed[-1])
        if value > 4 * lowest:
            break
        nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
        optimizer.step()
        progress((step + 1) / steps)
    if len(rates) < 10:
        raise MoreishError(
            f"the loss bursts at a rate of {low:g} already: try `moreish lr-range` with a lower "
            "--low"
        )
    near = np.array(smoothed) <= (1 + FLOOR) * lowest
    if near[0]:
        raise MoreishError(
            f"the loss hardly falls at rates from {low:g} to {rates[-1]:g}: try `moreish lr-range` "
            "with more --steps, or another --low and --high"
        )
    valley = rates[int(np.argmax(near))]
    return LRRange(
        rates=rates,
        losses=losses,
        smoothed=smoothed,
        valley=valley,
        suggested=valley / MARGIN.get(config.optimizer, 2.5),
    )
