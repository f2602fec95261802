"""The planner: chooses model, context and batch for a text, a machine and a budget.

The constants were measured: docs/dev-log.md has the runs.
"""

import math
import time
from dataclasses import dataclass, replace

from moreish.config import BUDGETS, AutoConfig, RunConfig, TrainConfig
from moreish.data import IGNORE_INDEX, TokenDataset
from moreish.models import (
    MAX_COUNTED_TOKENS,
    CountBasedModel,
    HybridConfig,
    model_class,
    model_config,
)
from moreish.settings import Tree, merge
from moreish.training import (
    StepPlan,
    Trainer,
    TrainingSetup,
    TrainState,
    available_memory,
    build_sampler,
    count_parameters,
    default_lr,
    measure_step_seconds,
    next_token_loss,
)
from moreish.ui import plural

SIZES = (
    (1, 32, 1),
    (1, 64, 2),
    (2, 64, 2),
    (2, 96, 3),
    (3, 128, 4),
    (4, 192, 6),
    (6, 256, 8),
    (6, 384, 6),
    (8, 512, 8),
    (12, 768, 12),
)
"""Layers, width and heads, from small to large."""

MIN_PREDICTIONS_PER_WEIGHT = 8
"""Predictions that a network should be trained on per weight of its blocks: with fewer, a smaller
network reaches a lower loss. (With n-gram counts, which do most of the work; Hoffmann et al. 2022
found 20 for networks alone.)"""

MAX_WEIGHTS_PER_TOKEN = 4
"""Weights per training token above which a network only memorizes the text."""

MIN_NETWORK_TOKENS = 2_000
"""Training tokens below which a network learns nothing that n-gram counts do not contain."""

MIN_NETWORK_ITEMS = 20
"""Distinct items of a list below which a network could only memorize them."""

MIN_NETWORK_SECONDS = 3.0
"""Budget in seconds below which only n-gram counts are worthwhile."""

MAX_COUNTING_SHARE = 0.2
"""Share of the budget that counting may take; beyond it, the plan has no n-gram counts."""

COUNTS_PER_SECOND = 8e6
"""Predictions counted per second, all orders together."""

MAX_PLANNING_SECONDS = 2.0
"""Seconds after which no further size is measured; its speed is extrapolated from the others."""

ASSUMED_FLOPS = 5e10
"""FLOP/s of a machine before the first measurement."""

TRIAL_TOKENS = 50_000
"""Tokens of the text that a speed measurement uses."""

TRIAL_SECONDS = 0.3
"""Approximate duration of a speed measurement, in seconds."""

MAX_COUNTED_VOCABULARY = 1000
"""Vocabulary size above which rows of counts, one number per token, cost more than the network."""

CONTEXT = 384
"""Context length of planned networks, in tokens."""

PLANNED_NETWORK: Tree = {
    "name": "gpt",
    "positions": "rotary",
    "qk_norm": True,
    "feedforward": "relu2",
    "softcap": 15.0,
    "bias": False,
}
PLANNED_TRAIN: Tree = {
    "optimizer": "muon",
    "weight_decay": 0.1,
    "batch_tokens": 1024,
    "length_warmup": 0.4,
}

DROPOUT = ((5, 0.0), (25, 0.1), (float("inf"), 0.2))
"""Dropout by the number of passes over the text, up to each bound."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings that suit the text, the machine and the budget, with three sentences of reasons."""

    config: RunConfig
    reasons: tuple[str, str, str]


def resolve_auto_model(setup: TrainingSetup) -> tuple[TrainingSetup, tuple[str, ...]]:
    """Returns `setup` with a planned model and the reasons; unchanged if the user chose a model."""
    if not isinstance(setup.config.model, AutoConfig):
        return setup, ()
    plan = plan_run(setup)
    return replace(setup, config=plan.config), plan.reasons


def plan_run(setup: TrainingSetup, *, counts: bool = True) -> Plan:
    """Chooses model, context, batch and regularization for the budget of `setup`.

    Settings of `train.*` that the user gave are kept.

    Args:
        setup: data, tokenizer and settings, with `model=auto`.
        counts: whether the plan may use n-gram counts.
    """
    train, tokens = setup.config.train, setup.splits["train"].num_predictions
    seconds = None if train.minutes is None else train.minutes * 60
    few_items = setup.facts.distinct < MIN_NETWORK_ITEMS <= setup.facts.documents
    if tokens < MIN_NETWORK_TOKENS or few_items:
        why = "The text is too small to train a network on."
        return _counts(setup, why)
    if seconds is not None and seconds < MIN_NETWORK_SECONDS:
        why = f"{seconds:.2g} s is too short to train a network."
        return _counts(setup, why)
    room = available_memory()
    folds, why = _folds(setup, seconds, room) if counts else (0, "no counts were requested")
    speeds, began = _Speeds(setup, folds), time.perf_counter()
    sizes = [size for size in SIZES if _weights(size) <= MAX_WEIGHTS_PER_TOKEN * tokens]
    for _ in SIZES:  # what was measured last may make another the best
        smallest, *larger = (_choice(setup, size, folds, speeds) for size in sizes or SIZES[:1])
        best = next((choice for choice in reversed(larger) if choice.suits(room)), smallest)
        late = time.perf_counter() - began > MAX_PLANNING_SECONDS
        if seconds is None or best.measured or (late and speeds.measured):
            break
        speeds.measure(best.size)
    return Plan(config=best.config, reasons=_reasons(setup, best, folds, why))


