"""Exact losses over a whole split, on one ruler for every model and tokenizer.

B batch, T time, U units.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from moreish.data import IGNORE_INDEX, Batch, TokenDataset, Windows, count_tokens
from moreish.distributed import SINGLE_PROCESS, ProcessGroup
from moreish.errors import MoreishError
from moreish.evaluate.loss import token_losses
from moreish.models import Model
from moreish.tokenizers import Tokenizer

BATCH_POSITIONS = 4_096
"""Positions that one forward pass evaluates: few enough that a CPU keeps them in its cache,
which is 1.6 times as fast as 16,384. The result does not depend on it."""

BATCH_LOGITS = 2**24
"""Logits that one forward pass makes, where the vocabulary is large: 64 MB of them."""

BATCH_NUMBERS = 2**21
"""Numbers of the widest layer in one forward pass: 8 MB of them."""

GPU_NUMBERS = 16
"""Numbers that a GPU holds at a time for every number of a position's widest vector, about: halving
a pass mends a guess that was too low."""

WINDOW = 512
"""Positions a pass scores where the model itself sets no limit."""

STDERR_BLOCK = 256
"""Tokens of running text that count as one observation in the standard error: neighbouring tokens
are not independent. In a list every item is one."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The loss of one split. `stderr` is the standard error of `loss`, by item or by stretch."""

    loss: float
    stderr: float
    bits_per_char: float
    """NaN, like those of bytes, where there are unknown words: what they are was not predicted."""
    bits_per_byte: float
    perplexity: float
    tokens: int

    def as_json(self) -> dict[str, float | int | None]:
        """JSON has no infinity and no NaN: they become null."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Back from `as_json`. A null is infinity, in an error NaN, and in bits too where the loss
        is finite."""
        lost = {"stderr": math.nan}
        if data["loss"] is not None:
            lost |= {"bits_per_char": math.nan, "bits_per_byte": math.nan}
        known: dict[str, Any] = {
            k: lost.get(k, math.inf) if v is None else v for k, v in data.items()
        }
        return cls(**known)


def format_bits(value: float) -> str:
    """Bits per character or byte; a dash where words are unknown, so that nobody can tell."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def evaluation_spans(model: Model, tokens: TokenDataset, stride: int | None = None) -> Windows:
    """How a split is cut so that every token is predicted once.

    Items start afresh. A model that sees only its context of K tokens gets K - 1 of them again
    before each further piece, so that the cuts change nothing. A model with a limited length gets
    consecutive windows of that length; a `stride` below it lets windows overlap, and scores in
    each only the last `stride` predictions, which then have more past.

    Raises:
        MoreishError: `stride` is not between 1 and the context.
    """
    if model.max_length is None:
        if stride is not None:
            raise MoreishError(
                f"--stride {stride}: this model has no windows, each token sees all of its context"
            )
        return tokens.windows(WINDOW + model.context - 1, model.context - 1)
    stride = model.max_length if stride is None else stride
    if not 1 <= stride <= model.max_length:
        raise MoreishError(f"--stride {stride}: give 1 to {model.max_length}, the context")
    return tokens.windows(model.max_length, model.max_length - stride)


def evaluation_batches(
    model: Model, tokens: TokenDataset, spans: Windows, group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[tuple[Windows, Batch]]:
    """All spans, in batches of like length. Of several processes each has its own, and as many as
    the others, where needed one of which nothing is scored: layers in parts need all of them."""
    positions = int(group.broadcast(batch_positions(model)))
    spans = spans[np.argsort(-spans.length_W, kind="stable")]
    groups, first = [], 0
    while first < len(spans):
        rows = max(1, positions // int(spans.length_W[first]))
        groups.append(spans[first : first + rows])
        first += rows
    for first in range(0, len(groups), group.size):
        chosen = groups[min(first + group.rank, len(groups) - 1)]
        if first + group.rank >= len(groups):
            chosen = replace(chosen, skip_W=chosen.length_W)
        yield chosen, tokens.gather(chosen)


def batch_positions(model: Model) -> int:
    """Positions in one forward pass: few on a CPU, for its cache; on a GPU as many as should fit
    into its memory."""
    device = device_of(model)
    if device.type != "cuda":
        layers = [part.out_features for part in model.modules() if isinstance(part, nn.Linear)]
        fitting = BATCH_NUMBERS // max(layers, default=1)
        return max(1, min(BATCH_POSITIONS, BATCH_LOGITS // model.vocab_size, fitting))
    widest = max(model.vocab_size, *(max(p.shape) for p in model.parameters()))
    free, _ = torch.cuda.mem_get_info(device)
    # No tensor of more numbers than 32 bits count, which some kernels rely on.
    return max(1, min(free // (4 * GPU_NUMBERS), 2**31) // widest)


def device_of(model: Model) -> torch.device:
    """Where the model is; one without parameters is on the CPU."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def batch_losses(model: Model, batch: Batch, parts: int) -> tuple[NDArray[np.float32], int]:
    """(B, T) the losses of `batch`, taken in `parts`, or in twice as many until the memory of the
    GPU holds each; and how many these were, to begin the next batch with."""
    device = device_of(model)
    while True:
        try:
            losses = []
            for part in batch.split(parts):
                there = part.to(device)
                losses.append(token_losses(model(there.tokens_BT)[0], there.targets_BT).cpu())
            return torch.cat(losses).numpy(), parts
        except torch.OutOfMemoryError:
            if parts >= len(batch.tokens_BT):
                raise
            parts *= 2


