"""What to train in the time there is, on this machine, of this text.

What is known here was measured: docs/dev-log.md has the runs.
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

TOKENS_A_PARAMETER = 8
"""How many predictions a network should be trained on for each of its parameters: with fewer, a
smaller one would be better by then. (With counts that carry most of the weight; Hoffmann et al.
2022 found 20 for networks alone.)"""

PARAMETERS_A_TOKEN = 4
"""More weights than so many for each token of the text only learn it by heart."""

LEAST_TOKENS = 2_000
"""Training tokens below which a network learns nothing that counts do not know."""

LEAST_ITEMS = 20
"""Different items of a list, below which there is nothing but to remember them."""

LEAST_SECONDS = 3.0
"""Budget below which only counting is worth while."""

COUNTING = 0.2
"""Share of the budget that counting may take. Beyond it, a network has to do without."""

COUNTS_A_SECOND = 8e6
"""Predictions that are counted in a second, all orders together."""

PLANNING = 2.0
"""Seconds after which no further size is tried: its speed is judged by those that were."""

OPERATIONS = 5e10
"""A second, of a machine of which nothing is known yet."""

TRIAL_TOKENS = 50_000
"""Of the text, for a trial of the speed."""

TRIAL = 0.3
"""Seconds of a trial, more or less."""

LARGEST_VOCABULARY = 1000
"""Beyond it whole rows of counts, one number for each token, cost more than the network."""

CONTEXT = 384

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
"""By the most times that the text is seen."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that suits text, machine and time."""

    config: RunConfig
    reasons: tuple[str, str, str]


def resolve_auto_model(ready: TrainingSetup) -> tuple[TrainingSetup, tuple[str, ...]]:
    """`ready` with a model, and the reasons for it; as it is, where the user chose one."""
    if not isinstance(ready.config.model, AutoConfig):
        return ready, ()
    advice = plan_run(ready)
    return replace(ready, config=advice.config), advice.reasons


def plan_run(ready: TrainingSetup, *, counts: bool = True) -> Plan:
    """The model, context, batch and regularisation for the budget of `ready`.

    What the user set of `train.*` stays as it is.

    Args:
        counts: whether there may be any; without, a network is alone.
    """
    train, tokens = ready.config.train, ready.splits["train"].num_predictions
    seconds = None if train.minutes is None else train.minutes * 60
    if tokens < LEAST_TOKENS or ready.facts.distinct < LEAST_ITEMS <= ready.facts.documents:
        why = "That is too little for a network, so what can be counted is counted: Kneser-Ney."
        return _counts(ready, why)
    if seconds is not None and seconds < LEAST_SECONDS:
        why = f"{seconds:.2g} seconds are too few for a network, so this only counts: Kneser-Ney."
        return _counts(ready, why)
    room = available_memory()
    folds, why = _folds(ready, seconds, room) if counts else (0, "as was asked.")
    speeds, began = _Speeds(ready, folds), time.perf_counter()
    sizes = [size for size in SIZES if _weights(size) <= PARAMETERS_A_TOKEN * tokens]
    for _ in SIZES:  # what was measured last may make another the best
        smallest, *larger = (_choice(ready, size, folds, speeds) for size in sizes or SIZES[:1])
        best = next((choice for choice in reversed(larger) if choice.suits(room)), smallest)
        late = time.perf_counter() - began > PLANNING
        if seconds is None or best.measured or (late and speeds.measured):
            break
        speeds.measure(best.size)
    return Plan(config=best.config, reasons=_reasons(ready, best, folds, why))


class _Speeds:
    """How many predictions a second networks of each size are trained on here, with counts in so
    many folds."""

    def __init__(self, ready: TrainingSetup, folds: int) -> None:
        self.ready, self.folds = ready, folds
        self.measured: dict[tuple[int, int, int], float] = {}

    def measure(self, size: tuple[int, int, int]) -> None:
        config = _settings(self.ready, size, self.folds, dropout=0.0)
        self.measured[size] = _rate(replace(self.ready, config=config))

    def of(self, size: tuple[int, int, int]) -> float:
        """As measured, or judged by the nearest size that was."""
        if not self.measured:
            return OPERATIONS / _work(size)
        nearest = min(self.measured, key=lambda known: abs(math.log(_work(known) / _work(size))))
        return self.measured[nearest] * _work(nearest) / _work(size)