class _Speeds:
    """Training speed of networks of each size on this machine, in predictions per second."""

    def __init__(self, setup: TrainingSetup, folds: int) -> None:
        self.setup, self.folds = setup, folds
        self.measured: dict[tuple[int, int, int], float] = {}

    def measure(self, size: tuple[int, int, int]) -> None:
        config = _settings(self.setup, size, self.folds, dropout=0.0)
        self.measured[size] = _rate(replace(self.setup, config=config))

    def of(self, size: tuple[int, int, int]) -> float:
        """Returns the measured speed, or one extrapolated from the nearest measured size."""
        if not self.measured:
            return ASSUMED_FLOPS / _work(size)
        nearest = min(self.measured, key=lambda known: abs(math.log(_work(known) / _work(size))))
        return self.measured[nearest] * _work(nearest) / _work(size)


def _work(size: tuple[int, int, int]) -> float:
    """FLOPs per prediction: those of the weights, plus a part that is the same for all sizes."""
    return 6.0 * (_weights(size) + 10_000)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A network size, and what the budget allows for it."""

    size: tuple[int, int, int]
    config: RunConfig
    dropout: float
    parameters: int
    predictions: float
    """Predictions that it would be trained on."""
    rate: float | None
    """Predictions per second; None if the budget is in steps or epochs."""
    measured: bool
    """Whether the rate was measured, and not extrapolated from another size."""
    memory: float
    """Memory of a training, in bytes."""

    def suits(self, room: float) -> bool:
        enough = self.predictions >= MIN_PREDICTIONS_PER_WEIGHT * _weights(self.size)
        return enough and self.memory <= room


def _folds(setup: TrainingSetup, seconds: float | None, room: float) -> tuple[int, str]:
    """Returns the number of folds for cross-fitted counts and how long counting takes, or 0 and why
    the plan has no counts."""
    tokens, most = setup.splits["train"].num_predictions, HybridConfig.model_fields["folds"].default
    if setup.tokenizer.vocab_size > MAX_COUNTED_VOCABULARY:
        return 0, "the vocabulary is too large to count n-grams"
    folds = max(2, min(most, MAX_COUNTED_TOKENS // tokens))
    if seconds is not None:
        affordable = int(MAX_COUNTING_SHARE * seconds * COUNTS_PER_SECOND / tokens) - 1
        if affordable < 2:
            return 0, f"counting n-grams would take {_span(3 * tokens / COUNTS_PER_SECOND)}"
        folds = min(folds, affordable)
    while folds >= 2 and _memory_of_counts(setup, folds) > room / 2:
        folds -= 1
    if folds < 2:
        return 0, "n-gram counts would not fit into the free memory"
    return folds, _span((1 + folds) * tokens / COUNTS_PER_SECOND)


def _choice(
    setup: TrainingSetup, size: tuple[int, int, int], folds: int, speeds: _Speeds
) -> _Choice:
    train, tokens = setup.config.train, setup.splits["train"]
    config = _settings(setup, size, folds, dropout=0.0)
    rate = None
    if train.steps is not None:
        predictions = float(train.steps * config.train.batch_tokens)
    elif train.epochs is not None:
        predictions = train.epochs * tokens.num_predictions
    else:
        assert train.minutes is not None
        rate = speeds.of(size)
        predictions = rate * train.minutes * 60
    passes = predictions / tokens.num_predictions
    dropout = next(share for most, share in DROPOUT if passes <= most)
    config = _settings(setup, size, folds, dropout=dropout)
    parameters = count_parameters(config.model, setup.tokenizer.vocab_size)
    layers, width, _ = size
    activations = config.train.batch_tokens * (
        layers * width * 160 + 16 * setup.tokenizer.vocab_size
    )
    memory: float = 16 * parameters + activations
    memory += _memory_of_counts(setup, folds) if folds else 0
    return _Choice(
        size=size,
        config=config,
        dropout=dropout,
        parameters=parameters,
        predictions=predictions,
        rate=rate,
        measured=size in speeds.measured,
        memory=memory,
    )


def _settings(
    setup: TrainingSetup, size: tuple[int, int, int], folds: int, *, dropout: float
) -> RunConfig:
    layers, width, heads = size
    network: Tree = {
        **PLANNED_NETWORK,
        "layers": layers,
        "width": width,
        "heads": heads,
        "dropout": dropout,
    }
    longest = setup.facts.longest_item
    network["context"] = CONTEXT if longest is None else min(CONTEXT, longest + 1)
    if not folds:
        small = setup.tokenizer.vocab_size <= MAX_COUNTED_VOCABULARY
        # Items are too few to learn embeddings of n-grams from (docs/dev-log.md).
        network["ngram_embedding"] = 5 if small and longest is None else 1
    model: Tree = {"name": "hybrid", "folds": folds, "network": network} if folds else network
    return _run(setup, model, PLANNED_TRAIN)


def _run(setup: TrainingSetup, model: Tree, train: Tree) -> RunConfig:
    """Returns these settings fitted to the data, overridden by the user's `train.*`."""
    config = model_config(model).for_data(setup.facts.longest_item, setup.tokenizer.vocab_size)
    defaults = model_class(config.name).defaults_for(config)
    chosen = setup.config.train.model_dump(exclude_unset=True)
    if issubclass(model_class(config.name), CountBasedModel):
        chosen = {key: value for key, value in chosen.items() if key not in BUDGETS}
    parsed = TrainConfig.parse(merge(defaults, train, chosen), "train")
    return setup.config.model_copy(update={"model": config, "train": parsed})


