"""What happens when the loss, a gradient or a weight is not finite."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moreish.data import Batch
from moreish.errors import MoreishError
from moreish.models import Model
from moreish.training.objectives import Objective
from moreish.training.state import TrainState

MAX_SKIPPED_STEPS = 3
"""Consecutive steps that are skipped before the run is rolled back."""

MAX_ROLLBACKS = 3
"""Rollbacks before the run ends with `DivergenceError`."""

ROLLBACK_LR_SCALE = 1 / 3
"""Factor on the learning rate at each rollback."""


class NonFiniteError(ArithmeticError):
    """The loss, a gradient or a weight is not finite; `Trainer.train` answers with a rollback."""


class DivergenceError(MoreishError):
    """The run diverged, and rollbacks did not help."""

    def __init__(self, message: str, batch: Batch | None = None) -> None:
        """
        Args:
            message: what happened.
            batch: the batch whose loss or gradient is not finite, if there is one.
        """
        super().__init__(message)
        self.batch = batch


def continue_after_rollback(state: TrainState, before: TrainState) -> None:
    """Adjust a restored state in place: the time counts as spent, and the learning rate is lower.

    Args:
        state: the restored state.
        before: the state in which the run diverged.
    """
    lost = before.seconds - state.seconds
    state.seconds, state.overhead_seconds = state.seconds + lost, state.overhead_seconds + lost
    state.rollbacks = before.rollbacks + 1
    state.lr_scale = before.lr_scale * ROLLBACK_LR_SCALE
    state.best, state.best_step = before.best, before.best_step  # as in model.safetensors


def locate_non_finite(model: Model, objective: Objective, batch: Batch) -> str:
    """Find the first weight, layer output or gradient that is not finite.

    The weights are checked first, then each layer's output for `batch`, then the gradients. The
    gradients of `batch` are left in the parameters.

    Returns:
        The end of a sentence, such as ", first in the output of head"; empty if all are finite.
    """
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter):
            return f", first in the weight {name}"
    found: list[str] = []

    def check(value: Any, where: str) -> None:
        if not found and not _is_finite(value):
            found.append(f", first in {where}")

    def check_output(name: str, module: nn.Module, args: Any, output: Any) -> None:
        check(output, f"the output of {name}")
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(partial(check, where=f"the gradient of the output of {name}"))

    leaves = [(name, m) for name, m in model.named_modules() if name and not any(m.children())]
    hooks = [module.register_forward_hook(partial(check_output, name)) for name, module in leaves]
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
        if parameter.grad is not None and not _is_finite(parameter.grad):
            return f", first in the gradient of {name}"
    return ""


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    return all(map(_is_finite, value)) if isinstance(value, tuple | list) else True
