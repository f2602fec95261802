"""Sharding a model over several processes (FSDP2)."""

import warnings

import torch
from torch import nn

from moreish.config import TrainConfig
from moreish.distributed import ProcessGroup
from moreish.errors import MoreishError
from moreish.models import Model

MAX_STATE_SHARE = 0.7
"""Share of a device's memory that weights, gradients and moments may take with DDP; the rest is for
activations."""

BYTES_PER_PARAMETER = 16
"""Memory of a parameter in training: float32, its gradient, and AdamW's two moments."""


def should_shard(model: Model, config: TrainConfig, group: ProcessGroup, memory: float) -> bool:
    """Whether to shard the weights, as requested or because `memory` (bytes of each process) is too
    small for all of them."""
    if group.size == 1 or config.parallel != "auto":
        return config.parallel == "fsdp" and group.size > 1
    needed = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
    return needed > MAX_STATE_SHARE * memory


def shard_model(
    model: Model, config: TrainConfig, group: ProcessGroup, device: torch.device
) -> None:
    """Shard every weight over the processes (Zhao et al. 2023, "PyTorch FSDP"); each layer is
    gathered when it is needed.

    Raises:
        MoreishError: the objective needs all weights at once.
    """
    if config.squared_weights:
        raise MoreishError(
            "train.squared_weights needs all weights in each process: --set train.parallel=ddp, "
            "or train.weight_decay in its place"
        )
    from torch.distributed.device_mesh import init_device_mesh  # takes most of a second
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # The outputs of layers may be views, and nothing here changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    mesh = init_device_mesh(device.type, (group.size,))
    for layers in (module for module in model.modules() if isinstance(module, nn.ModuleList)):
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "training_logits")
