"""Estimates what a training needs before the machine exists: FLOPs, memory, hours.

docs/planning.md compares the estimates with published tables, and
tests/unit/planning/test_estimate.py with measurements.
"""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn

from moreish.config import DataConfig, RunConfig
from moreish.data import CATALOG, find_dataset, is_available_offline
from moreish.errors import MoreishError
from moreish.models import CountBasedModel, GPTConfig, Model, build_model
from moreish.planning.memory import KEPT_SHARE, LOGITS_BACK, WORKSPACE
from moreish.tokenizers import GPT2_VOCAB_SIZE as GPT2_SIZE
from moreish.tokenizers import check_vocab_size, tokenizer_builder
from moreish.training import (
    CHECKPOINTS_KEPT,
    DEFAULT_WINDOW,
    FlopCounter,
    TrainingSetup,
    budget_steps,
    build_sampler,
    count_parameters,
    device_peak_flops,
    optimizer_memory,
    optimizer_state_bytes,
    parse_peak_flops,
    resolve_device,
    resolve_precision,
    set_up,
)

DEFAULT_MFU = 0.3
"""Default fraction of peak FLOP/s: nanoGPT's four days on eight A100s for GPT-2 small correspond to
0.29."""

OPTIMAL_TOKENS_PER_PARAMETER = 20
"""Compute-optimal number of training tokens per parameter (Hoffmann et al. 2022, "Chinchilla",
table 3: 20.0 to 21.2 up to 280 B parameters)."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The size and number of training steps."""

    rows: int
    length: int
    """Positions per row."""
    tokens: int
    """Predictions per step."""
    steps: int | None
    """None if it depends on minutes, or on data that is not available."""
    data_tokens: int | None
    """Predictions in the training split; None if it is not available."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak memory on one device, in bytes; None if unknown for this model class."""

    weights: float
    gradients: float
    moments: float
    """Optimizer state and workspace."""
    copies: float
    """bfloat16 copies of weights, gathered shards of other devices, and gradient buckets."""
    activations: float | None
    """Activations saved for the backward pass, for the rows processed at once."""
    logits: float | None
    """Logits of these rows, with their gradients."""
    libraries: float

    @property
    def total(self) -> float | None:
        """The sum of all parts; None if one is unknown."""
        parts = [getattr(self, field.name) for field in fields(self)]
        return None if None in parts else sum(parts)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimated cost of a training."""

    config: RunConfig
    vocabulary: int
    load: Load
    parameters: int
    embeddings: int
    """Parameters of token and position embeddings."""
    tokens: int | None
    """Tokens of the whole training."""
    optimal_tokens: int
    operations_per_position: float
    """FLOPs of the forward and backward pass: 6 per weight of a matrix, and 12 x layers x width x
    length for attention (Chowdhery et al. 2022, "PaLM", appendix B)."""
    attention: float
    """Share of the FLOPs that is attention."""
    operations: float | None
    devices: int
    rows_at_once: int
    """Rows per micro-batch on each device."""
    precision: str
    """Data type of matrix products."""
    ddp: Memory
    """With DDP, or on a single device."""
    fsdp: Memory | None
    """With FSDP; None on a single device."""
    checkpoint: int
    """Size of one checkpoint, in bytes."""
    disk: int
    """Peak size of a run folder without its data, in bytes."""
    peak: float | None
    """Peak FLOP/s of a device."""
    mfu: float
    hours: float | None


def estimate_run(
    config: RunConfig, *, asked: bool, gpus: int, gpu: str | None, mfu: float
) -> Estimate:
    """What the training that `config` says will take, with its data or without.

    Args:
        asked: whether the user named the data, which must then be here.
        gpus: how many there will be.
        gpu: the name or the TFLOP/s of each; None: the device here.
        mfu: share of the peak that is used.

    Raises:
        MoreishError: a setting is wrong, or depends on data that are not here.
    """
    if gpus < 1 or not 0 < mfu <= 1:
        raise MoreishError(
            "--gpus is 1 or more, and --mfu a share of the peak, above 0 and up to 1"
        )
    if asked or data_are_here(config.data.source):
        ready = set_up(config)
        config, vocabulary, load = ready.config, ready.tokenizer.vocab_size, load_of(ready)
    else:
        vocabulary = vocabulary_ahead(config.data)
        load = load_ahead(config, vocabulary)
    here = resolve_device(config.train.device)
    precision = str(resolve_precision(config.train, here)).removeprefix("torch.")
    if gpu is not None:
        asked_for = config.train.precision
        precision = "bfloat16" if asked_for == "auto" else asked_for
    return estimate(
        config,
        vocabulary,
        load,
        devices=gpus,
        peak=device_peak_flops(here) if gpu is None else parse_peak_flops(gpu),
        mfu=mfu,
        precision=precision,
    )


def estimate(
    config: RunConfig,
    vocabulary: int,
    load: Load,
    *,
    devices: int = 1,
    peak: float | None = None,
    mfu: float = DEFAULT_MFU,
    precision: str = "float32",
) -> Estimate:
    """What training as `config` says takes on so many devices.

    Args:
        peak: operations a second that each promises.
        mfu: share of them that is used (model FLOPs utilisation).
        precision: of products: float32, bfloat16 or float16.

    Raises:
        MoreishError: the model cannot be built, or is counted.
    """
    model = outline(config, vocabulary)
    work = FlopCounter(model)
    operations = work.per_position(load.length)
    tokens = None if load.steps is None else load.steps * load.tokens
    in_all = None
    if load.steps is not None:
        in_all = operations * load.rows * load.length * load.steps
    seconds = None
    if config.train.minutes is not None:
        seconds = config.train.minutes * 60
    elif peak is not None and in_all is not None:
        seconds = in_all / (devices * peak * mfu)
    if devices > load.rows:
        raise MoreishError(
            f"a step has {load.rows:,} rows, which so many share at the most: give fewer --gpus, "
            "or more train.batch_tokens"
        )
    parts = math.ceil(config.train.accumulate / devices)  # devices share them
    at_once = math.ceil(math.ceil(load.rows / devices) / parts)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    checkpoint = weights + optimizer_state_bytes(model, config.train)
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    parameters = model.num_parameters()
    alone = _memory(model, config, at_once * load.length, half=precision != "float32")
    return Estimate(
        config=config,
        vocabulary=vocabulary,
        load=load,
        parameters=parameters,
        embeddings=sum(weight.numel() for weight in embeddings),
        tokens=tokens,
        optimal_tokens=OPTIMAL_TOKENS_PER_PARAMETER * parameters,
        operations_per_position=operations,
        attention=1 - work.per_position(0) / operations if operations else 0.0,
        operations=in_all,
        devices=devices,
        rows_at_once=at_once,
        precision=precision,
        ddp=alone if devices == 1 else replace(alone, copies=alone.copies + alone.gradients),
        fsdp=None if devices == 1 else _shared_out(alone, model, devices),
        checkpoint=checkpoint,
        disk=2 * weights
        + (CHECKPOINTS_KEPT + 1) * checkpoint,  # one more of each while it is written
        peak=peak,
        mfu=mfu,
        hours=None if seconds is None else seconds / 3600,
    )


def outline(config: RunConfig, vocabulary: int) -> Model:
    """The model without memory for its weights. Raises MoreishError when it cannot be built, or
    is not trained by gradients."""
    count_parameters(config.model, vocabulary)  # says what is wrong with it
    with torch.device("meta"):
        model = build_model(config.model, vocabulary)
    if isinstance(model, CountBasedModel):
        raise MoreishError(f"{config.model.name} is counted, in one go: there is nothing to plan")
    return model


def load_of(ready: TrainingSetup) -> Load:
    """The steps of a training whose data are here."""
    model = outline(ready.config, ready.tokenizer.vocab_size)
    tokens = ready.splits["train"]
    sampler = build_sampler(ready.config, tokens, model)
    batch = sampler.batch(0)
    return Load(
        rows=len(batch.tokens_BT),
        length=batch.tokens_BT.shape[1],
        tokens=batch.num_targets,
        steps=budget_steps(ready.config.train, sampler),
        data_tokens=tokens.num_predictions,
    )


def load_ahead(config: RunConfig, vocabulary: int) -> Load:
    """The steps of a training on running text that is not here.

    Raises:
        MoreishError: they depend on it.
    """
    train = config.train
    if train.batch_size == "all":
        raise MoreishError(f"{config.data.source} is not here, and a batch is to be all of it")
    length = outline(config, vocabulary).max_length or DEFAULT_WINDOW
    rows = train.batch_size or max(1, round(train.batch_tokens / length))
    assert isinstance(rows, int)
    return Load(rows=rows, length=length, tokens=rows * length, steps=train.steps, data_tokens=None)


def data_are_here(source: str) -> bool:
    """Whether the source can be read without a network."""
    return (
        is_available_offline(find_dataset(source))
        if source in CATALOG
        else Path(source).expanduser().exists()
    )


def vocabulary_ahead(data: DataConfig) -> int:
    """How many tokens there will be in a vocabulary, without the text.

    Raises:
        MoreishError: the text decides it.
    """
    check_vocab_size(data.tokenizer, data.limits)
    if data.tokenizer == "gpt2":
        return GPT2_SIZE
    if data.tokenizer == "bpe" and data.vocab_size is not None:
        return data.vocab_size
    made = tokenizer_builder(data.tokenizer)
    if made.needs_text or data.tokenizer == "char":
        raise MoreishError(
            f"{data.source} is not here, and its text decides the vocabulary: put it there, or "
            "name one that is known, e.g. --tokenizer gpt2"
        )
    return made.build([], boundary=True).vocab_size


def kept(
    config: GPTConfig, vocabulary: int, *, half: bool = False, recompute: bool = False
) -> tuple[float, float]:
    """Bytes that autograd keeps of each position of a GPT for the way back; with dropout, those of
    kernels that keep no affinities (as on GPUs).

    Args:
        half: whether products are in 16 bits.
        recompute: whether layers are reckoned again: one of them is kept then, with its gradients,
            and what goes into each.

    Returns:
        of its blocks and its last norm, and of its logits.
    """
    size, width = (2 if half else 4), config.width
    ours = width * (config.kv_heads or config.heads) // config.heads
    turned, grouped = config.positions == "rotary", ours < width
    # Norms are in float32: their input and what it was divided by; of RMS norm the quotient too.
    norm = {"layer": 4 * width + 8, "rms": 8 * width + 4}[config.norm]
    attention = norm + size * width  # what queries, keys and values are made of
    lost = grouped and (turned or (config.qk_norm and half))
    attention += 0 if lost else size * (width + 2 * ours)
    attention += size * 2 * width if grouped else 0  # keys and values, repeated
    if config.qk_norm:
        attention += size * (width + ours) + size * width
        attention += 4 * (width + ours) if half else 0
    if turned and not (config.qk_norm and half):
        attention += size * (width + ours)
    attention += size * width + 4 * config.heads  # what the heads gathered, and their denominators
    block = attention
    gated = config.feedforward == "swiglu"
    ratio = config.feedforward_ratio * (2 / 3 if gated else 1)
    inner = config.feedforward_width or max(1, round(width * ratio))
    times = {"swiglu": 4, "relu": 1}.get(config.feedforward, 2)
    block += norm + size * width + times * size * inner
    if config.dropout:
        block += 2 * width  # masks, a byte each
    last = size * width + (norm if config.norm_place == "before" else 0) + 16  # tokens and targets
    logits = 4 * vocabulary + (size * vocabulary if config.softcap else 0)
    blocks = 2 * block + 4 * width * config.layers if recompute else config.layers * block
    return blocks + last, logits


def _memory(model: Model, config: RunConfig, positions: int, *, half: bool) -> Memory:
    """On one device that has all of the weights."""
    weights = float(sum(p.nbytes for p in model.parameters()))
    activations = logits = None
    cast = 0.0
    if isinstance(config.model, GPTConfig):
        inside, at_end = kept(
            config.model,
            model.vocab_size,
            half=half,
            recompute=config.train.activation_checkpointing,
        )
        activations = KEPT_SHARE * inside * positions
        logits = KEPT_SHARE * at_end * positions + LOGITS_BACK * 4 * model.vocab_size * positions
        if half:  # autocast keeps each matrix once more
            cast = 2.0 * FlopCounter(model).weights
    return Memory(
        weights=weights,
        gradients=weights,
        moments=optimizer_memory(model, config.train),
        copies=cast,
        activations=activations,
        logits=logits,
        libraries=WORKSPACE,
    )


def _shared_out(alone: Memory, model: Model, devices: int) -> Memory:
    """The same, with each block a unit that is gathered when it is its turn, the next one already
    behind it, and all that lies outside of blocks a unit that stays."""
    blocks = [sum(p.nbytes for p in block.parameters()) for block in getattr(model, "blocks", [])]
    outside = alone.weights - sum(blocks)
    return replace(
        alone,
        weights=alone.weights / devices,
        gradients=alone.gradients / devices,
        moments=alone.moments / devices,
        copies=alone.copies + 2 * outside + 3 * max(blocks, default=0),
    )
