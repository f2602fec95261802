"""Exact losses over a whole split, comparable between models and tokenizers.

B batch, T positions, I items, U units of the standard error.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import (
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import nn

from moreish.data import IGNORE_INDEX, Batch, TokenDataset, Windows, count_tokens, iter_chunks
from moreish.distributed import SINGLE_PROCESS, ProcessGroup
from moreish.errors import MoreishError
from moreish.evaluate.loss import token_losses
from moreish.models import Model, State
from moreish.settings import Settings
from moreish.tokenizers import Ids, Tokenizer

BATCH_POSITIONS = 4_096
"""Positions per forward pass on a CPU. They fit into its cache, which is 1.6 times as fast as
16,384. The result does not depend on it."""

BATCH_LOGITS = 2**24
"""Maximum logits per forward pass: 64 MB."""

BATCH_ACTIVATIONS = 2**21
"""Maximum activations of the widest layer per forward pass: 8 MB."""

GPU_ACTIVATIONS = 16
"""Estimate of the numbers that a GPU holds per number of a position's widest vector; where it is
too low, the batch is split."""

WINDOW = 512
"""Positions scored per window if the model sets no limit."""

STDERR_BLOCK = 256
"""Tokens of running text that count as one observation in the standard error, since neighboring
tokens are not independent. In a list every item is one."""

TIMED_CALLS = 4
"""Calls after which the duration of reading a split is estimated."""


Number = Annotated[
    float, PlainSerializer(lambda x: x if math.isfinite(x) else None, when_used="json")
]
"""A number that is null in JSON if it is infinite or NaN."""


MAX_EXPONENT = 700.0
"""Losses above it have a perplexity that is no float64."""

UNSEEN = ("unseen_loss", "unseen_stderr", "unseen_tokens")
RUNNING = ("running_loss", "running_stderr")
ADAPTIVE = ("adaptive_loss", "code_bytes")
MEASURES = (
    *("exact_match", "accuracy", "macro_f1", "char_error_rate", "symbol_error_rate"),
    *("bleu", "chrf"),
)
EXAMPLES = (
    *(name for measure in MEASURES for name in (measure, f"{measure}_stderr")),
    *("calibration_error", "predicted"),
)
OPTIONAL = (*UNSEEN, *RUNNING, *ADAPTIVE, *EXAMPLES)
"""Fields of a `Score` that may be absent."""


def perplexity(loss: float) -> float:
    """Return the perplexity of a loss in nats per token."""
    return math.exp(min(loss, MAX_EXPONENT)) if math.isfinite(loss) else math.inf


class NewItems(NamedTuple):
    """The loss on the items of a list that are not in the training split."""

    loss: float
    stderr: float
    perplexity: float
    tokens: int


class Score(Settings):
    """The loss of one split in nats per token, and what follows from it; `stderr` is the standard
    error of `loss`, over items or blocks of text."""

    model_config = ConfigDict(allow_inf_nan=True)

    loss: Number
    stderr: Number
    bits_per_char: Number
    """NaN, as are bits per byte, if the split has unknown words, which have no known length."""
    bits_per_byte: Number
    perplexity: Number
    tokens: int
    unseen_loss: Number | None = None
    """The loss on the items of a list that are not in the training split; None where all are, and
    for running text."""
    unseen_stderr: Number | None = None
    unseen_tokens: int | None = None
    running_loss: Number | None = None
    """The loss where the state is carried through the split (`running_losses`), while `loss` is
    that of fresh windows; None where it was not computed."""
    running_stderr: Number | None = None
    adaptive_loss: Number | None = None
    """The same where a copy of the model learns from what it has read (`adaptive_losses`)."""
    code_bytes: int | None = None
    """Length of the split, arithmetic-coded with the model's probabilities, in bytes."""
    predicted: int | None = None
    """Number of examples whose targets were predicted for the measurements that follow."""
    exact_match: Number | None = None
    """Share of targets that are predicted exactly, where targets are not labels."""
    exact_match_stderr: Number | None = None
    accuracy: Number | None = None
    """Share of labels that are predicted."""
    accuracy_stderr: Number | None = None
    macro_f1: Number | None = None
    """Mean over the labels of the F1 score of each."""
    macro_f1_stderr: Number | None = None
    calibration_error: Number | None = None
    """Expected difference between the probability of a predicted label and its accuracy."""
    char_error_rate: Number | None = None
    """Edit distance of predicted and true targets per character of these."""
    char_error_rate_stderr: Number | None = None
    symbol_error_rate: Number | None = None
    """The same per symbol, where targets are sequences of symbols such as phonemes."""
    symbol_error_rate_stderr: Number | None = None
    bleu: Number | None = None
    """BLEU from 0 to 100, as sacrebleu computes it."""
    bleu_stderr: Number | None = None
    chrf: Number | None = None
    """chrF from 0 to 100, as sacrebleu computes it."""
    chrf_stderr: Number | None = None

    @property
    def new_items(self) -> NewItems | None:
        """The loss on new items where the split has others too; None otherwise."""
        loss, stderr, tokens = self.unseen_loss, self.unseen_stderr, self.unseen_tokens
        if loss is None or stderr is None or tokens is None or tokens == self.tokens:
            return None
        return NewItems(loss, stderr, perplexity(loss), tokens)

    def as_json(self) -> dict[str, float | int | None]:
        """Return a dictionary for JSON, with null for infinity and NaN."""
        return self.model_dump(mode="json")

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {name for name in OPTIONAL if getattr(self, name) is None}
        return {name: value for name, value in dump(self).items() if name not in absent}

    @model_validator(mode="before")
    @classmethod
    def _replace_null(cls, data: Any) -> Any:
        """Null is NaN in the error, and in the bits if the loss is finite; in other fields it is
        infinity."""
        if not isinstance(data, Mapping):
            return data
        is_nan = (
            {"stderr"} if data.get("loss") is None else {"stderr", "bits_per_char", "bits_per_byte"}
        )
        null = {key: math.nan if key in is_nan else math.inf for key in data if key not in OPTIONAL}
        return {key: null.get(key) if value is None else value for key, value in data.items()}


