"""The processes that train one model together: PyTorch's own (`torchrun`), or this one alone.

All of them run the same program on the same settings. The first one reads, writes and speaks; what
only it can know (the time, a signal, a path) it shares, so that all decide alike.
"""

import atexit
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from moreish.errors import GoneError, MoreishError

PATIENCE = timedelta(hours=2)
"""That the others wait for the first, which may have a large text to read."""

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` (or another launcher) sets in the environment."""


@dataclass(frozen=True)
class World:
    """This process among those of a training."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def share(self, number: float) -> float:
        """The number that the first process has."""
        return number if self.size == 1 else self._said(torch.tensor(number).double()).item()

    def tell(self, text: str) -> str:
        """The text that the first process has; in numbers, since what is pickled is code."""
        if self.size == 1:
            return text
        content = torch.frombuffer(bytearray(text.encode() + b"."), dtype=torch.uint8)
        length = int(self.share(len(content)))
        said = self._said(content if self.first else torch.empty(length, dtype=torch.uint8))
        return said.numpy().tobytes()[:-1].decode()

    @staticmethod
    def _said(tensor: Tensor) -> Tensor:
        dist.broadcast(tensor, src=0)
        return tensor

    def any(self, asked: bool) -> bool:
        """Whether one of them says yes."""
        return asked if self.size == 1 else bool(self.sum(torch.tensor(float(asked))))

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor`, added up over all processes, in its place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor


ALONE = World()


def launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def first() -> bool:
    """Whether this process is the one that speaks; known before they have met."""
    return not launched() or int(os.environ["RANK"]) == 0


def restarts() -> int:
    """How often the launcher has started this job anew because a process died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def may_restart() -> bool:
    """Whether the launcher would do that."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


@contextmanager
def together() -> Iterator[World]:
    """While open, this process belongs to the group that its launcher has started, if there is one:
    by gloo where tensors are on CPUs, by NCCL where they are on CUDA GPUs. They meet once, and part
    when the process ends: those that have parted cannot meet again.

    Raises:
        MoreishError: the others cannot be reached.
        GoneError: one of them died.
    """
    if not launched():
        yield ALONE
        return
    if not dist.is_initialized():
        _meet()
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "peer" not in str(error):
            raise
        raise GoneError(f"another process of this training is gone: {_in_short(error)}") from None


def _meet() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # A restart must not find where the processes before it could be reached.
        store = PrefixStore(f"moreish/{restarts()}", store)
        dist.init_process_group(store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise MoreishError(f"the processes did not meet: {_in_short(error)}") from None
    atexit.register(_part)


def _part() -> None:
    """Before Python ends: a thread of gloo that lets go of a tensor after that aborts the process
    (pytorch/pytorch#179291). What is in cycles would keep such threads alive."""
    gc.collect()
    dist.destroy_process_group()


def local_rank() -> int:
    """The number of this process among those on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sharing() -> int:
    """How many processes of the training share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1


def launched_size() -> int:
    """How many processes of the training there are; known before they have met."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def parted(thing: Tensor | nn.Module) -> bool:
    """Whether a tensor, or the weights of a model, lie in several processes, a part in each."""
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor  # takes most of a second

    if isinstance(thing, Tensor):
        return isinstance(thing, DTensor)
    return any(isinstance(parameter, DTensor) for parameter in thing.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in parts; every process must ask."""
    found: Any = tensor
    return found.full_tensor() if parted(tensor) else tensor


def wholes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `whole`, for the first process to write; of what is in parts others have nothing then. It
    is on the CPU, since a GPU may not hold all of it."""
    found = {}
    for name, tensor in tensors.items():
        if not parted(tensor):
            found[name] = tensor
            continue
        full = whole(tensor)
        if dist.get_rank() == 0:
            found[name] = full.cpu()
    return found


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process."""
    found: Any = tensor
    return found.to_local() if parted(tensor) else tensor


def parted_like(tensor: Tensor, model: Tensor) -> Tensor:
    """This process's part of a whole `tensor`, where `model` is in parts; else `tensor`."""
    if not parted(model) or tensor.shape != model.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    there = tensor.detach().to(model.device)
    return distribute_tensor(there, model.device_mesh, model.placements, src_data_rank=None)


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put whole tensors into a model that may be in parts. Raises as `load_state_dict`."""
    own = model.state_dict()
    model.load_state_dict(
        {name: parted_like(tensor, own.get(name, tensor)) for name, tensor in state.items()}
    )


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
