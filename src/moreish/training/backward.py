"""Gradients of a batch, in the parts and the precision that the settings want."""

import os
import shutil

import torch
from torch import Tensor

from moreish.config import TrainConfig
from moreish.data.tokens import Batch
from moreish.errors import MoreishError
from moreish.models import Model
from moreish.training.objective import Objective


class Backward:
    """Adds the gradient of `objective` on a batch to those of the model's parameters."""

    def __init__(
        self, model: Model, objective: Objective, config: TrainConfig, device: torch.device
    ) -> None:
        self.model, self.device = model, device
        self.objective = compiled(objective, device) if config.compile else objective
        self.accumulate = config.accumulate
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=in_bfloat16(config.precision, device)
        )

    def __call__(self, batch: Batch) -> Tensor:
        """Returns the loss of `batch`. Each of its parts weighs as much as it has targets, so that
        the sum is the mean over all of them."""
        loss = torch.zeros((), device=self.device)
        for part in batch.parts(self.accumulate):
            with self.autocast:
                share = self.objective(self.model, part.to(self.device))
            share = share * (part.scored / batch.scored)
            share.backward()
            loss += share.detach()
        return loss


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products are in bfloat16; "auto" wants it where the device is made for it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def compiled(objective: Objective, device: torch.device) -> Objective:
    """`objective`, to be compiled with the model when it is first called.

    Raises:
        MoreishError: it is for a CPU, and there is no C++ compiler.
    """
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise MoreishError("train.compile needs a C++ compiler, such as g++: there is none here")
    fast: Objective = torch.compile(objective)
    return fast
