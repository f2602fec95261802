"""Checks that memory suffices before training or counting starts."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from moreish.data import Batch, TokenDataset
from moreish.distributed import local_world_size
from moreish.errors import MoreishError
from moreish.models import GPT, KneserNey, Model, NGram, count_ngrams
from moreish.training import Trainer, checkpointable_models, optimizer_memory
from moreish.utils.files import format_bytes
from moreish.utils.platforms import available_memory

WORKSPACE = 64e6
"""Bytes for the workspace of libraries and for fragmentation."""

SAVED_FACTOR = 1.1
"""Factor on the saved activations: the backward pass makes one more of each layer."""

LOGITS_FACTOR = 2
"""Factor on the logits: the loss makes two more tensors of their size."""

NGRAM_BYTES = 23
"""Bytes of a distinct n-gram in the tables (measured on random text)."""

COUNTING_BYTES = 100
"""Bytes of a distinct n-gram of the longest order while it is counted (measured likewise)."""

MAX_SAMPLED_TOKENS = 1 << 20
"""Tokens from which the number of distinct n-grams is extrapolated."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """The memory that training takes in bytes, besides the weights."""

    fixed: float
    """Gradients, optimizer state, libraries, and a copy of the weights for a trial."""
    row: float
    """What each row of a batch saves for the backward pass."""
    rows: int

    def total(self, micro_batches: int) -> float:
        return self.fixed + self.row * math.ceil(self.rows / micro_batches)


def measure_memory(trainer: Trainer) -> TrainingMemory:
    """Estimate the memory that training takes from the forward pass of one row."""
    model, batch = trainer.model, trainer.sampler.batch(0)
    row = batch[:1].to(trainer.device)
    saved = _saved_bytes(trainer, row)
    for part in checkpointable_models(model):
        if part.activation_checkpointing:
            # The input of each block, and all of one block with its gradients.
            assert isinstance(part, GPT)
            part.activation_checkpointing = False
            inside = _saved_bytes(trainer, row) - saved
            part.activation_checkpointing = True
            saved += 2 * inside / len(part.blocks)
            saved += 4 * row.tokens_BT.numel() * part.embedding.embedding_dim * len(part.blocks)
    logits = 4 * row.tokens_BT.numel() * model.vocab_size
    weights = sum(p.nbytes for p in model.parameters())
    copies = 2 if trainer.config.minutes is not None else 1
    return TrainingMemory(
        fixed=WORKSPACE + copies * weights + optimizer_memory(model, trainer.config),
        row=SAVED_FACTOR * saved + LOGITS_FACTOR * logits,
        rows=math.ceil(len(batch.tokens_BT) / trainer.group.size),
    )


def _saved_bytes(trainer: Trainer, row: Batch) -> float:
    """Return the bytes that autograd saves in the forward pass of `row`."""
    model = trainer.model
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        loss = trainer.objective(model.train(), row)
    del loss
    return sum(saved.values())


def check_training_memory(trainer: Trainer) -> float:
    """Return the estimated memory of training in bytes.

    Raises:
        MoreishError: less is free; the message says what would fit.
    """
    memory, processes = measure_memory(trainer), trainer.group.size
    micro_batches = math.ceil(trainer.config.accumulate / processes)
    needed, free = memory.total(micro_batches), free_memory(trainer.device)
    if needed <= free:
        return needed
    problem = (
        f"training needs about {format_bytes(needed)} of memory, and {format_bytes(free)} are free"
    )
    for power in range(1, 1 + (memory.rows - 1).bit_length()):
        if 2**power > micro_batches and memory.total(2**power) <= free:
            parts = 2**power * processes
            raise MoreishError(
                f"{problem}: --set train.accumulate={parts} takes each batch in {parts} parts, for "
                f"which {format_bytes(memory.total(2**power))} suffice"
            )
    raise MoreishError(f"{problem}: use fewer layers, less width or a smaller --context")


def check_counting_memory(model: Model, tokens: TokenDataset) -> None:
    """Check that the n-gram counts of `model` fit into memory.

    Raises:
        MoreishError: they do not; the message names an order that would fit.
    """
    free = free_memory(torch.device("cpu"))
    folds = 1 + getattr(model, "folds", 0)

    def needed(order: int, distinct: float) -> float:
        shorter = sum(min(distinct, model.vocab_size**m) for m in range(1, order + 1))
        return folds * NGRAM_BYTES * shorter + COUNTING_BYTES * distinct

    def expected(order: int) -> float:
        return needed(order, expected_ngrams(tokens, order, model.vocab_size))

    for part in model.modules():
        if not isinstance(part, KneserNey | NGram):
            continue
        if needed(part.order, tokens.num_predictions) <= free:  # whatever the text is
            continue
        if (estimate := expected(part.order)) <= free:
            continue
        fitting = [order for order in range(1, part.order) if expected(order) <= free]
        name = "model.order" if part is model else "model.counts.order"
        advice = f"--set {name}={fitting[-1]} would fit" if fitting else "use less text"
        raise MoreishError(
            f"counting needs about {format_bytes(estimate)} of memory, and "
            f"{format_bytes(free)} are free: {advice}"
        )


def expected_ngrams(tokens: TokenDataset, order: int, vocab_size: int) -> float:
    """Estimate the number of distinct n-grams from its growth at the beginning of the text, which
    is a power of the length (Heaps 1978, section 7.5)."""
    sizes = [min(tokens.num_predictions, MAX_SAMPLED_TOKENS // part) for part in (4, 1)]
    few, many = (
        len(count_ngrams(replace(tokens, ids_N=tokens.ids_N[: size + 1]), order, vocab_size)[0])
        for size in sizes
    )
    if sizes[0] == sizes[1]:
        return many
    growth = math.log(many / few) / math.log(sizes[1] / sizes[0])
    return many * (tokens.num_predictions / sizes[1]) ** growth


def free_memory(device: torch.device) -> float:
    """Return the free memory of `device` in bytes; of the machine's, the share of this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(available_memory(), container_memory()) / local_world_size()


def container_memory(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the free memory of a container in bytes (Linux, cgroup 2); infinite outside of one."""
    with suppress(OSError, ValueError):
        limit = int((folder / "memory.max").read_text())
        return limit - int((folder / "memory.current").read_text())
    return math.inf
