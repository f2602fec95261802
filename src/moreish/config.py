"""The settings of a run: defaults < what suits the model < recipe (TOML) < flags."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from moreish.data import Kind, Mending, SplitRule
from moreish.errors import MoreishError, nearest
from moreish.models import CountBasedModel, ModelConfig, model_class, model_config
from moreish.settings import Settings, Tree, merge, migrate
from moreish.tokenizers import Limits

BUDGETS = ("steps", "minutes", "epochs")
DEFAULT_MINUTES = 1.0
AUTO = "auto"


class DataConfig(Mending):
    """What to learn from, and how to mend it first."""

    source: str = "names"
    """A built-in data set, a file, a folder of text files, or of text that is prepared."""
    kind: Kind | None = None
    """A list of lines, or running text; None: guess."""
    split: SplitRule = "seeded"
    split_seed: int = Field(42, ge=0, lt=2**63)
    """Apart from the training's seed, so that runs of several seeds share one split."""
    encoding: str = "utf-8"
    tokenizer: str = "char"
    """A registered name, or a tokenizer.json."""
    vocab_size: int | None = Field(None, ge=1, le=2**24)
    """The most tokens of a vocabulary that is learned; None: what suits the text."""
    min_word_count: int = Field(Limits().min_word_count, ge=1)
    """Occurrences below which a word is unknown to the tokenizer of words."""
    weights: dict[str, float] | None = None
    """Of prepared text, the share of each source in what is trained on; they need not add up to
    one. None: everything once an epoch."""

    @field_validator("weights")
    @classmethod
    def _not_below_zero(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and (not value or min(value.values()) < 0):
            raise ValueError("give each source a share of 0 or more")
        return value

    def options(self) -> list[str]:
        """What to add to a command that is to read it like this."""
        named = {"kind": "--as", "split": "--split", "encoding": "--encoding"}
        defaults = type(self)()
        words = []
        for name in ("kind", "encoding", "split", *Mending.model_fields):
            value = getattr(self, name)
            if value != getattr(defaults, name):
                words.append(named.get(name, "--" + name.replace("_", "-")))
                words += [] if value is True else [str(value)]
        return words

    @property
    def limits(self) -> Limits:
        """Of the vocabulary."""
        return Limits(vocab_size=self.vocab_size, min_word_count=self.min_word_count)

    @property
    def mending(self) -> Mending:
        """Only how to mend it."""
        return Mending(**self.model_dump(include=set(Mending.model_fields)))


class BudgetConfig(Settings):
    """The length of the training: one of these, or the default number of minutes."""

    steps: int | None = Field(None, ge=1, le=10**12)
    """Number of optimizer steps."""
    minutes: float | None = Field(None, gt=0, le=60 * 24 * 3660)
    """Minutes of training, evaluations included (default 1)."""
    epochs: float | None = Field(None, gt=0, le=10**9)
    """Number of passes over the training split."""


class BatchConfig(Settings):
    """The batches."""

    batch_size: int | str | None = None
    """Items, or windows of running text, per step; "all" takes the whole training split, and None
    as many as fill `batch_tokens`."""
    batch_tokens: int = Field(1024, ge=1)
    """Tokens per step where `batch_size` is not set."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step, shared among the processes; the gradient is that of the whole
    batch."""
    length_warmup: float = Field(0, ge=0, lt=1)
    """Share of the training in which windows of running text are a quarter as long (Li, Zhang and
    He 2022, "The Stability-Efficiency Dilemma")."""

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, value: int | str | None) -> int | str | None:
        if value is None or value == "all" or (isinstance(value, int) and value >= 1):
            return value
        raise ValueError("give 1 or more, or all")


class OptimizerConfig(Settings):
    """The optimizer and its regularization."""

    optimizer: str = "adamw"
    """Name of the optimizer: adamw, muon or sgd."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of sgd."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay rate of AdamW's first moment."""
    beta2: float = Field(0.99, ge=0, lt=1)
    """Decay rate of AdamW's second moment."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, applied to matrices only."""
    squared_weights: float = Field(0.0, ge=0)
    """Coefficient of the mean squared weight, which is added to the loss (makemore part 1)."""
    clip: float = Field(1.0, ge=0)
    """Largest gradient norm; larger gradients are scaled down, and 0 means no limit."""


class ScheduleConfig(Settings):
    """The learning rate."""

    lr: float | str | None = None
    """Peak learning rate; None takes one that suits the model and its size, "auto" finds one with a
    learning-rate range test."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Share of the training in which the learning rate rises linearly from zero."""
    decay: Literal["cosine", "linear", "constant"] = "linear"
    """Shape of the learning-rate schedule after the warmup."""
    final_lr: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a fraction of `lr`."""

    @field_validator("lr")
    @classmethod
    def _check_lr(cls, value: float | str | None) -> float | str | None:
        if value is None or value == "auto" or (isinstance(value, float) and value > 0):
            return value
        raise ValueError("give a rate above 0, or auto")


class EvaluationConfig(Settings):
    """Evaluation during the training, and early stopping."""

    eval_every: int | None = Field(None, ge=1)
    """Steps between evaluations of the whole validation split; None keeps their cost under a tenth
    of the training."""
    patience: int = Field(10, ge=0)
    """Consecutive evaluations without improvement after which training stops; 0 means never."""


class CheckpointConfig(Settings):
    """Checkpoints."""

    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; None writes one after an evaluation, at most every 30 seconds."""


