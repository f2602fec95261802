"""The settings of a run.

From weak to strong: the defaults below, what suits the model, a recipe (TOML), and options or
`--set`. docs/settings.md lists all of them; those without a description have an option of the same
name in `moreish.options`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from moreish.data import CleaningOptions, CorpusKind, SplitRule
from moreish.errors import MoreishError, nearest
from moreish.models import REGISTRY, CountBasedModel, ModelConfig, model_class, model_config
from moreish.options import command_words
from moreish.settings import SYNONYMS, Settings, Tree, merge, migrate
from moreish.tasks import PREFIX, TaskConfig, task_config
from moreish.tokenizers import TargetForm, VocabularyLimits
from moreish.utils.files import is_in_memory

BUDGETS = ("steps", "minutes", "epochs")
DEFAULT_MINUTES = 1.0
AUTO = "auto"


class DataConfig(CleaningOptions):
    """What to learn from, and how to read, clean, split and tokenize it."""

    source: str | Annotated[list[str], Field(min_length=1)] = "names"
    """Built-in data set, text file, folder of text files, or folder made by `moreish prepare`; or
    several files, folders and data sets."""
    kind: CorpusKind | None = None
    encoding: str = "utf-8"
    column: str | None = None
    """Name or number of the column to learn, in a table (CSV, TSV, JSON, JSON lines, Parquet)."""
    input: str | None = None
    target: str | None = None
    target_form: TargetForm | None = None
    """What the targets of examples are: text, words of a small vocabulary, or a label as a whole
    (default: guess)."""
    fold_case: bool | None = None
    """Whether inputs of examples are read in lower case (default: if they are words and targets are
    labels, or if all of them are in lower case)."""
    mask_inputs: bool = True
    """Whether the inputs of examples have no loss in training."""
    separator: str | None = Field(None, min_length=1)
    """Text between the documents of a file; `<|endoftext|>` is recognized without it."""
    validation_file: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Files of the validation split; the source is then the training split as a whole."""
    test_file: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Files of the test split, beside those of the validation split."""
    split: SplitRule = "seeded"
    split_seed: int = Field(42, ge=0, lt=2**63)
    """Random seed of the split, apart from `seed` so that runs of several seeds share one split."""
    tokenizer: str = "char"
    vocab_size: int | None = Field(None, ge=1, le=2**24)
    min_word_count: int = Field(VocabularyLimits().min_word_count, ge=1)
    """Number of occurrences below which the word tokenizer treats a word as unknown."""
    weights: dict[str, float] | None = None
    """Share of each source in the training batches, for a folder made by `moreish prepare`; the
    shares need not add up to one, and without them every epoch contains everything once."""

    @field_validator("column", "input", "target", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and (not value or min(value.values()) < 0):
            raise ValueError("give each source a share of 0 or more")
        return value

    def arguments(self) -> list[str]:
        """Command-line arguments that read the sources with these settings; `-` is a text in
        memory."""
        return [*("-" if is_in_memory(each) else each for each in self.sources), *self.options()]

    def options(self) -> list[str]:
        """Command-line options with which a source is read with these settings."""
        defaults = type(self)()
        names = (
            *("kind", "encoding", "column", "input", "target", "separator"),
            *CleaningOptions.model_fields,
        )
        changed = {n: v for n in names if (v := getattr(self, n)) != getattr(defaults, n)}
        return command_words(changed)

    @property
    def sources(self) -> list[str]:
        """All sources."""
        return [self.source] if isinstance(self.source, str) else self.source

    @property
    def limits(self) -> VocabularyLimits:
        """The limits of the vocabulary."""
        return VocabularyLimits(vocab_size=self.vocab_size, min_word_count=self.min_word_count)

    @property
    def cleaning(self) -> CleaningOptions:
        """How to clean the text."""
        return CleaningOptions(**self.model_dump(include=set(CleaningOptions.model_fields)))


class BudgetConfig(Settings):
    """Length of training; set at most one of these."""

    steps: int | None = Field(None, ge=1, le=10**12)
    """Number of optimizer steps."""
    minutes: float | None = Field(None, gt=0, le=60 * 24 * 3660)
    """Minutes of training, evaluations included (default 1)."""
    epochs: float | None = Field(None, gt=0, le=10**9)
    """Number of passes over the training split."""


class BatchConfig(Settings):
    """Batches."""

    batch_size: int | str | None = None
    """Items, or windows of running text, per step; "all" takes the whole training split, and None
    as many as fill `batch_tokens`."""
    batch_tokens: int = Field(1024, ge=1)
    """Tokens per step where `batch_size` is not set."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step, shared among the processes; the gradient is that of the whole
    batch."""
    length_warmup: float = Field(0, ge=0, lt=1)
    """Fraction of the run in which windows of running text are a quarter as long (Li, Zhang and
    He 2022, "The Stability-Efficiency Dilemma")."""

    @field_validator("batch_size")
    @classmethod
    def _check_batch_size(cls, value: int | str | None) -> int | str | None:
        if value is None or value == "all" or (isinstance(value, int) and value >= 1):
            return value
        raise ValueError("give 1 or more, or all")


class OptimizerConfig(Settings):
    """Optimizer and regularization."""

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
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target's probability that training gives to all tokens alike."""
    clip: float = Field(1.0, ge=0)
    """Largest gradient norm; larger gradients are scaled down, and 0 means no limit."""


