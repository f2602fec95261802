"""One model in several processes: a copy in each (DDP), or a part of each layer (FSDP2)."""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moreish.config import TrainConfig
from moreish.data import Batch
from moreish.distributed import ProcessGroup, is_sharded
from moreish.errors import MoreishError
from moreish.models import Model
from moreish.training.objectives import Objective

MAX_STATE_SHARE = 0.7
"""Share of a device's memory that weights, gradients and moments may take, for each device to have
a copy: the rest is for activations."""

BYTES_PER_PARAMETER = 16
"""Of a parameter in training: float32, its gradient, and AdamW's two moments."""


def should_shard(model: Model, config: TrainConfig, group: ProcessGroup, memory: float) -> bool:
    """Whether to spread the weights over the processes, as the settings want or `memory` (bytes of
    each process) demands."""
    if config.parallel != "auto":
        return config.parallel == "fsdp" and group.size > 1
    needed = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
    return group.size > 1 and needed > MAX_STATE_SHARE * memory


def shard_model(
    model: Model, config: TrainConfig, group: ProcessGroup, device: torch.device
) -> None:
    """Leave of every weight a part in each process (Zhao et al. 2023, "PyTorch FSDP"). Layers are
    put together one at a time when they are needed, and taken apart again.

    Raises:
        MoreishError: the objective asks for all weights at once.
    """
    if config.squared_weights:
        raise MoreishError(
            "train.squared_weights asks for all weights in each process: --set train.parallel=ddp, "
            "or train.weight_decay in its place"
        )
    from torch.distributed.device_mesh import init_device_mesh  # takes most of a second
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # What layers return may be views, and nothing here changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    mesh = init_device_mesh(device.type, (group.size,))
    for stack in (module for module in model.modules() if isinstance(module, nn.ModuleList)):
        for layer in stack:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "training_logits")


class LossModule(nn.Module):
    """An objective as a module, which is what DDP takes."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        return self.objective(self.model, batch)


class DataParallelLoss:
    """The loss of a model whose copies, one in each process, hear of each other's gradients."""

    def __init__(self, model: Model, objective: Objective, group: ProcessGroup) -> None:
        self.loss: nn.Module = LossModule(model, objective)
        self.joined: DistributedDataParallel | None = None
        if group.size > 1 and not is_sharded(model):
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                # PyTorch 2.13 has a new name for this, which older ones do not know.
                self.joined = DistributedDataParallel(self.loss, broadcast_buffers=False)

    def __call__(self, batch: Batch) -> Tensor:
        return (self.joined or self.loss)(batch)

    def apart(self, asked: bool) -> AbstractContextManager[None]:
        """While open, gradients stay where they are, if so `asked`: there will be more of them."""
        return self.joined.no_sync() if asked and self.joined is not None else nullcontext()
