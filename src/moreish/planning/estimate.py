"""Estimates of the FLOPs, memory and hours of a training run, on this machine or another.

docs/planning.md compares the estimates with published tables, and
tests/unit/planning/test_estimate.py with measurements.
"""

import math
from dataclasses import dataclass, fields, replace
from importlib import import_module

from torch import nn

from moreish.config import DataConfig, RunConfig
from moreish.data import CATALOG, find_dataset, is_available_offline
from moreish.errors import MoreishError
from moreish.models import CountBasedModel, GPTConfig, Model
from moreish.planning.memory import LOGITS_FACTOR, SAVED_FACTOR, WORKSPACE
from moreish.python_errors import spell
from moreish.tokenizers import GPT2_VOCAB_SIZE, check_vocab_size, tokenizer_builder
from moreish.training import (
    DEFAULT_WINDOW,
    FlopCounter,
    TrainingSetup,
    budget_steps,
    build_meta_model,
    build_sampler,
    checkpoint_bytes,
    device_peak_flops,
    optimizer_memory,
    parse_peak_flops,
    peak_disk_bytes,
    resolve_device,
    resolve_precision,
    set_up,
)
from moreish.utils.files import user_path

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Estimate:
    """The estimated cost of a training run."""

    config: RunConfig
    vocabulary: int
    load: Load
    parameters: int
    embeddings: int
    """Parameters of token and position embeddings."""
    tokens: int | None
    """Tokens of the whole run."""
    optimal_tokens: int
    operations_per_position: float
    """FLOPs of the forward and backward pass: 6 per weight of a matrix, and 12 x layers x width x
    length for attention (Chowdhery et al. 2022, "PaLM", appendix B)."""
    attention: float
    """Fraction of the FLOPs that is attention."""
    operations: float | None
    """FLOPs of the whole run."""
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

    def __repr__(self) -> str:
        # The report is written from estimates, so it is imported after this module.
        return spell("\n".join(import_module("moreish.planning.report").format_estimate(self)))


