"""Numbers that are not finite: what is done about them, and where they come from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from moreish.data import Batch
from moreish.errors import MoreishError
from moreish.models import Model
from moreish.training.objectives import Objective

MAX_SKIPPED_STEPS = 3
"""Steps in a row that may be left out before training goes back to its last checkpoint."""

MAX_ROLLBACKS = 3
"""Times that it goes back before it stops."""

ROLLBACK_LR_SCALE = 1 / 3
"""Times the rate, each time."""


class NonFiniteError(ArithmeticError):
    """The loss, a gradient or a weight is not finite."""


class DivergenceError(MoreishError):
    """Numbers stay infinite whatever is tried: more steps of this kind cannot help."""

    def __init__(self, message: str, batch: Batch | None = None) -> None:
        super().__init__(message)
        self.batch = batch


def locate_non_finite(model: Model, objective: Objective, batch: Batch) -> str:
    """Where numbers are first not finite, as the end of a sentence; empty if they all are finite.

    The weights are looked at first, then what each layer makes of `batch`, then what each hands
    back. Leaves the gradients of `batch` behind.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f", first in the weight {name}"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def back(gradient: Tensor) -> None:
            if not found and not _finite(gradient):
                found.append(f", first in the gradient that reaches {name}")

        def look(module: nn.Module, args: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f", first in what {name} makes")
            for tensor in output if isinstance(output, tuple | list) else [output]:
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(back)

        return look

    leaves = [(name, m) for name, m in model.named_modules() if name and not any(m.children())]
    hooks = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        loss = objective(model, batch)
        if not found:
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f", first in the gradient of {name}"
    return ""


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    return all(map(_finite, value)) if isinstance(value, tuple | list) else True