def _rate(setup: TrainingSetup) -> float:
    """Measures predictions per second in a short training on the beginning of the text."""
    tokens = _beginning(setup.splits["train"])
    model = setup.model()
    model.fit_counts(tokens)
    train = setup.config.train
    lr = default_lr(model, train.optimizer)
    trainer = Trainer(
        model,
        build_sampler(setup.config, tokens, model),
        train.model_copy(update={"lr": lr, "compile": False}),
        objective=next_token_loss,
        state=TrainState(plan=StepPlan(steps=1, eval_every=1)),
        device=setup.device,
    )
    seconds = measure_step_seconds(trainer, lambda: False, seconds=TRIAL_SECONDS)
    batch = trainer.sampler.batch(0)
    return float((batch.targets_BT != IGNORE_INDEX).sum()) / seconds


def _beginning(tokens: TokenDataset) -> TokenDataset:
    last = min(len(tokens.ids_N), TRIAL_TOKENS)
    if tokens.items:  # up to the end of an item
        last = (
            int(tokens.boundaries[tokens.boundaries < max(last, tokens.longest_item + 2)][-1]) + 1
        )
    return replace(tokens, ids_N=tokens.ids_N[:last])


def _counts(setup: TrainingSetup, why: str) -> Plan:
    config = _run(setup, {"name": "kneser-ney"}, {})
    seconds = setup.splits["train"].num_predictions / COUNTS_PER_SECOND
    plan = f"Plan: n-gram counts (Kneser-Ney, {_span(seconds)})."
    return Plan(config=config, reasons=(_text(setup), why, plan))


def _text(setup: TrainingSetup) -> str:
    facts, tokens = setup.facts, setup.splits["train"].num_predictions
    lines = facts.kind == "lines"
    number, unit = (facts.documents, "items") if lines else (facts.characters, "characters")
    return (
        f"{facts.name}: {number:,} {unit}. Training on {tokens:,} tokens, "
        f"{facts.vocabulary:,} of them distinct."
    )


def _reasons(setup: TrainingSetup, best: _Choice, folds: int, why: str) -> tuple[str, str, str]:
    """`why`: how long counting takes, or why the plan has no counts."""
    layers, width, _ = best.size
    shape = f"{plural(layers, 'layer')}, width {width}, {best.parameters:,} parameters"
    passes = best.predictions / setup.splits["train"].num_predictions
    times = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
    minutes = setup.config.train.minutes
    if best.rate is None or minutes is None:
        reads = f"The budget is {best.predictions:,.0f} tokens, {times} times the text"
    else:
        about = "" if best.measured else "about "
        reads = (
            f"At {about}{best.rate:,.0f} tokens/s this machine reads the text {times} times "
            f"in {minutes:g} min"
        )
    dropout = f", so the plan adds dropout {best.dropout}." if best.dropout else "."
    if folds:
        model = f"Plan: n-gram counts ({why}) plus a GPT ({shape}) trained to correct them."
    else:
        model = f"Plan: a GPT ({shape}) without n-gram counts, because {why}."
    return _text(setup), reads + dropout, model


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"


def _weights(size: tuple[int, int, int]) -> int:
    """Parameters of the blocks, which determine the training time."""
    layers, width, _ = size
    return 12 * layers * width**2


def _memory_of_counts(setup: TrainingSetup, folds: int) -> float:
    """Estimates the memory of n-gram counts in bytes: 20 MB for a million tokens of ordinary text,
    2.5 GB for a billion; plus what assigning the items of a list to folds takes."""
    tokens, lines = setup.splits["train"].num_predictions, setup.facts.kind == "lines"
    return (1 + folds) * 20e6 * (tokens / 1e6) ** 0.7 + 40 * lines * setup.facts.documents
