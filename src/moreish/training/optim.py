"""Optimizers. A new one is one function and one line in `REGISTRY`.

N matrices of one shape, R rows, C columns.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from moreish.config import TrainConfig
from moreish.distributed import full_tensor, shard_like
from moreish.errors import MoreishError, nearest
from moreish.models import Model
from moreish.training.precision import FUSED

MUON_LR = 0.03
"""Suits matrices of any shape, since what Muon adds to each has the same size. AdamW beside it has
the same, six times its own where it is alone: with linear decay to nothing, that learns faster."""

NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of the odd polynomials that drive singular values to about one (Jordan 2024)."""

MAX_BATCHED_ELEMENTS = 1 << 22
"""Numbers in the matrices that are made orthogonal at once: 16 MB, of which some copies are made.
Small matrices gain by being together; large ones do not."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def fused(groups: list[dict[str, Any]]) -> bool:
    """Whether the whole update can be one kernel where the parameters are."""
    return all(p.device.type in FUSED for group in groups for p in group["params"])


def adamw(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Loshchilov and Hutter 2019."""
    groups = parameter_groups(model, config.weight_decay)
    return AdamW(groups, betas=(config.beta1, config.beta2), fused=fused(groups))


def sgd(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Plain gradient descent, with momentum if asked for."""
    groups = parameter_groups(model, config.weight_decay)
    return SGD(groups, lr=1.0, momentum=config.momentum, fused=fused(groups))


def muon(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Jordan 2024: hidden matrices by Muon, everything else by AdamW."""
    matrices = hidden_matrices(model)
    own = {id(matrix) for matrix in matrices}
    rest = [
        {**group, "params": [p for p in group["params"] if id(p) not in own]}
        for group in parameter_groups(model, config.weight_decay)
    ]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "muon": True},
        *({**group, "muon": False} for group in rest),
    ]
    groups = [group for group in groups if group["params"]]
    return Muon(groups, betas=(config.beta1, config.beta2), fused=fused(groups))


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of linear layers between vectors of the model's own; not those that begin or end
    at tokens, embeddings, auxiliary features and heads, which want a rate for each token."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.split(".")[-1] not in ("head", "lm_head", "direct", "feature_projection")
    ]


class Muon(AdamW):
    """In groups marked `muon`, momentum made orthogonal (Jordan 2024, "Muon"); AdamW in others."""

    MOMENTUM = 0.95

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update. AdamW passes over what Muon has changed, since it finds no gradient there."""
        for group in self.param_groups:
            if group["muon"]:
                self._step_matrices(group)
        return super().step(closure)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for matrix in group["params"]:
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
                state["step"] = torch.tensor(0.0)  # AdamW expects one when it reads a checkpoint
            momentum = state["momentum"]
            state["step"] += 1
            momentum.lerp_(matrix.grad, 1 - self.MOMENTUM)
            update = full_tensor(matrix.grad.lerp(momentum, self.MOMENTUM))  # Nesterov's
            matrix.grad = None
            if update.shape[0] > update.shape[1]:
                update = update.mT
            by_shape.setdefault(tuple(update.shape), []).append((matrix, update))
        for shape, same in by_shape.items():
            count = max(1, MAX_BATCHED_ELEMENTS // math.prod(shape))
            for some in (same[first : first + count] for first in range(0, len(same), count)):
                updates_NRC = orthogonalize(torch.stack([update for _, update in some]))
                for (matrix, _), update in zip(some, updates_NRC, strict=True):
                    rows, columns = matrix.shape
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(
                        shard_like(update.mT if rows > columns else update, matrix),
                        alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5,
                    )


def orthogonalize(x_NRC: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
    """The nearest matrices with orthonormal rows (R <= C), roughly: singular values lie between 0.7
    and 1.2. All matrices of one shape at once; in float32, except on GPUs."""
    x_NRC = x_NRC / (x_NRC.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x_NRC.is_cuda:
        x_NRC = x_NRC.bfloat16()
    for a, b, c in NEWTON_SCHULZ:
        gram_NRR = x_NRC @ x_NRC.mT
        factor_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, factor_NRR, x_NRC, beta=a)
    return x_NRC


REGISTRY: Mapping[str, Callable[[nn.Module, TrainConfig], Optimizer]] = MappingProxyType(
    {"adamw": adamw, "sgd": sgd, "muon": muon}
)


def check_optimizer(name: str) -> None:
    """Raises MoreishError when there is no such optimizer; the nearest is named."""
    if name not in REGISTRY:
        raise MoreishError(f"unknown optimizer '{name}': {nearest(name, REGISTRY)}")


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer that `config.optimizer` names, its rate to be set at each step.

    Raises:
        MoreishError: there is no such optimizer; the nearest is named.
    """
    check_optimizer(config.optimizer)
    return REGISTRY[config.optimizer](model, config)


def optimizer_state_bytes(model: nn.Module, config: TrainConfig) -> int:
    """Bytes of the optimizer's moments, which its checkpoints hold."""
    weights = sum(p.nbytes for p in model.parameters())
    if config.optimizer == "sgd":
        return weights if config.momentum else 0
    matrices = hidden_matrices(model) if config.optimizer == "muon" else []
    return 2 * weights - sum(matrix.nbytes for matrix in matrices)


def optimizer_memory(model: nn.Module, config: TrainConfig) -> int:
    """Bytes of the optimizer's moments, and of what it works with."""
    weights = sum(p.nbytes for p in model.parameters())
    matrices = hidden_matrices(model) if config.optimizer == "muon" else []
    together = max(
        (max(p.nbytes, min(4 * MAX_BATCHED_ELEMENTS, weights)) for p in matrices), default=0
    )
    return optimizer_state_bytes(model, config) + 4 * together


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def default_lr(model: Model, optimizer: str) -> float:
    """The highest learning rate that suits a model, where the user names none."""
    return MUON_LR if optimizer == "muon" else model.learning_rate


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
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, slot = key.partition(".")
        part = shard_like(tensor, parameters[int(index)])
        state.setdefault(int(index), {})[slot] = part
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
