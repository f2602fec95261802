"""Optimizers. A new one is one function and one line in `REGISTRY`.

N matrices of one shape, R rows, C columns.
"""

import math
from collections.abc import Callable, Iterable, Mapping
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
from moreish.training.precision import FUSED_DEVICES

MUON_LR = 0.03
"""Default learning rate of Muon, for matrices of any shape: its updates have the same size.
Its AdamW part uses it too: with linear decay to zero, six times the usual rate learns faster."""

NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients of the odd polynomials that bring singular values near one (Jordan 2024)."""

MAX_BATCHED_ELEMENTS = 1 << 22
"""Largest number of elements that are orthogonalized in one batch: 16 MB, of which some copies are
made. Only small matrices gain from batching."""


def parameter_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters so that weight decay applies to matrices, not to biases and norms."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, config: TrainConfig, *, fused: bool) -> Optimizer:
    """Create AdamW (Loshchilov and Hutter 2019)."""
    groups = parameter_groups(model.parameters(), config.weight_decay)
    return AdamW(groups, betas=(config.beta1, config.beta2), fused=fused)


def sgd(model: nn.Module, config: TrainConfig, *, fused: bool) -> Optimizer:
    """Create stochastic gradient descent, with momentum if that is set."""
    groups = parameter_groups(model.parameters(), config.weight_decay)
    return SGD(groups, lr=1.0, momentum=config.momentum, fused=fused)


def muon(model: nn.Module, config: TrainConfig, *, fused: bool) -> Optimizer:
    """Create Muon for hidden matrices, with AdamW for all else (Jordan 2024)."""
    matrices = hidden_matrices(model)
    own = {id(matrix) for matrix in matrices}
    rest = (p for p in model.parameters() if id(p) not in own)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "muon": True},
        *({**group, "muon": False} for group in parameter_groups(rest, config.weight_decay)),
    ]
    return Muon(groups if matrices else groups[1:], betas=(config.beta1, config.beta2), fused=fused)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Return the weights of linear layers between hidden vectors. Those of embeddings, auxiliary
    features and heads are excluded: they need a learning rate for each token."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.split(".")[-1] not in ("head", "lm_head", "direct", "feature_projection")
    ]


class Muon(AdamW):
    """Orthogonalized momentum in groups marked `muon` (Jordan 2024, "Muon"); AdamW in others."""

    MOMENTUM = 0.95

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step. AdamW skips the matrices of Muon, whose gradients are None by then."""
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
                state["step"] = torch.tensor(0.0)  # AdamW requires it in a checkpoint
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
    """Approximate the nearest matrices with orthonormal rows (R <= C): singular values lie between
    0.7 and 1.2. The computation is in float32, and on GPUs in bfloat16."""
    x_NRC = x_NRC / (x_NRC.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x_NRC.is_cuda:
        x_NRC = x_NRC.bfloat16()
    for a, b, c in NEWTON_SCHULZ:
        gram_NRR = x_NRC @ x_NRC.mT
        factor_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, factor_NRR, x_NRC, beta=a)
    return x_NRC


REGISTRY: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"adamw": adamw, "sgd": sgd, "muon": muon}
)


def check_optimizer(name: str) -> None:
    """Check the name of an optimizer. Raises MoreishError when it is unknown."""
    if name not in REGISTRY:
        raise MoreishError(f"unknown optimizer '{name}': {nearest(name, REGISTRY)}")


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Create the optimizer that the settings name; `set_lr` must be called before each step."""
    check_optimizer(config.optimizer)
    is_fused = all(p.device.type in FUSED_DEVICES for p in model.parameters())
    return REGISTRY[config.optimizer](model, config, fused=is_fused)


def optimizer_state_bytes(model: nn.Module, config: TrainConfig) -> int:
    """Return the size of the optimizer state, which checkpoints contain."""
    weights = sum(p.nbytes for p in model.parameters())
    if config.optimizer == "sgd":
        return weights if config.momentum else 0
    matrices = hidden_matrices(model) if config.optimizer == "muon" else []
    return 2 * weights - sum(matrix.nbytes for matrix in matrices)


def optimizer_memory(model: nn.Module, config: TrainConfig) -> int:
    """Return the memory of the optimizer state and of the optimizer's workspace, in bytes."""
    weights = sum(p.nbytes for p in model.parameters())
    matrices = hidden_matrices(model) if config.optimizer == "muon" else []
    batch = max(
        (max(p.nbytes, min(4 * MAX_BATCHED_ELEMENTS, weights)) for p in matrices), default=0
    )
    return optimizer_state_bytes(model, config) + 4 * batch


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def default_lr(model: Model, optimizer: str) -> float:
    """Return the peak learning rate that is used where the settings name none."""
    return MUON_LR if optimizer == "muon" else model.learning_rate


def optimizer_tensors(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer state as tensors named `parameter.slot`."""
    return {
        f"{index}.{slot}": value
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore the optimizer state from the result of `optimizer_tensors`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, slot = key.partition(".")
        state.setdefault(int(index), {})[slot] = shard_like(tensor, parameters[int(index)])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