class ScheduleConfig(Settings):
    """Learning rate."""

    lr: float | str | None = None
    """Peak learning rate; None takes one that suits the model and its size, "auto" finds one with a
    learning-rate range test."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Fraction of the run in which the learning rate rises linearly from zero."""
    decay: Literal["cosine", "linear", "constant", "step"] = "linear"
    """Shape of the learning-rate schedule after the warmup; "step" multiplies the learning rate by
    `decay_factor` once, at `decay_at`."""
    final_lr: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end of a cosine or linear decay, as a fraction of `lr`."""
    decay_at: float = Field(0.5, gt=0, lt=1)
    """Fraction of the run after which a step decay lowers the learning rate."""
    decay_factor: float = Field(0.1, ge=0, le=1)
    """Factor by which a step decay lowers the learning rate."""

    @field_validator("lr")
    @classmethod
    def _check_lr(cls, value: float | str | None) -> float | str | None:
        if value is None or value == "auto" or (isinstance(value, float) and value > 0):
            return value
        raise ValueError("give a rate above 0, or auto")


class EvaluationConfig(Settings):
    """Evaluation and early stopping."""

    eval_every: int | None = Field(None, ge=1)
    """Steps between evaluations of the whole validation split; None keeps their cost under a tenth
    of the run."""
    eval_at_start: bool = False
    """Whether to evaluate and sample the untrained model before the first step."""
    patience: int = Field(10, ge=0)
    """Consecutive evaluations without improvement after which training stops; 0 means never."""


class CheckpointConfig(Settings):
    """Checkpoints."""

    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; None writes one after an evaluation, at most every 30 seconds."""


class DeviceConfig(Settings):
    """Device and precision."""

    device: str = "auto"
    """PyTorch device to train on; "auto" takes a CUDA GPU; else, for a network without
    counts, the GPU of a Mac (mps); else the CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the matrix products in training (weights, losses and evaluations are float32); "auto"
    is bfloat16 on GPUs that support it, float16 on other GPUs, and float32 on CPUs."""
    activation_checkpointing: bool = False
    """Whether to recompute each GPT layer's activations in the backward pass: less memory, about a
    third more compute (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost")."""
    compile: bool = False
    """Whether to compile the model with torch.compile, which needs a C++ compiler."""


class DistributedConfig(Settings):
    """Several processes."""

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
    """How to train. Fractions are of the whole run, in any unit of its length."""


class AutoConfig(ModelConfig):
    """Leaves the model to the planner, which replaces this with the settings of a model."""

    name: Literal["auto"] = "auto"


