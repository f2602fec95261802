"""Gradients of a batch, in the parts and the precision that the settings want."""

import math

import torch
from torch import Tensor

from moreish.config import TrainConfig
from moreish.data import Batch
from moreish.distributed import SINGLE_PROCESS, ProcessGroup
from moreish.models import Model
from moreish.training.objectives import Objective
from moreish.training.parallel import DataParallelLoss
from moreish.training.precision import can_compile, resolve_precision


class Backward:
    """Adds the gradient of `objective` on a batch to those of the model's parameters."""

    def __init__(
        self,
        model: Model,
        objective: Objective,
        config: TrainConfig,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.device, self.group = device, group
        if can_compile(config, device):
            objective = torch.compile(objective)
        self.loss = DataParallelLoss(model, objective, group)
        self.parts = math.ceil(config.accumulate / group.size)
        precision = resolve_precision(config, device)
        self.autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        self.needs_loss_scaling = precision == torch.float16
        """Whether small gradients underflow unless the loss is scaled up."""

    def __call__(self, batch: Batch, scale: float = 1.0) -> Tensor:
        """Returns the loss of `batch`, of which every process takes its rows. Each of the parts
        weighs as much as it has targets, so that the sum is the mean over all of them.

        Args:
            scale: times the gradient.
        """
        rank, size = self.group.rank, self.group.size
        idle = rank >= len(batch.tokens_BT)  # it keeps step with the others all the same
        own = batch[:1] if idle else batch[rank::size]
        # As many in each process, although some have a row more.
        parts = own.split(max(1, min(self.parts, len(batch.tokens_BT) // size)))
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            with self.loss.apart(number < len(parts)):
                with self.autocast:
                    share = self.loss(part.to(self.device))
                share = share * (0.0 if idle else part.num_targets / batch.num_targets)
                # The processes' gradients are averaged, and wanted is their sum.
                (share if size * scale == 1 else share * (size * scale)).backward()
            loss += share.detach()
        return self.group.all_reduce(loss)
