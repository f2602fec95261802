"""What a training will need of memory, asked before it begins."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moreish.errors import MoreishError
from moreish.files import in_bytes
from moreish.training.loop import Trainer
from moreish.training.prepare import available_memory

WORKSPACE = 64e6
"""Bytes that the libraries for products take for themselves, and that lie between other blocks."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes, beside the weights, which are there already."""

    fixed: float
    """Of gradients, of the optimizer and of libraries."""
    row: float
    """Of what each row of a batch leaves for the way back."""
    rows: int

    def total(self, parts: int) -> float:
        """With batches that are taken in so many parts."""
        return self.fixed + self.row * math.ceil(self.rows / parts)


def needed(trainer: Trainer) -> Need:
    """From the forward pass of one row."""
    model, batch = trainer.model, trainer.sampler.batch(0)
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = len(batch.tokens_BT)
    row = batch[:1].to(trainer.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.objective(model.train(), row)
    del loss
    # On the way back the loss makes two more of what it was made of, and each layer one of its own.
    logits = 4 * row.tokens_BT.numel() * model.vocab_size
    weights = sum(p.nbytes for p in model.parameters())
    moments = {"sgd": float(trainer.config.momentum > 0)}.get(trainer.config.optimizer, 2.0)
    return Need(
        fixed=WORKSPACE + (1 + moments) * weights,
        row=1.1 * sum(kept.values()) + 2 * logits,
        rows=rows,
    )


def check_memory_of(trainer: Trainer) -> float:
    """How many bytes the training will need; raises MoreishError when there are not so many, and
    says what would fit."""
    need, parts = needed(trainer), trainer.config.accumulate
    free = free_memory(trainer.device)
    if need.total(parts) <= free:
        return need.total(parts)
    problem = (
        f"this training needs about {in_bytes(need.total(parts))} of memory, and {in_bytes(free)} "
        "are free"
    )
    more = [2**power for power in range(1, 1 + math.ceil(math.log2(need.rows or 1)))]
    for parts in (parts for parts in more if parts > trainer.config.accumulate):
        if need.total(parts) <= free:
            raise MoreishError(
                f"{problem}: --set train.accumulate={parts} takes each batch in {parts} parts, "
                f"for which {in_bytes(need.total(parts))} suffice"
            )
    raise MoreishError(f"{problem}: give the model fewer layers, less width or less --context")


def free_memory(device: torch.device) -> float:
    """Bytes that can be had on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(available_memory(), _of_container())


def _of_container() -> float:
    """What a container's limit leaves (Linux, cgroup 2)."""
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit = int((folder / "memory.max").read_text())
        return limit - int((folder / "memory.current").read_text())
    return math.inf
