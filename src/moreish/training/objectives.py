"""Objectives: functions of a model and a batch that training minimizes."""

from collections.abc import Callable

import torch
from torch import Tensor

from moreish.data import Batch
from moreish.evaluate import mean_loss
from moreish.models import Model

Objective = Callable[[Model, Batch], Tensor]


def next_token_loss(model: Model, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of the next token, in nats."""
    return mean_loss(model.training_logits(batch), batch.targets_BT, batch.counts_BT)


def training_objective(label_smoothing: float, squared_weights: float) -> Objective:
    """Return what training minimizes: the loss of the next token, with smoothed labels and a
    penalty on the weights where the settings say so."""

    def smoothed_loss(model: Model, batch: Batch) -> Tensor:
        logits_BTV = model.training_logits(batch)
        return mean_loss(logits_BTV, batch.targets_BT, batch.counts_BT, label_smoothing)

    objective = smoothed_loss if label_smoothing else next_token_loss
    return with_weight_penalty(objective, squared_weights)


def with_weight_penalty(objective: Objective, strength: float) -> Objective:
    """Add `strength` times the mean squared weight to an objective (makemore, part 1)."""

    def penalized(model: Model, batch: Batch) -> Tensor:
        matrices = [p.flatten() for p in model.parameters() if p.ndim >= 2]
        return objective(model, batch) + strength * torch.cat(matrices).square().mean()

    return penalized if strength else objective
