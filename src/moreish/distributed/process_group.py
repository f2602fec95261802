"""The processes that train one model together: those that `torchrun` starts, or this one alone.

All of them run the same program with the same settings. Only the main process (rank 0) reads,
writes and prints; it broadcasts what only it has (the time, a signal, a path), so that all of
them take the same decisions.
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

from moreish.errors import MoreishError, PeerLostError, one_line

TIMEOUT = timedelta(hours=2)
"""How long the other processes wait for the main one, which may have to read a large text."""

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that `torchrun` (or another launcher) sets."""


@dataclass(frozen=True)
class ProcessGroup:
    """All processes of a training run, as this process sees them."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reads, writes and prints."""
        return self.rank == 0

    def broadcast(self, number: float) -> float:
        """Return the number of the main process."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(tensor, src=0)
        return tensor.item()

    def seconds_since(self, start: float) -> float:
        """Return the seconds since `start` by the clock of the main process."""
        return self.broadcast(time.perf_counter() - start)

    def broadcast_text(self, text: str) -> str:
        """Return the text of the main process.

        It is sent as a tensor, because `broadcast_object_list` unpickles, which can run code.
        """
        if self.size == 1:
            return text
        content = bytearray(text.encode() + b".")  # a tensor needs at least one byte
        length = int(self.broadcast(len(content)))
        tensor = torch.frombuffer(content.ljust(length)[:length], dtype=torch.uint8)
        dist.broadcast(tensor, src=0)
        return tensor.numpy().tobytes()[:-1].decode()

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in at least one process."""
        return bool(self.all_reduce(torch.tensor(float(flag))))

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum `tensor` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor


SINGLE_PROCESS = ProcessGroup()


def launched_world_size() -> int:
    """Return the number of processes of the run, also before they have joined a group."""
    is_launched = all(name in os.environ for name in LAUNCHER_VARIABLES)
    return int(os.environ["WORLD_SIZE"]) if is_launched else 1


def is_main_process() -> bool:
    """Return whether this is the main process, also before it has joined a group."""
    return launched_world_size() == 1 or int(os.environ["RANK"]) == 0


def restart_count() -> int:
    """Return how often the launcher has restarted this job because a process died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def may_restart() -> bool:
    """Return whether the launcher restarts this job if a process dies."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that the launcher has started, if there is a launcher.

    The backend is NCCL for tensors on CUDA GPUs and gloo for those on CPUs. The group is joined
    once and left when the process ends, because it cannot be joined again.

    Raises:
        MoreishError: the other processes cannot be reached.
        PeerLostError: one of them died.
    """
    if launched_world_size() == 1:
        yield SINGLE_PROCESS
        return
    if not dist.is_initialized():
        _initialize()
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "peer" not in str(error):
            raise
        raise PeerLostError(f"another process of this run died: {one_line(error)}") from None


def _initialize() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # A restart must not find the addresses of the processes before it.
        store = PrefixStore(f"moreish/{restart_count()}", store)
        dist.init_process_group(store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MoreishError(
            f"the processes could not form a process group: {one_line(error)}"
        ) from None
    atexit.register(_leave)


def _leave() -> None:
    """Leave the group before Python ends.

    A thread of gloo that frees a tensor later aborts the process (pytorch/pytorch#179291), and
    reference cycles would keep such threads alive.
    """
    gc.collect()
    dist.destroy_process_group()


def local_rank() -> int:
    """Return the number of this process among those on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return the number of processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched_world_size() > 1 else 1


def is_sharded(thing: Tensor | nn.Module) -> bool:
    """Return whether a tensor, or a parameter of a model, is divided among the processes."""
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor  # takes most of a second

    tensors = [thing] if isinstance(thing, Tensor) else thing.parameters()
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be sharded; a collective operation."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def gather_full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather all tensors on the main process, which is about to write them; collective.

    Sharded tensors arrive on the CPU, because one GPU may not hold all of them. The other processes
    get only the tensors that are not sharded.
    """
    gathered = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor)
        if not is_sharded(tensor):
            gathered[name] = tensor
        elif dist.get_rank() == 0:
            gathered[name] = full.cpu()
    return gathered


def local_tensor(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or all of a tensor that is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard_like(tensor: Tensor, model: Tensor) -> Tensor:
    """Shard a full `tensor` as `model` is sharded, if it is and has the same shape."""
    if not is_sharded(model) or tensor.shape != model.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = model
    moved = tensor.detach().to(model.device)
    return distribute_tensor(moved, sharded.device_mesh, sharded.placements, src_data_rank=None)


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load full tensors into a model that may be sharded. Raises as `load_state_dict`."""
    own = model.state_dict()
    model.load_state_dict(
        {name: shard_like(tensor, own.get(name, tensor)) for name, tensor in state.items()}
    )