def format_bits(value: float) -> str:
    """Format bits per character or byte; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def evaluation_windows(model: Model, tokens: TokenDataset, stride: int | None = None) -> Windows:
    """Cut a split into windows, so that every token is predicted once.

    Every item begins a new window. For a model that depends on K tokens, windows overlap by K - 1,
    so that the cuts change nothing. A model with a maximum length gets consecutive windows of that
    length; with a smaller `stride` they overlap, and only the last `stride` predictions of each,
    which have more context, are scored.

    Raises:
        MoreishError: `stride` is not between 1 and the context.
    """
    if stride is not None and tokens.separator is not None:
        raise MoreishError(f"--stride {stride}: examples are evaluated one by one; leave it out")
    if model.max_length is None:
        if stride is not None:
            raise MoreishError(
                f"--stride {stride}: this model is not evaluated in windows; each token has its "
                "whole context"
            )
        return tokens.windows(WINDOW + model.context - 1, model.context - 1)
    stride = model.max_length if stride is None else stride
    if not 1 <= stride <= model.max_length:
        raise MoreishError(f"--stride {stride}: give 1 to {model.max_length}, the context")
    return tokens.windows(model.max_length, model.max_length - stride)


def evaluation_batches(
    model: Model, tokens: TokenDataset, windows: Windows, group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[tuple[Windows, Batch]]:
    """Yield all windows, in batches of similar length. Each of several processes gets its own, and
    all get equally many, if necessary one that is not scored: sharded layers need all processes."""
    positions = int(group.broadcast(batch_positions(model)))
    windows = windows[np.argsort(-windows.length_W, kind="stable")]
    groups, first = [], 0
    while first < len(windows):
        rows = max(1, positions // int(windows.length_W[first]))
        groups.append(windows[first : first + rows])
        first += rows
    for first in range(0, len(groups), group.size):
        chosen = groups[min(first + group.rank, len(groups) - 1)]
        if first + group.rank >= len(groups):
            chosen = replace(chosen, skip_W=chosen.length_W)
        yield chosen, tokens.gather(chosen)


def batch_positions(model: Model) -> int:
    """Return the positions per forward pass: few on a CPU, for its cache; on a GPU as many as
    should fit into its memory."""
    if model.device.type != "cuda":
        layers = [part.out_features for part in model.modules() if isinstance(part, nn.Linear)]
        fits_cache = BATCH_ACTIVATIONS // max(layers, default=1)
        return max(1, min(BATCH_POSITIONS, BATCH_LOGITS // model.vocab_size, fits_cache))
    widest = max(model.vocab_size, *(max(p.shape) for p in model.parameters()))
    free, _ = torch.cuda.mem_get_info(model.device)
    # Some kernels index tensors with 32 bits.
    return max(1, min(free // (4 * GPU_ACTIVATIONS), 2**31) // widest)


def batch_losses(model: Model, batch: Batch, parts: int) -> tuple[NDArray[np.float32], int]:
    """Return (B, T) losses of `batch`, computed in `parts`, and the number of parts, which is
    doubled until each fits into the memory of the GPU; start the next batch with it."""
    while True:
        try:
            losses = []
            for part in batch.split(parts):
                there = part.to(model.device)
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
    """Return (predictions,) the loss of each token but the first, in nats, in the split's order.

    Args:
        stride: see `evaluation_windows`.
        progress: called with the finished share.
        group: the processes that share the work; each gets all losses.
    """
    windows = evaluation_windows(model, tokens, stride)
    losses = np.zeros(tokens.num_predictions, dtype=np.float32)
    was_training = model.training
    model.eval()
    done, parts = 0, 1
    for chosen, batch in evaluation_batches(model, tokens, windows, group):
        losses_BT, parts = batch_losses(model, batch, parts)
        is_scored_BT = batch.targets_BT.numpy() != IGNORE_INDEX
        position_BT = chosen.start_W[:, None] + np.arange(losses_BT.shape[1])
        losses[position_BT[is_scored_BT]] = losses_BT[is_scored_BT]
        done += len(chosen) * group.size
        if progress is not None:
            progress(min(1.0, done / len(windows)))
    model.train(was_training)
    group.all_reduce(torch.from_numpy(losses))  # losses of other processes are zero here
    return losses


@torch.inference_mode()
def running_losses(
    model: Model,
    tokens: TokenDataset,
    progress: Callable[[float], None] | None = None,
    max_seconds: float = math.inf,
) -> NDArray[np.float32] | None:
    """Return (predictions,) the loss of each token but the first, in nats, where the model reads
    the split once from its beginning to its end and carries its state along.

    Models without a maximum length depend on a fixed number of tokens, which the windows of
    `evaluate_losses` contain, so their losses are the same. A model that reads half of its context
    again whenever it is full has overlapping windows.

    Args:
        progress: called with the finished share.
        max_seconds: expected duration above which nothing is computed.

    Returns:
        None for the items of a list, which do not depend on each other, or if it takes too long.
    """
    if tokens.items:
        return None
    if not model.slides:
        stride = None if model.max_length is None else model.call_length
        return evaluate_losses(model, tokens, stride, progress)
    was_training = model.training
    model.eval()
    losses: list[NDArray[np.float32]] = []
    done, began = 0, time.perf_counter()
    for losses_T in _losses_of_calls(model, tokens.ids_N, tokens.num_predictions, None):
        losses.append(losses_T)
        done += len(losses_T)
        share = done / tokens.num_predictions
        if len(losses) == TIMED_CALLS and time.perf_counter() - began > share * max_seconds:
            model.train(was_training)
            return None
        if progress is not None:
            progress(share)
    model.train(was_training)
    return np.concatenate(losses)


def _losses_of_calls(
    model: Model, ids_N: Any, predictions: int, state: State
) -> Iterator[NDArray[np.float32]]:
    """Yield the losses of all tokens but the first, those of one call after the other, which carry
    the state along."""
    for first in range(0, predictions, model.call_length):
        last = min(first + model.call_length, predictions)
        ids_T = torch.from_numpy(ids_N[first : last + 1].astype(np.int64))
        ids_1T = ids_T[None].to(model.device)
        logits_1TV, state = model(ids_1T[:, :-1], state)
        yield token_losses(logits_1TV, ids_1T[:, 1:])[0].cpu().numpy()


@torch.inference_mode()
def losses_after(model: Model, before: Ids, ids: Ids) -> NDArray[np.float32]:
    """Return the loss of each of the tokens `ids`, in nats, where the model has read the tokens
    `before`, of which there is at least one, and carries its state along as in sampling."""
    was_training = model.training
    model.eval()
    last_1T, state = model.skip_to_end(torch.from_numpy(before.astype(np.int64))[None])
    all_ids = np.concatenate([last_1T[0].numpy(), ids])
    losses = np.concatenate(list(_losses_of_calls(model, all_ids, len(all_ids) - 1, state)))
    model.train(was_training)
    return losses[-len(ids) :]


def score(
    losses: NDArray[np.float32],
    tokens: TokenDataset,
    tokenizer: Tokenizer,
    is_unseen_I: NDArray[np.bool_] | None = None,
) -> Score:
    """Summarize the losses of a split.

    Args:
        losses: (predictions,) the loss of each token but the first.
        tokens: the split.
        tokenizer: its tokenizer.
        is_unseen_I: for each item, whether it is not in the training split.
    """
    exact = losses.astype(np.float64)
    if tokens.separator is not None:
        return _score_examples(exact, tokens, tokenizer)
    total, count = float(exact.sum()), len(exact)
    predicted = count_tokens(tokens.ids_N, tokenizer.vocab_size)
    predicted[int(tokens.ids_N[0])] -= 1
    spaces, previous = 0, int(tokens.ids_N[0])
    for ids in iter_chunks(tokens.ids_N) if tokenizer.line_spaces else ():
        spaces += int(tokenizer.implied_spaces(ids, previous).sum())
        previous = int(ids[-1])
    known = tokenizer.unk_id is None or predicted[tokenizer.unk_id] == 0
    bits = total / math.log(2) if known else math.nan
    mean = total / count
    starts_U = tokens.segments()[0] if tokens.items else np.arange(0, count, STDERR_BLOCK)
    sums_U, sizes_U = np.add.reduceat(exact, starts_U), np.diff(np.append(starts_U, count))
    more: dict[str, Any] = {}
    if is_unseen_I is not None and is_unseen_I.any():
        sums_I, sizes_I = sums_U[is_unseen_I], sizes_U[is_unseen_I]
        unseen_loss, unseen_tokens = float(sums_I.sum() / sizes_I.sum()), int(sizes_I.sum())
        stderr = _standard_error(sums_I, sizes_I, unseen_loss)
        more = dict(zip(UNSEEN, (unseen_loss, stderr, unseen_tokens), strict=True))
    return Score(
        loss=mean,
        stderr=_standard_error(sums_U, sizes_U, float(exact.mean())),
        bits_per_char=bits / max(1, int(predicted @ tokenizer.char_lengths()) - spaces),
        bits_per_byte=bits / max(1, int(predicted @ tokenizer.byte_lengths()) - spaces),
        perplexity=perplexity(mean),
        tokens=count,
        **more,
    )


def _score_examples(
    losses: NDArray[np.float64], tokens: TokenDataset, tokenizer: Tokenizer
) -> Score:
    """Summarize the losses of the targets of examples."""
    is_target_N = tokens.target_mask
    target_ids = tokens.ids_N[1:][is_target_N]
    starts_E = tokens.segments()[0]
    sums_E = np.add.reduceat(np.where(is_target_N, losses, 0.0), starts_E)
    sizes_E = np.add.reduceat(is_target_N.astype(np.int64), starts_E)
    total, count = float(sums_E.sum()), len(target_ids)
    known = tokenizer.unk_id is None or not (target_ids == tokenizer.unk_id).any()
    bits = total / math.log(2) if known else math.nan
    return Score(
        loss=total / count,
        stderr=_standard_error(sums_E, sizes_E, total / count),
        bits_per_char=bits / max(1, int(tokenizer.char_lengths()[target_ids].sum())),
        bits_per_byte=bits / max(1, int(tokenizer.byte_lengths()[target_ids].sum())),
        perplexity=perplexity(total / count),
        tokens=count,
    )


def running_loss(losses: NDArray[np.float32]) -> dict[str, float]:
    """Return the fields of a `Score` for the losses of `running_losses`."""
    exact = losses.astype(np.float64)
    starts_U = np.arange(0, len(exact), STDERR_BLOCK)
    sizes_U = np.diff(np.append(starts_U, len(exact)))
    mean = float(exact.mean())
    error = _standard_error(np.add.reduceat(exact, starts_U), sizes_U, mean)
    return dict(zip(RUNNING, (mean, error), strict=True))


def _standard_error(sums_U: NDArray[np.float64], sizes_U: NDArray[np.int64], mean: float) -> float:
    """Return the standard error of a ratio of sums over independent units (Cochran 1977, section
    6.4); NaN for one unit."""
    units = len(sums_U)
    if units < 2 or not np.isfinite(sums_U).all():
        return math.nan
    residuals_U = sums_U - mean * sizes_U
    squares = float(residuals_U @ residuals_U)
    return math.sqrt(units / (units - 1) * squares) / int(sizes_U.sum())
