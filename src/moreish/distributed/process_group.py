"""The processes that train one model together: PyTorch's own (`torchrun`), or this one alone.

All of them run the same program on the same settings. The first one reads, writes and speaks; what
only it can know (the time, a signal, a path) it shares, so that all decide alike.
"""

import atexit
import gc
import os
import time
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

TIMEOUT = timedelta(hours=2)
"""That the others wait for the first, which may have a large text to read."""

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` (or another launcher) sets in the environment."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a training."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def broadcast(self, number: float) -> float:
        """The number that the first process has."""
        return number if self.size == 1 else self._said(torch.tensor(number).double()).item()

    def seconds_since(self, began: float) -> float:
        """Seconds since `began` by the main process's clock, so that all decide alike."""
        return self.broadcast(time.perf_counter() - began)

    def broadcast_text(self, text: str) -> str:
        """The text that the first process has; in numbers, since what is pickled is code."""
        if self.size == 1:
            return text
        content = torch.frombuffer(bytearray(text.encode() + b"."), dtype=torch.uint8)
        length = int(self.broadcast(len(content)))
        said = self._said(content if self.is_main else torch.empty(length, dtype=torch.uint8))
        return said.numpy().tobytes()[:-1].decode()

    @staticmethod
    def _said(tensor: Tensor) -> Tensor:
        dist.broadcast(tensor, src=0)
        return tensor

    def any(self, asked: bool) -> bool:
        """Whether one of them says yes."""
        return asked if self.size == 1 else bool(self.all_reduce(torch.tensor(float(asked))))

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """`tensor`, added up over all processes, in its place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor


SINGLE_PROCESS = ProcessGroup()


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return (
        all(name in os.environ for name in LAUNCHER_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1
    )


def is_main_process() -> bool:
    """Whether this process is the one that speaks; known before they have met."""
    return not is_launched() or int(os.environ["RANK"]) == 0


def restart_count() -> int:
    """How often the launcher has started this job anew because a process died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def may_restart() -> bool:
    """Whether the launcher would do that."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """While open, this process belongs to the group that its launcher has started, if there is one:
    by gloo where tensors are on CPUs, by NCCL where they are on CUDA GPUs. They meet once, and part
    when the process ends: those that have parted cannot meet again.

    Raises:
        MoreishError: the others cannot be reached.
        GoneError: one of them died.
    """
    if not is_launched():
        yield SINGLE_PROCESS
        return
    if not dist.is_initialized():
        _meet()
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "peer" not in str(error):
            raise
        raise GoneError(f"another process of this training is gone: {_in_short(error)}") from None


def _meet() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # A restart must not find where the processes before it could be reached.
        store = PrefixStore(f"moreish/{restart_count()}", store)
        dist.init_process_group(store=store, rank=rank, world_size=size, timeout=TIMEOUT)
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


def local_world_size() -> int:
    """How many processes of the training share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_launched() else 1


def launched_world_size() -> int:
    """How many processes of the training there are; known before they have met."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def is_sharded(thing: Tensor | nn.Module) -> bool:
    """Whether a tensor, or the weights of a model, lie in several processes, a part in each."""
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor  # takes most of a second

    if isinstance(thing, Tensor):
        return isinstance(thing, DTensor)
    return any(isinstance(parameter, DTensor) for parameter in thing.parameters())


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in parts; every process must ask."""
    found: Any = tensor
    return found.full_tensor() if is_sharded(tensor) else tensor


def gather_full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather all tensors on the main process, which is about to write them; collective.

    Sharded tensors arrive on the CPU, because one GPU may not hold all of them. The other processes
    get only the tensors that are not sharded.
    """
    found = {}
    for name, tensor in tensors.items():
        if not is_sharded(tensor):
            found[name] = tensor
            continue
        full = full_tensor(tensor)
        if dist.get_rank() == 0:
            found[name] = full.cpu()
    return found


def local_tensor(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process."""
    found: Any = tensor
    return found.to_local() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, model: Tensor) -> Tensor:
    """This process's part of a whole `tensor`, where `model` is in parts; else `tensor`."""
    if not is_sharded(model) or tensor.shape != model.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    there = tensor.detach().to(model.device)
    return distribute_tensor(there, model.device_mesh, model.placements, src_data_rank=None)


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put whole tensors into a model that may be in parts. Raises as `load_state_dict`."""
    own = model.state_dict()
    model.load_state_dict(
        {name: shard_like(tensor, own.get(name, tensor)) for name, tensor in state.items()}
    )


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