def estimate_run(
    config: RunConfig, *, requires_data: bool, gpus: int, gpu: str | None, mfu: float
) -> Estimate:
    """Estimate training with some settings, whose data may be missing.

    Args:
        config: the settings.
        requires_data: whether the data must be on this machine, because the user named them.
        gpus: number of GPUs.
        gpu: their name, or their peak in TFLOP/s; None means the device of this machine.
        mfu: fraction of the peak to assume.

    Raises:
        MoreishError: a setting is invalid, or depends on missing data.
    """
    if gpus < 1 or not 0 < mfu <= 1:
        raise MoreishError(
            "--gpus must be 1 or more, and --mfu a fraction of the peak, above 0 and up to 1"
        )
    is_available = all(
        is_available_offline(find_dataset(source))
        if source in CATALOG
        else user_path(source).exists()
        for source in config.data.sources
    )
    if requires_data or is_available:
        setup = set_up(config)
        config, vocabulary, load = setup.config, setup.tokenizer.vocab_size, measure_load(setup)
    else:
        vocabulary = predict_vocabulary(config.data)
        load = predict_load(config, vocabulary)
    device = resolve_device(config.train.device)
    precision: str = config.train.precision
    if gpu is None:
        precision = str(resolve_precision(config.train, device)).removeprefix("torch.")
    return estimate(
        config,
        vocabulary,
        load,
        devices=gpus,
        peak=device_peak_flops(device) if gpu is None else parse_peak_flops(gpu),
        mfu=mfu,
        precision="bfloat16" if precision == "auto" else precision,
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
    """Estimate a training run.

    Args:
        config: the settings.
        vocabulary: the vocabulary size.
        load: the size and number of steps.
        devices: the number of devices.
        peak: peak FLOP/s of each device.
        mfu: model FLOPs utilization.
        precision: data type of matrix products: float32, bfloat16 or float16.

    Raises:
        MoreishError: the model cannot be built, or is count-based, or there are too many devices.
    """
    model = build_trainable_model(config, vocabulary)
    flops = FlopCounter(model)
    per_position = flops.per_position(load.length)
    tokens = operations = seconds = None
    if load.steps is not None:
        tokens = load.steps * load.tokens
        operations = per_position * load.rows * load.length * load.steps
    if config.train.minutes is not None:
        seconds = config.train.minutes * 60
    elif peak is not None and operations is not None:
        seconds = operations / (devices * peak * mfu)
    if devices > load.rows:
        raise MoreishError(
            f"a step has {load.rows:,} rows, which cannot be split over more devices: use fewer "
            "--gpus, or more train.batch_tokens"
        )
    micro_batches = math.ceil(config.train.accumulate / devices)
    rows_at_once = math.ceil(math.ceil(load.rows / devices) / micro_batches)
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    parameters = model.num_parameters()
    memory = _memory(model, config, rows_at_once * load.length, half=precision != "float32")
    is_single = devices == 1
    return Estimate(
        config=config,
        vocabulary=vocabulary,
        load=load,
        parameters=parameters,
        embeddings=sum(weight.numel() for weight in embeddings),
        tokens=tokens,
        optimal_tokens=OPTIMAL_TOKENS_PER_PARAMETER * parameters,
        operations_per_position=per_position,
        attention=1 - flops.per_position(0) / per_position if per_position else 0.0,
        operations=operations,
        devices=devices,
        rows_at_once=rows_at_once,
        precision=precision,
        ddp=memory if is_single else replace(memory, copies=memory.copies + memory.gradients),
        fsdp=None if is_single else _sharded_memory(memory, model, devices),
        checkpoint=checkpoint_bytes(model, config.train),
        disk=peak_disk_bytes(model, config.train),
        peak=peak,
        mfu=mfu,
        hours=None if seconds is None else seconds / 3600,
    )


def build_trainable_model(config: RunConfig, vocabulary: int) -> Model:
    """Build the model without memory for its weights.

    Raises:
        MoreishError: it cannot be built, or is not trained by gradient descent.
    """
    model = build_meta_model(config.model, vocabulary)
    if isinstance(model, CountBasedModel):
        raise MoreishError(
            f"{config.model.name} is fitted by counting, in one pass: there is no training to plan"
        )
    return model


def measure_load(setup: TrainingSetup) -> Load:
    """Return the load of training on data that are available."""
    model = build_trainable_model(setup.config, setup.tokenizer.vocab_size)
    tokens = setup.splits["train"]
    sampler = build_sampler(setup.config, tokens, model)
    batch = sampler.batch(0)
    rows, length = batch.tokens_BT.shape
    return Load(
        rows=rows,
        length=length,
        tokens=batch.num_targets,
        steps=budget_steps(setup.config.train, sampler),
        data_tokens=tokens.num_predictions,
    )


def predict_load(config: RunConfig, vocabulary: int) -> Load:
    """Return the load of training on running text that is not available.

    Raises:
        MoreishError: it depends on the text.
    """
    train = config.train
    if train.batch_size == "all":
        raise MoreishError(
            f"{config.data.source} is not on this machine, and train.batch_size=all needs its size"
        )
    length = build_trainable_model(config, vocabulary).max_length or DEFAULT_WINDOW
    rows = train.batch_size or max(1, round(train.batch_tokens / length))
    assert isinstance(rows, int)
    return Load(rows=rows, length=length, tokens=rows * length, steps=train.steps, data_tokens=None)


def predict_vocabulary(data: DataConfig) -> int:
    """Return the vocabulary size of a tokenizer without the text.

    Raises:
        MoreishError: it depends on the text.
    """
    check_vocab_size(data.tokenizer, data.limits)
    if data.tokenizer == "gpt2":
        return GPT2_VOCAB_SIZE
    if data.tokenizer == "bpe" and data.vocab_size is not None:
        return data.vocab_size
    builder = tokenizer_builder(data.tokenizer)
    if builder.needs_text or data.tokenizer == "char":
        raise MoreishError(
            f"{data.source} is not on this machine, and its text decides the vocabulary: put it "
            "there, or choose a tokenizer with a fixed one, e.g. --tokenizer gpt2"
        )
    return builder.build([], boundary=True).vocab_size


def saved_bytes(
    config: GPTConfig, vocabulary: int, *, half: bool = False, checkpointing: bool = False
) -> tuple[float, float]:
    """Return the bytes per position that autograd saves for the backward pass of a GPT.

    Attention is assumed to save no scores, as the kernels of GPUs do with dropout too.

    Args:
        config: the settings of the model.
        vocabulary: the vocabulary size.
        half: whether matrix products are in 16 bits.
        checkpointing: whether activations are recomputed: then the input of each block is saved,
            and all of one block with its gradients.

    Returns:
        The bytes of the blocks with the last norm, and those of the logits.
    """
    size, width = (2 if half else 4), config.width
    kv_width = width * (config.kv_heads or config.heads) // config.heads
    is_rotary, is_grouped = config.positions == "rotary", kv_width < width
    is_cast = config.qk_norm and half
    # Norms are in float32: their input and divisor, and for RMS norm the quotient.
    norm = {"layer": 4 * width + 8, "rms": 8 * width + 4}[config.norm]
    block = norm + size * width  # the input of the queries, keys and values
    if not (is_grouped and (is_rotary or is_cast)):
        block += size * (width + 2 * kv_width)
    if is_grouped:
        block += size * 2 * width  # keys and values, repeated
    if config.qk_norm:
        block += size * (width + kv_width) + size * width
        block += 4 * (width + kv_width) if half else 0
    if is_rotary and not is_cast:
        block += size * (width + kv_width)
    block += size * width + 4 * config.heads  # the output of attention, and its denominators
    is_gated = config.feedforward == "swiglu"
    ratio = config.feedforward_ratio * (2 / 3 if is_gated else 1)
    hidden = config.feedforward_width or max(1, round(width * ratio))
    hidden_copies = {"swiglu": 4, "relu": 1}.get(config.feedforward, 2)
    block += norm + size * width + hidden_copies * size * hidden
    if config.dropout:
        block += 2 * width  # masks, one byte per element
    last = size * width + (norm if config.norm_place == "before" else 0) + 16  # tokens and targets
    logits = 4 * vocabulary + (size * vocabulary if config.softcap else 0)
    blocks = 2 * block + 4 * width * config.layers if checkpointing else config.layers * block
    return blocks + last, logits


def _memory(model: Model, config: RunConfig, positions: int, *, half: bool) -> Memory:
    """Estimate the memory of a device that holds all weights."""
    weights = float(sum(p.nbytes for p in model.parameters()))
    activations = logits = None
    copies = 0.0
    if isinstance(config.model, GPTConfig):
        checkpointing = config.train.activation_checkpointing
        saved, saved_logits = saved_bytes(
            config.model, model.vocab_size, half=half, checkpointing=checkpointing
        )
        activations = SAVED_FACTOR * saved * positions
        logits = SAVED_FACTOR * saved_logits * positions
        logits += LOGITS_FACTOR * 4 * model.vocab_size * positions
        if half:  # autocast keeps a copy of each matrix
            copies = 2.0 * FlopCounter(model).weights
    return Memory(
        weights=weights,
        gradients=weights,
        moments=optimizer_memory(model, config.train),
        copies=copies,
        activations=activations,
        logits=logits,
        libraries=WORKSPACE,
    )


def _sharded_memory(memory: Memory, model: Model, devices: int) -> Memory:
    """Return the memory of each device with FSDP, which gathers one block at a time and prefetches
    the next; weights outside of blocks stay gathered."""
    blocks = [sum(p.nbytes for p in block.parameters()) for block in getattr(model, "blocks", [])]
    outside = memory.weights - sum(blocks)
    return replace(
        memory,
        weights=memory.weights / devices,
        gradients=memory.gradients / devices,
        moments=memory.moments / devices,
        copies=memory.copies + 2 * outside + 3 * max(blocks, default=0),
    )
