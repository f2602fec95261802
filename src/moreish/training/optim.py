"""Optimizers. A new one is one function and one line in `REGISTRY`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from moreish.config import TrainConfig
from moreish.errors import MoreishError, nearest


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Loshchilov and Hutter 2019."""
    groups = parameter_groups(model, config.weight_decay)
    return AdamW(groups, betas=(config.beta1, config.beta2), fused=True)


def sgd(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Plain gradient descent, with momentum if asked for."""
    groups = parameter_groups(model, config.weight_decay)
    return SGD(groups, lr=1.0, momentum=config.momentum, fused=True)


REGISTRY: Mapping[str, Callable[[nn.Module, TrainConfig], Optimizer]] = MappingProxyType(
    {"adamw": adamw, "sgd": sgd}
)


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer that `config.optimizer` names, its rate to be set at each step.

    Raises:
        MoreishError: there is no such optimizer; the nearest is named.
    """
    if config.optimizer not in REGISTRY:
        hint = nearest(config.optimizer, REGISTRY)
        raise MoreishError(f"unknown optimizer '{config.optimizer}': {hint}")
    return REGISTRY[config.optimizer](model, config)


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_tensors(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's memory as named tensors, `parameter.slot`."""
    return {
        f"{index}.{slot}": value
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, slot = key.partition(".")
        state.setdefault(int(index), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
