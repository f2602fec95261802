"""Learning-rate schedules."""

import math

from moreish.config import TrainConfig


def lr_at(config: TrainConfig, progress: float) -> float:
    """Return the learning rate at a point of the run.

    It rises linearly over the warmup. Then it falls to `final_lr`, along half a cosine (Loshchilov
    and Hutter 2017, "SGDR") or linearly; or it stays constant; or it is multiplied by
    `decay_factor` once, at `decay_at` (as `torch.optim.lr_scheduler.MultiStepLR` does).

    Args:
        config: training settings; `lr` must be a number.
        progress: share of the run that is done, from 0 to 1.
    """
    assert isinstance(config.lr, float), "resolved before training starts"
    if progress < config.warmup:
        # Not quite zero at the first step, which would be wasted.
        return config.lr * max(progress, 1e-3) / config.warmup
    if config.decay == "constant":
        return config.lr
    if config.decay == "step":
        return config.lr * (config.decay_factor if progress >= config.decay_at else 1)
    done = (progress - config.warmup) / (1 - config.warmup)
    left = 1 - done if config.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * left)