@torch.inference_mode()
def evaluate_losses(
    model: Model,
    tokens: TokenDataset,
    stride: int | None = None,
    progress: Callable[[float], None] | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> NDArray[np.float32]:
    """(predictions,) the loss of each token but the first, in nats, in the order of the split.

    Args:
        progress: is told the share that is done.
        group: the processes that share the work; each has all losses then.
    """
    spans = evaluation_spans(model, tokens, stride)
    losses = np.zeros(tokens.num_predictions, dtype=np.float32)
    was_training = model.training
    model.eval()
    done, parts = 0, 1
    for chosen, batch in evaluation_batches(model, tokens, spans, group):
        losses_BT, parts = batch_losses(model, batch, parts)
        scored_BT = batch.targets_BT.numpy() != IGNORE_INDEX
        places_BT = chosen.start_W[:, None] + np.arange(losses_BT.shape[1])
        losses[places_BT[scored_BT]] = losses_BT[scored_BT]
        done += len(chosen) * group.size
        if progress is not None:
            progress(min(1.0, done / len(spans)))
    model.train(was_training)
    group.all_reduce(torch.from_numpy(losses))  # what others have scored is zero here
    return losses


def score(losses: NDArray[np.float32], tokens: TokenDataset, tokenizer: Tokenizer) -> Score:
    """Sum up the losses of a split."""
    exact = losses.astype(np.float64)
    total, count = float(exact.sum()), len(exact)
    predicted = count_tokens(tokens.ids_N, tokenizer.vocab_size)
    predicted[int(tokens.ids_N[0])] -= 1
    known = tokenizer.unk_id is None or predicted[tokenizer.unk_id] == 0
    bits = total / math.log(2) if known else math.nan
    mean = total / count
    return Score(
        loss=mean,
        stderr=_standard_error(exact, tokens),
        bits_per_char=bits / max(1, int(predicted @ tokenizer.char_lengths())),
        bits_per_byte=bits / int(predicted @ tokenizer.byte_lengths()),
        perplexity=math.exp(min(mean, 700.0)) if math.isfinite(mean) else math.inf,
        tokens=count,
    )


def _standard_error(losses: NDArray[np.float64], tokens: TokenDataset) -> float:
    """Of a ratio of sums over independent units (Cochran 1977, section 6.4); NaN for one unit."""
    starts_U, _ = (
        tokens.segments() if tokens.items else (np.arange(0, len(losses), STDERR_BLOCK), None)
    )
    units = len(starts_U)
    if units < 2 or not np.isfinite(losses).all():
        return math.nan
    sums_U = np.add.reduceat(losses, starts_U)
    sizes_U = np.diff(np.append(starts_U, len(losses)))
    residuals_U = sums_U - losses.mean() * sizes_U
    return math.sqrt(units / (units - 1) * float(residuals_U @ residuals_U)) / len(losses)
