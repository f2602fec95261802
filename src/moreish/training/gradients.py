"""The gradient of a batch: micro-batches, precision, compilation, and several processes."""

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moreish.config import TrainConfig
from moreish.data import Batch
from moreish.distributed import SINGLE_PROCESS, ProcessGroup, is_sharded
from moreish.models import Model
from moreish.training.objectives import Objective
from moreish.training.precision import can_compile, resolve_precision


class LossModule(nn.Module):
    """An objective as a module, which DDP requires."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        return self.objective(self.model, batch)


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
        self.loss_module: nn.Module = LossModule(model, objective)
        if group.size > 1 and not is_sharded(model):
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                # PyTorch 2.13 deprecates this argument; older versions lack the new one.
                self.loss_module = DistributedDataParallel(
                    self.loss_module, broadcast_buffers=False
                )
        self.num_micro_batches = math.ceil(config.accumulate / group.size)
        precision = resolve_precision(config, device)
        self.autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        self.needs_loss_scaling = precision == torch.float16
        """Whether small gradients underflow unless the loss is scaled up."""

    def __call__(self, batch: Batch, scale: float = 1.0) -> Tensor:
        """Compute the loss of `batch`, of which every process takes its own rows.

        Each micro-batch is weighted by its targets, so that the sum is the mean over all targets.

        Args:
            batch: the batch of all processes.
            scale: a factor on the gradient.
        """
        rank, size = self.group.rank, self.group.size
        is_idle = rank >= len(batch.tokens_BT)  # it must still take part in collectives
        own = batch[:1] if is_idle else batch[rank::size]
        # The same number in each process, although some have one row more.
        number = max(1, min(self.num_micro_batches, len(batch.tokens_BT) // size))
        micro_batches = own.split(number)
        loss = torch.zeros((), device=self.device)
        for micro_batch in micro_batches:
            if isinstance(self.loss_module, DistributedDataParallel):
                self.loss_module.require_backward_grad_sync = micro_batch is micro_batches[-1]
            with self.autocast:
                micro_loss = self.loss_module(micro_batch.to(self.device))
            weight = 0.0 if is_idle else micro_batch.num_targets / batch.num_targets
            micro_loss = micro_loss * weight
            # DDP averages the gradients of the processes, and their sum is needed.
            (micro_loss if size * scale == 1 else micro_loss * (size * scale)).backward()
            loss += micro_loss.detach()
        return self.group.all_reduce(loss)
