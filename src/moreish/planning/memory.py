"""What a training will need of memory, asked before it begins."""

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
from moreish.training import Trainer, available_memory, checkpointable_models, optimizer_memory
from moreish.utils.files import format_bytes

WORKSPACE = 64e6
"""Bytes that the libraries for products take for themselves, and that lie between other blocks."""

KEPT_SHARE, LOGITS_BACK = 1.1, 2
"""On the way back each layer makes one more of its own, and the loss two of what it was made of."""

TABLES, COUNTING = 23, 100
"""Bytes that each distinct n-gram leaves in the tables, and that each of the longest takes while it
is counted (measured on random text)."""

SAMPLE = 1 << 20
"""Tokens from which the number of distinct n-grams is reckoned."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes, beside the weights, which are there already."""

    fixed: float
    """Of gradients, the optimizer and libraries, and of a copy of the weights for a trial."""
    row: float
    """Of what each row of a batch leaves for the way back."""
    rows: int

    def total(self, parts: int) -> float:
        """With batches that are taken in so many parts."""
        return self.fixed + self.row * math.ceil(self.rows / parts)


def needed(trainer: Trainer) -> Need:
    """From the forward pass of one row."""
    model, batch = trainer.model, trainer.sampler.batch(0)
    rows = math.ceil(len(batch.tokens_BT) / trainer.group.size)
    row = batch[:1].to(trainer.device)
    kept = _kept(trainer, row)
    for part in checkpointable_models(model):
        if not part.activation_checkpointing:
            continue
        # Outside of its layers as always; what goes into each; and one with all its gradients.
        assert isinstance(part, GPT)
        part.activation_checkpointing = False
        inside = _kept(trainer, row) - kept
        part.activation_checkpointing = True
        kept += 2 * inside / len(part.blocks)
        kept += 4 * row.tokens_BT.numel() * part.embedding.embedding_dim * len(part.blocks)
    logits = 4 * row.tokens_BT.numel() * model.vocab_size
    weights = sum(p.nbytes for p in model.parameters())
    copies = 1 + float(trainer.config.minutes is not None)
    return Need(
        fixed=WORKSPACE + copies * weights + optimizer_memory(model, trainer.config),
        row=KEPT_SHARE * kept + LOGITS_BACK * logits,
        rows=rows,
    )


def _kept(trainer: Trainer, row: Batch) -> float:
    """Bytes that the forward pass of `row` leaves for the way back."""
    model = trainer.model
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.objective(model.train(), row)
    del loss
    return sum(kept.values())


def check_training_memory(trainer: Trainer) -> float:
    """How many bytes the training will need; raises MoreishError when there are not so many, and
    says what would fit."""
    need, parts = needed(trainer), math.ceil(trainer.config.accumulate / trainer.group.size)
    free = free_memory(trainer.device)
    if need.total(parts) <= free:
        return need.total(parts)
    problem = (
        f"this training needs about {format_bytes(need.total(parts))} of memory, and "
        f"{format_bytes(free)} are free"
    )
    more = [2**power for power in range(1, 1 + (need.rows - 1).bit_length())]
    for part in (part for part in more if part > parts):
        if need.total(part) <= free:
            raise MoreishError(
                f"{problem}: --set train.accumulate={part * trainer.group.size} takes each batch "
                f"in {part * trainer.group.size} parts, for which {format_bytes(need.total(part))} "
                "suffice"
            )
    raise MoreishError(f"{problem}: give the model fewer layers, less width or less --context")


def check_counting_memory(model: Model, tokens: TokenDataset) -> None:
    """Raises MoreishError when the n-grams that `model` is to count are more than memory holds, and
    says which order would fit."""
    free = free_memory(torch.device("cpu"))
    folds = 1 + getattr(model, "folds", 0)
    for part in model.modules():
        if not isinstance(part, KneserNey | NGram):
            continue

        def need(order: int, distinct: float) -> float:
            shorter = sum(min(distinct, model.vocab_size**m) for m in range(1, order + 1))
            return folds * TABLES * shorter + COUNTING * distinct

        if need(part.order, tokens.num_predictions) <= free:
            continue  # whatever it holds
        found = need(part.order, expected_grams(tokens, part.order, model.vocab_size))
        if found <= free:
            continue
        fitting = [
            order
            for order in range(1, part.order)
            if need(order, expected_grams(tokens, order, model.vocab_size)) <= free
        ]
        name = "model.order" if part is model else "model.counts.order"
        advice = f"--set {name}={fitting[-1]} would fit" if fitting else "give less text"
        raise MoreishError(
            f"counting needs about {format_bytes(found)} of memory, and "
            f"{format_bytes(free)} are free: {advice}"
        )


def expected_grams(tokens: TokenDataset, order: int, vocab_size: int) -> float:
    """About how many distinct n-grams there are, from how they grow in the beginning: as a power of
    the length (Heaps 1978, section 7.5)."""
    sizes = [min(tokens.num_predictions, SAMPLE // part) for part in (4, 1)]
    few, many = (
        len(count_ngrams(replace(tokens, ids_N=tokens.ids_N[: size + 1]), order, vocab_size)[0])
        for size in sizes
    )
    if sizes[0] == sizes[1]:
        return many
    growth = math.log(many / few) / math.log(sizes[1] / sizes[0])
    return many * (tokens.num_predictions / sizes[1]) ** growth


def free_memory(device: torch.device) -> float:
    """Bytes that this process can have on `device`: of a machine's memory its share."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(available_memory(), _of_container()) / local_world_size()


def _of_container(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """What a container's limit leaves (Linux, cgroup 2)."""
    with suppress(OSError, ValueError):
        limit = int((folder / "memory.max").read_text())
        return limit - int((folder / "memory.current").read_text())
    return math.inf