class RunConfig(Settings):
    """Everything that decides the result of a run."""

    seed: int = Field(0, ge=0, lt=2**63)
    init_from: str | None = None
    """Run to start from, or `hf:` and a Hugging Face model; it decides the model and the
    tokenizer."""
    data: DataConfig = DataConfig()
    task: SerializeAsAny[TaskConfig] | None = None
    """Settings of the task, where the source is one: its size, and in which form it is learned."""
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
    """Merge nested settings, later ones winning, and check the result.

    Args:
        trees: nested settings, such as those of a recipe and of the command line.
        warn: whether to warn about deprecated names.

    Raises:
        MoreishError: a key is unknown (the nearest is named), or a value does not fit.
    """
    tree: Tree = {}
    for layer in trees:
        tree = _merge_layer(tree, layer, warn)
    if unknown := set(tree) - set(RunConfig.model_fields):
        raise _unknown_key(min(unknown), tree)
    model, defaults = _resolve_model(tree.get("model") or {"name": AUTO})
    train = TrainConfig.parse(merge(defaults, tree.get("train", {})), "train")
    counts = model.name != AUTO and issubclass(model_class(model.name), CountBasedModel)
    if not counts and all(getattr(train, name) is None for name in BUDGETS):
        train = train.model_copy(update={"minutes": DEFAULT_MINUTES})
    data = DataConfig.parse(tree.get("data", {}), "data")
    task = _resolve_task(data, tree.get("task"))
    groups = {"model": model, "train": train, "data": data, "task": task}
    return RunConfig.parse({**tree, **groups}, "run")


def _resolve_task(data: DataConfig, requested: Mapping[str, Any] | None) -> TaskConfig | None:
    """Return the settings of the task that is the source, if it is one."""
    first, *more = data.sources
    if not first.startswith(PREFIX):
        if requested:
            raise MoreishError(
                f"setting task.{min(requested)}: {data.source} is no task; one is {PREFIX}addition"
            )
        return None
    if more:
        raise MoreishError(f"{first} cannot be combined with other sources")
    values = {key: value for key, value in (requested or {}).items() if key != "name"}
    return task_config(first.removeprefix(PREFIX), values)


def _merge_layer(tree: Tree, layer: Any, warn: bool) -> Tree:
    """Merge a layer of settings into those below it."""
    if not isinstance(layer, Mapping):
        raise MoreishError(f"settings are groups of name = value, not {layer!r}")
    layer = normalize(layer, warn=warn)
    for group in ("data", "model", "train", "task"):
        if not isinstance(layer.get(group) or {}, Mapping):
            raise MoreishError(f"setting {group}={layer[group]}: it is a group of settings")
    budgets = [name for name in BUDGETS if layer.get("train", {}).get(name) is not None]
    if len(budgets) > 1:
        raise MoreishError(f"give one of {' and '.join(budgets)}, not both")
    if budgets:  # a budget replaces a budget of another kind below it
        rest = {k: v for k, v in tree.get("train", {}).items() if k not in BUDGETS}
        tree = {**tree, "train": rest}
    return merge(tree, layer)


def _resolve_model(requested: Mapping[str, Any]) -> tuple[ModelConfig, Mapping[str, Any]]:
    """The checked settings of the model, and the training settings that suit it."""
    requested = {"name": "gpt", **requested}
    name = requested["name"]
    if isinstance(name, str) and name not in (models := [AUTO, *REGISTRY]):
        raise MoreishError(f"unknown model '{name}': {nearest(name, models)}")
    if name != AUTO:
        model = model_config(requested)
        return model, model_class(model.name).defaults_for(model)
    if others := set(requested) - {"name"}:
        raise MoreishError(
            f"setting model.{min(others)}: the planner chooses it; name a model to set it, e.g. "
            "--model hybrid"
        )
    return AutoConfig(), {}


def _unknown_key(key: str, tree: Tree) -> MoreishError:
    """The error for an unknown top-level key; it may be the name of a setting in a group."""
    name = tree.get("model", {}).get("name", "gpt")
    groups: dict[str, type[Settings]] = {
        "data": DataConfig,
        "model": model_class("gpt" if name == AUTO else name).Config,
        "train": TrainConfig,
    }
    ours = SYNONYMS.get(key, key)
    full = [f"{group}.{ours}" for group, config in groups.items() if ours in config.model_fields]
    hint = f"did you mean '{full[0]}'?" if full else nearest(key, RunConfig.model_fields)
    return MoreishError(f"unknown setting {key}: {hint}")