def _work(size: tuple[int, int, int]) -> float:
    """Operations for a prediction: those of the weights, and what is the same for all sizes."""
    return 6.0 * (_weights(size) + 10_000)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A size, and how far it would come."""

    size: tuple[int, int, int]
    config: RunConfig
    dropout: float
    parameters: int
    predictions: float
    """That the budget lets it be trained on."""
    rate: float | None
    """Predictions a second; None where the budget is in steps or epochs."""
    measured: bool
    """Whether the rate was; else it was judged by another size's."""
    memory: float
    """Bytes that it needs."""

    def suits(self, room: float) -> bool:
        enough = self.predictions >= TOKENS_A_PARAMETER * _weights(self.size)
        return enough and self.memory <= room


def _folds(ready: TrainingSetup, seconds: float | None, room: float) -> tuple[int, str]:
    """How many parts of the text the counts are to be made without, and how long that takes; 0:
    they cost too much, and what."""
    tokens, most = ready.splits["train"].num_predictions, HybridConfig.model_fields["folds"].default
    if ready.tokenizer.vocab_size > LARGEST_VOCABULARY:
        return 0, "there are too many kinds of tokens to count."
    folds = max(2, min(most, MAX_COUNTED_TOKENS // tokens))
    if seconds is not None:
        affordable = int(COUNTING * seconds * COUNTS_A_SECOND / tokens) - 1
        if affordable < 2:
            return 0, f"counting would take {_span(3 * tokens / COUNTS_A_SECOND)}."
        folds = min(folds, affordable)
    while folds >= 2 and _memory_of_counts(ready, folds) > room / 2:
        folds -= 1
    if folds < 2:
        return 0, "counts would not fit into the memory that is free."
    return folds, _span((1 + folds) * tokens / COUNTS_A_SECOND)


def _choice(
    ready: TrainingSetup, size: tuple[int, int, int], folds: int, speeds: _Speeds
) -> _Choice:
    train, tokens = ready.config.train, ready.splits["train"]
    config = _settings(ready, size, folds, dropout=0.0)
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
    config = _settings(ready, size, folds, dropout=dropout)
    parameters = count_parameters(config.model, ready.tokenizer.vocab_size)
    layers, width, _ = size
    activations = config.train.batch_tokens * (
        layers * width * 160 + 16 * ready.tokenizer.vocab_size
    )
    memory: float = 16 * parameters + activations
    memory += _memory_of_counts(ready, folds) if folds else 0
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
    ready: TrainingSetup, size: tuple[int, int, int], folds: int, *, dropout: float
) -> RunConfig:
    layers, width, heads = size
    network: Tree = {
        **PLANNED_NETWORK,
        "layers": layers,
        "width": width,
        "heads": heads,
        "dropout": dropout,
    }
    longest = ready.facts.longest_item
    network["context"] = CONTEXT if longest is None else min(CONTEXT, longest + 1)
    if not folds:
        small = ready.tokenizer.vocab_size <= LARGEST_VOCABULARY
        # Items are too few to learn embeddings of n-grams from (docs/dev-log.md).
        network["ngram_embedding"] = 5 if small and longest is None else 1
    model: Tree = {"name": "hybrid", "folds": folds, "network": network} if folds else network
    return _run(ready, model, PLANNED_TRAIN)


def _run(ready: TrainingSetup, model: Tree, train: Tree) -> RunConfig:
    """These settings, fitted to the data, and what the user set of `train.*` above them."""
    config = model_config(model).for_data(ready.facts.longest_item, ready.tokenizer.vocab_size)
    defaults = model_class(config.name).defaults_for(config)
    chosen = ready.config.train.model_dump(exclude_unset=True)
    if issubclass(model_class(config.name), CountBasedModel):
        chosen = {key: value for key, value in chosen.items() if key not in BUDGETS}
    parsed = TrainConfig.parse(merge(defaults, train, chosen), "train")
    return ready.config.model_copy(update={"model": config, "train": parsed})


def _rate(ready: TrainingSetup) -> float:
    """Predictions a second, from a short trial on the beginning of the text."""
    tokens = _beginning(ready.splits["train"])
    model = ready.model()
    model.fit_counts(tokens)
    train = ready.config.train
    lr = default_lr(model, train.optimizer)
    trainer = Trainer(
        model,
        build_sampler(ready.config, tokens, model),
        train.model_copy(update={"lr": lr, "compile": False}),
        objective=next_token_loss,
        state=TrainState(plan=StepPlan(steps=1, eval_every=1)),
        device=ready.device,
    )
    seconds = measure_step_seconds(trainer, lambda: False, seconds=TRIAL)
    batch = trainer.sampler.batch(0)
    return float((batch.targets_BT != IGNORE_INDEX).sum()) / seconds


def _beginning(tokens: TokenDataset) -> TokenDataset:
    last = min(len(tokens.ids_N), TRIAL_TOKENS)
    if tokens.items:  # up to the end of an item
        last = (
            int(tokens.boundaries[tokens.boundaries < max(last, tokens.longest_item + 2)][-1]) + 1
        )
    return replace(tokens, ids_N=tokens.ids_N[:last])


def _counts(ready: TrainingSetup, why: str) -> Plan:
    config = _run(ready, {"name": "kneser-ney"}, {})
    told = f"Counting takes {_span(ready.splits['train'].num_predictions / COUNTS_A_SECOND)}."
    return Plan(config=config, reasons=(_text(ready), why, told))


def _text(ready: TrainingSetup) -> str:
    facts, tokens = ready.facts, ready.splits["train"].num_predictions
    lines = facts.kind == "lines"
    number, unit = (facts.documents, "items") if lines else (facts.characters, "characters")
    return (
        f"{facts.name}: {number:,} {unit}, of which {tokens:,} tokens to learn from, "
        f"{facts.vocabulary:,} kinds of them."
    )


def _reasons(ready: TrainingSetup, best: _Choice, folds: int, why: str) -> tuple[str, str, str]:
    """`why`: how long the counting takes, or why there is none."""
    layers, width, _ = best.size
    network = f"a GPT of {layers} x {width} ({best.parameters:,} parameters)"
    passes = best.predictions / ready.splits["train"].num_predictions
    times = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
    if best.rate is None:
        sees = f"It is trained on {best.predictions:,.0f} tokens, {times} times the text"
    else:
        about = "" if best.measured else "about "
        sees = (
            f"This machine trains it on {about}{best.rate:,.0f} tokens a second, which is {times} "
            "times the text"
        )
    care = f"; so often, that dropout of {best.dropout} is needed." if best.dropout else "."
    if folds:
        model = f"Kneser-Ney counts ({why}), and {network} that learns where they fail."
    else:
        model = f"{network[0].upper()}{network[1:]} alone: {why}"
    return _text(ready), sees + care, model


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


def _weights(size: tuple[int, int, int]) -> int:
    """Parameters of the blocks, which is where the time goes."""
    layers, width, _ = size
    return 12 * layers * width**2


def _memory_of_counts(ready: TrainingSetup, folds: int) -> float:
    """Bytes, for texts of the usual variety: 20 MB for a million tokens, 2.5 GB for a thousand; and
    to deal out the items of a list."""
    tokens, lines = ready.splits["train"].num_predictions, ready.facts.kind == "lines"
    return (1 + folds) * 20e6 * (tokens / 1e6) ** 0.7 + 40 * lines * ready.facts.documents
