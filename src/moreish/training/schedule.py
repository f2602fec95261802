"""The learning rate over a training, as a share of its peak."""

import math

from moreish.config import TrainConfig


def lr_at(config: TrainConfig, progress: float) -> float:
    """The learning rate where `progress` of the training (0 to 1) is done.

    It rises in a line over the warm-up, then falls to `final_lr`: along half a cosine
    (Loshchilov and Hutter 2017), in a line, or not at all.
    """
    assert isinstance(config.lr, float), "training decides it"
    if progress < config.warmup:
        # Not quite zero at the first step, which would be lost.
        return config.lr * max(progress, 1e-3) / config.warmup
    if config.decay == "constant":
        return config.lr
    done = (progress - config.warmup) / (1 - config.warmup)
    left = 1 - done if config.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * left)
