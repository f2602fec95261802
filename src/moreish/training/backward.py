"""Gradients of a batch, in the parts and the precision that the settings want."""

import math
import os
import shutil

import torch
from torch import Tensor

from moreish.config import TrainConfig
from moreish.data.tokens import Batch
from moreish.errors import MoreishError
from moreish.models import Model
from moreish.training.objective import Objective
from moreish.training.parallel import Copies
from moreish.world import ALONE, World


class Backward:
    """Adds the gradient of `objective` on a batch to those of the model's parameters."""

    def __init__(
        self,
        model: Model,
        objective: Objective,
        config: TrainConfig,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.device, self.world = device, world
        objective = compiled(objective, device) if config.compile else objective
        self.loss = Copies(model, objective, world)
        self.parts = math.ceil(config.accumulate / world.size)
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=in_bfloat16(config.precision, device)
        )

    def __call__(self, batch: Batch) -> Tensor:
        """Returns the loss of `batch`, of which every process takes its rows. Each of the parts
        weighs as much as it has targets, so that the sum is the mean over all of them."""
        rank, size = self.world.rank, self.world.size
        idle = rank >= len(batch.tokens_BT)  # it keeps step with the others all the same
        own = batch[:1] if idle else batch[rank::size]
        # As many in each process, although some have a row more.
        parts = own.parts(max(1, min(self.parts, len(batch.tokens_BT) // size)))
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self.loss.apart(number < len(parts)):
                with self.autocast:
                    share = self.loss(part.to(self.device))
                share = share * (0.0 if idle else part.scored / batch.scored)
                # The processes' gradients are averaged, and wanted is their sum.
                (share if size == 1 else share * size).backward()
            loss += share.detach()
        return self.world.sum(loss)


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