class DeviceConfig(Settings):
    """The device, and how it computes."""

    device: str = "auto"
    """PyTorch device to train on; "auto" takes a CUDA GPU where there is one, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the matrix products in training (weights, losses and evaluations are float32); "auto"
    is bfloat16 on GPUs that support it, float16 on other GPUs, and float32 on CPUs."""
    activation_checkpointing: bool = False
    """Whether to recompute each GPT layer's activations in the backward pass: less memory, about a
    third more compute (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost")."""
    compile: bool = False
    """Whether to compile the model with torch.compile, which needs a C++ compiler."""


class DistributedConfig(Settings):
    """Training with several processes."""

    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Whether each process holds all weights (ddp) or a shard of them (fsdp); "auto" is ddp where
    the model fits into the memory of each device."""


class TrackingConfig(Settings):
    """Experiment trackers."""

    track: str | None = None
    """Trackers that also receive the metrics: tensorboard, wandb, or both with a comma."""


class TrainConfig(
    TrackingConfig,
    DistributedConfig,
    DeviceConfig,
    CheckpointConfig,
    EvaluationConfig,
    ScheduleConfig,
    OptimizerConfig,
    BatchConfig,
    BudgetConfig,
):
    """How to train; shares are of the whole training, whatever its length is measured in."""


class AutoConfig(ModelConfig):
    """The model that suits text, machine and time: the planner puts another in its place."""

    name: Literal["auto"] = "auto"


class RunConfig(Settings):
    """Everything that decides a run."""

    seed: int = Field(0, ge=0, lt=2**63)
    init_from: str | None = None
    """A run whose weights the training starts from; the model and the tokenizer are then its."""
    data: DataConfig = DataConfig()
    model: SerializeAsAny[ModelConfig]
    train: TrainConfig = TrainConfig()


def normalize(tree: Mapping[str, Any], *, warn: bool = True) -> Tree:
    """Expand the short form `model = "mlp"` and rename deprecated settings.

    Args:
        tree: nested settings.
        warn: whether to warn about deprecated names.
    """
    tree = migrate(tree, warn=warn)
    short = tree.get("model")
    return {**tree, "model": {"name": short}} if isinstance(short, str) else tree


def resolve(*trees: Mapping[str, Any], warn: bool = True) -> RunConfig:
    """Merge `trees`, later ones winning, and check the result.

    Args:
        trees: nested settings.
        warn: whether to warn about deprecated names.

    Raises:
        MoreishError: an unknown key (the nearest is named), or a value that does not fit.
    """
    tree: Tree = {}
    for layer in trees:
        if not isinstance(layer, Mapping):
            raise MoreishError(f"settings are groups of name = value, not {layer!r}")
        layer = normalize(layer, warn=warn)
        for group in ("data", "model", "train"):
            if not isinstance(layer.get(group, {}), Mapping):
                raise MoreishError(f"setting {group}={layer[group]}: it is a group of settings")
        budgets = [name for name in BUDGETS if layer.get("train", {}).get(name) is not None]
        if len(budgets) > 1:
            raise MoreishError(f"give one of {' and '.join(budgets)}, not both")
        if budgets:  # a later budget replaces an earlier one of another kind
            earlier = {k: v for k, v in tree.get("train", {}).items() if k not in BUDGETS}
            tree = {**tree, "train": earlier}
        tree = merge(tree, layer)
    if unknown := set(tree) - set(RunConfig.model_fields):
        key = min(unknown)
        name = {"name": "gpt", **tree.get("model", {})}["name"]
        name = "gpt" if name == AUTO else name
        inner: dict[str, type[Settings]] = {
            "data": DataConfig,
            "model": model_class(name).Config,
            "train": TrainConfig,
        }
        full = [f"{group}.{key}" for group, config in inner.items() if key in config.model_fields]
        hint = f"did you mean '{full[0]}'?" if full else nearest(key, RunConfig.model_fields)
        raise MoreishError(f"unknown setting {key}: {hint}")
    model: ModelConfig
    defaults: Mapping[str, Any]
    asked = {"name": "gpt", **(tree.get("model") or {"name": AUTO})}
    if asked["name"] == AUTO:  # the data will tell
        if set(asked) != {"name"}:
            raise MoreishError(
                f"setting model.{min(set(asked) - {'name'})}: auto chooses these; name a model, "
                "e.g. --model hybrid"
            )
        model, defaults, counted = AutoConfig(), {}, False
    else:
        model = model_config(asked)
        defaults = model_class(model.name).defaults_for(model)
        counted = issubclass(model_class(model.name), CountBasedModel)
    parsed = TrainConfig.parse(merge(defaults, tree.get("train", {})), "train")
    if not counted and all(getattr(parsed, name) is None for name in BUDGETS):
        parsed = parsed.model_copy(update={"minutes": DEFAULT_MINUTES})
    return RunConfig.parse(
        {
            **tree,
            "model": model,
            "train": parsed,
            "data": DataConfig.parse(tree.get("data", {}), "data"),
        },
        "run",
    )
