"""The planner: chooses model, context and batch for a text, a machine and a budget.

The constants were measured: docs/dev-log.md has the runs.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from moreish.config import BUDGETS, DEFAULT_MINUTES, AutoConfig, RunConfig, TrainConfig
from moreish.data import IGNORE_INDEX, TokenDataset
from moreish.models import (
    MAX_FOLD_TOKENS,
    MAX_REACH,
    CountBasedModel,
    HybridConfig,
    model_class,
    model_config,
)
from moreish.planning.families import ENCODER_DECODER, FAMILIES, TASK_GPT, Family, Size
from moreish.python_errors import spell
from moreish.settings import Tree, merge
from moreish.training import (
    StepPlan,
    Trainer,
    TrainingSetup,
    TrainState,
    build_meta_model,
    build_sampler,
    default_lr,
    fit_model_config,
    measure_step_seconds,
    next_token_loss,
)
from moreish.utils.platforms import available_memory
from moreish.utils.text import plural

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

MEMORY_SHARE = 0.35
"""The same for counting and indexing together where the plan has a memory of recent text, which is
worth more than training."""

COUNTS_PER_SECOND = 8e6
"""Predictions counted per second, all orders together."""

MAX_PLANNING_SECONDS = 2.0
"""Seconds after which no further size is measured; its speed is extrapolated from the others."""

ASSUMED_FLOPS = 5e10
"""FLOP/s of a machine before the first measurement."""

TRIAL_TOKENS = 50_000
"""Tokens of the text that a speed measurement uses."""

LARGE_VOCABULARY = 1000
"""Vocabulary size above which counting takes three times as long, a speed measurement uses four
times as many tokens, which have most candidates, batches are small, as a token takes far longer,
and networks have neither embeddings of n-grams nor a bound on logits."""

SMALL_BATCH = 256
"""Predictions per batch with a large vocabulary."""

WORD_ORDER = 2
"""Length of the longest n-grams of words that a planned classifier counts."""

CHARACTER_ORDER = 5
"""The same for characters."""

CHARACTER_STRENGTH = 256.0
"""Regularization of a planned classifier that counts both."""

TRIAL_SECONDS = 0.3
"""Approximate duration of a speed measurement, in seconds."""

CONTEXT = 384
"""Context length of planned networks, in tokens."""

MEMORY_CONTEXT = 256
"""Context length beside a memory of recent text, which finds what lies further back."""

MEMORY_FOLDS = 10
"""Folds beside a memory of recent text, whose counts have longer n-grams and so take more time."""

INDEX_BYTES = 24
"""Memory that the index of a memory takes, per token of the training text."""

INDEXED_PER_SECOND = 8e5
"""Tokens of the training text indexed per second."""

DROPOUT = ((12, 0.0), (40, 0.1), (float("inf"), 0.2))
"""Dropout by the number of passes over the text, up to each bound."""

TEXT_DROPOUT = ((5, 0.0), (25, 0.1), (float("inf"), 0.2))
"""The same for running text without a memory, in which there is more to memorize."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """Settings that suit the text, the machine and the budget, with three sentences of reasons."""

    config: RunConfig
    reasons: tuple[str, str, str]

    def __repr__(self) -> str:
        return spell("\n".join(self.reasons))


def resolve_auto_model(setup: TrainingSetup) -> tuple[TrainingSetup, tuple[str, ...]]:
    """Return `setup` with a planned model and the reasons; unchanged if the user chose a model.

    A network that was only named is planned too, if there is enough of both text and time to train
    one.
    """
    model, train = setup.config.model, setup.config.train
    if isinstance(model, AutoConfig):
        plan = plan_run(setup)
    elif (
        train.minutes is None
        or train.minutes * 60 < MIN_NETWORK_SECONDS
        or setup.splits["train"].num_predictions < MIN_NETWORK_TOKENS
    ):
        return setup, ()
    elif model.name in FAMILIES and _is_only_named(setup):
        plan = plan_run(setup, model.name, counts=False)
    elif isinstance(model, HybridConfig) and _is_only_named(setup):
        plan = plan_run(setup)
        if not isinstance(
            plan.config.model, HybridConfig
        ):  # no time for counts, or too little text
            return setup, ()
    else:
        return setup, ()
    return replace(setup, config=plan.config), plan.reasons


def _is_only_named(setup: TrainingSetup) -> bool:
    """Whether the user gave no setting of the model but its name."""
    model = setup.config.model
    default = fit_model_config(model_config({"name": model.name}), setup.facts, setup.tokenizer)
    parts = ((each, getattr(each, "network", each)) for each in (model, default))
    given = {tuple(frozenset(part.model_fields_set) for part in both) for both in parts}
    return model == default and len(given) == 1


def plan_run(setup: TrainingSetup, network: str = "gpt", *, counts: bool = True) -> Plan:
    """Choose model, context, batch and regularization for the budget of `setup`.

    Settings of `train.*` that the user gave are kept.

    Args:
        setup: data, tokenizer and settings, with `model=auto`.
        network: the network to plan, of `FAMILIES`.
        counts: whether the plan may use n-gram counts, with a GPT.
    """
    family, train, tokens = FAMILIES[network], setup.config.train, _num_predictions(setup)
    if setup.facts.kind == "examples" and counts:
        if setup.facts.targets == "label":
            return _plan_classifier(setup)
        counts = False
        family = ENCODER_DECODER if setup.splits["train"].stream is None else TASK_GPT
    seconds = None if train.minutes is None else train.minutes * 60
    is_example = setup.facts.kind == "examples"  # counts do not know which input a target is of
    few_items = setup.facts.distinct < MIN_NETWORK_ITEMS <= setup.facts.documents
    if not is_example and (tokens < MIN_NETWORK_TOKENS or few_items):
        return _plan_counts(setup, "The text is too small to train a network on.")
    if not is_example and seconds is not None and seconds < MIN_NETWORK_SECONDS:
        return _plan_counts(setup, f"{seconds:.2g} s is too short to train a network.")
    memory = available_memory()
    folds, why = 0, f"--model {network} has none"
    if is_example:
        why = "they do not know which input a target belongs to"
    if counts:
        folds, why = _choose_folds(setup, seconds, memory)
    speeds: dict[Size, float] = {}
    began = time.perf_counter()
    sizes = [size for size in family.sizes if size.weights <= MAX_WEIGHTS_PER_TOKEN * tokens]
    for _ in family.sizes:  # each measurement may change which size is the best
        smallest, *larger = (
            _evaluate_size(setup, family, size, folds, speeds) for size in sizes or family.sizes[:1]
        )
        best = next(
            (choice for choice in reversed(larger) if choice.suits(family, memory)), smallest
        )
        is_late = time.perf_counter() - began > MAX_PLANNING_SECONDS
        if seconds is None or best.size in speeds or (is_late and speeds):
            break
        config = _network_config(setup, family, best.size, folds, dropout=0.0)
        speeds[best.size] = measure_speed(replace(setup, config=config))
    reasons = _reasons(setup, family, best, folds, why, is_measured=best.size in speeds)
    return Plan(config=best.config, reasons=reasons)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A network size, and what the budget allows for it."""

    size: Size
    config: RunConfig
    dropout: float
    parameters: int
    predictions: float
    """Predictions that it would be trained on."""
    speed: float | None
    """Predictions per second; None if the budget is in steps or epochs."""
    memory: float
    """Memory that training takes, in bytes."""

    def suits(self, family: Family, memory: float) -> bool:
        enough = self.predictions >= family.predictions_per_weight * self.size.weights
        return enough and self.memory <= memory


def _choose_folds(setup: TrainingSetup, seconds: float | None, memory: float) -> tuple[int, str]:
    """Return the number of folds for cross-fitted counts and how long counting takes, or 0 and why
    the plan has no counts."""
    tokens = setup.splits["train"].num_predictions
    remembers = _remembers(setup)
    max_folds = MEMORY_FOLDS if remembers else HybridConfig.model_fields["folds"].default
    speed = _counting_speed(setup, remembers=remembers)
    indexing = tokens / INDEXED_PER_SECOND if remembers else 0.0
    folds = max(2, min(max_folds, MAX_FOLD_TOKENS // tokens))
    if seconds is not None:
        share = MEMORY_SHARE if remembers else MAX_COUNTING_SHARE
        affordable = int((share * seconds - indexing) * speed / tokens) - 1
        if affordable < 2:
            duration = _format_seconds(3 * tokens / speed)
            return 0, f"counting n-grams would take {duration}"
        folds = min(folds, affordable)
    while folds >= 2 and _counts_memory(setup, folds) > memory / 2:
        folds -= 1
    if folds < 2:
        return 0, "n-gram counts would not fit into the free memory"
    return folds, _format_seconds((1 + folds) * tokens / speed + indexing)


def _evaluate_size(
    setup: TrainingSetup, family: Family, size: Size, folds: int, speeds: Mapping[Size, float]
) -> _Choice:
    train, tokens = setup.config.train, _num_predictions(setup)
    vocabulary = setup.tokenizer.vocab_size
    batch_tokens = _network_config(setup, family, size, folds, dropout=0.0).train.batch_tokens
    speed = None
    if train.steps is not None:
        predictions = float(train.steps * batch_tokens)
    elif train.epochs is not None:
        predictions = train.epochs * setup.splits["train"].num_targets
    else:
        assert train.minutes is not None
        speed = _estimate_speed(size, speeds)
        predictions = speed * train.minutes * 60
    is_plain_text = setup.facts.longest_item is None and not (folds and _remembers(setup))
    table = TEXT_DROPOUT if is_plain_text else DROPOUT
    dropout = next(share for passes, share in table if predictions / tokens <= passes)
    config = _network_config(setup, family, size, folds, dropout=dropout)
    parameters = build_meta_model(config.model, vocabulary).num_parameters()
    activations = batch_tokens * (size.activations * 160 + 16 * vocabulary)
    return _Choice(
        size=size,
        config=config,
        dropout=dropout,
        parameters=parameters,
        predictions=predictions,
        speed=speed,
        memory=16 * parameters + activations + (_counts_memory(setup, folds) if folds else 0),
    )


def _estimate_speed(size: Size, speeds: Mapping[Size, float]) -> float:
    """Return the measured speed, or one extrapolated from the nearest measured size."""
    if not speeds:
        return ASSUMED_FLOPS / size.flops
    nearest = min(speeds, key=lambda known: abs(math.log(known.flops / size.flops)))
    return speeds[nearest] * nearest.flops / size.flops


def _network_config(
    setup: TrainingSetup, family: Family, size: Size, folds: int, *, dropout: float
) -> RunConfig:
    is_large = setup.tokenizer.vocab_size > LARGE_VOCABULARY
    network: Tree = {**family.model, **size.model}
    if family.has_dropout:
        network = {**network, "dropout": dropout}
    longest = setup.facts.longest_item
    reach = MAX_REACH if folds and _remembers(setup) else 0
    if network["name"] == "gpt" and setup.facts.kind != "examples":
        context = CONTEXT if longest is None else min(CONTEXT, longest + 1)
        network = {**network, "context": MEMORY_CONTEXT if reach else context}
        if is_large:
            network = {**network, "softcap": 0.0}
        elif not folds and longest is None:
            # Items are too few to learn n-gram embeddings from (docs/dev-log.md).
            network = {**network, "ngram_embedding": 5}
    model = network
    if folds:
        model = {"name": "hybrid", "folds": folds, "memory": reach, "network": network}
    batch = {"batch_tokens": SMALL_BATCH} if is_large else {}
    return _run_config(setup, model, {**family.train, **batch})


def _run_config(setup: TrainingSetup, model: Tree, train: Tree) -> RunConfig:
    """Fit these settings to the data, and let the user's `train.*` override them."""
    config = fit_model_config(model_config(model), setup.facts, setup.tokenizer)
    defaults = model_class(config.name).defaults_for(config)
    chosen = setup.config.train.model_dump(exclude_unset=True)
    if issubclass(model_class(config.name), CountBasedModel):
        chosen = {key: value for key, value in chosen.items() if key not in BUDGETS}
    parsed = TrainConfig.parse(merge(defaults, train, chosen), "train")
    return setup.config.model_copy(update={"model": config, "train": parsed})


def measure_speed(setup: TrainingSetup) -> float:
    """Measure predictions per second in a short training run on the beginning of the text."""
    is_large = setup.tokenizer.vocab_size > LARGE_VOCABULARY
    tokens = _beginning(setup.splits["train"], TRIAL_TOKENS * (4 if is_large else 1))
    train = setup.config.train
    model = setup.build_model()
    model.fit_counts(tokens)
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


def _beginning(tokens: TokenDataset, number: int) -> TokenDataset:
    last = min(len(tokens.ids_N), number)
    if tokens.items:  # up to the end of an item
        limit = max(last, tokens.longest_item + 2)
        last = int(tokens.boundaries[tokens.boundaries < limit][-1]) + 1
    return replace(tokens, ids_N=tokens.ids_N[:last])


def _counts_memory(setup: TrainingSetup, folds: int) -> float:
    """Estimate the memory of n-gram counts in bytes: 20 MB for a million tokens of ordinary text,
    2.5 GB for a billion, twice that for the longer n-grams beside a memory of recent text; plus
    the index of the memory, or what assigning the items of a list to folds takes."""
    tokens, lines = setup.splits["train"].num_predictions, setup.facts.kind == "lines"
    if _remembers(setup):
        return (1 + folds) * 40e6 * (tokens / 1e6) ** 0.7 + INDEX_BYTES * tokens
    return (1 + folds) * 20e6 * (tokens / 1e6) ** 0.7 + 40 * lines * setup.facts.documents


def _counting_speed(setup: TrainingSetup, *, remembers: bool) -> float:
    """Predictions counted per second, with longer n-grams beside a memory."""
    is_large = setup.tokenizer.vocab_size > LARGE_VOCABULARY
    return COUNTS_PER_SECOND / (2 if remembers else 1) / (3 if is_large else 1)


def _remembers(setup: TrainingSetup) -> bool:
    """Whether a plan with counts has a memory of recent text: where the text is not a list, to
    index it takes at most a quarter of the free memory, and there is time for it and for counts of
    two folds."""
    tokens, minutes = setup.splits["train"].num_predictions, setup.config.train.minutes
    budget = math.inf if minutes is None else 60 * minutes * MEMORY_SHARE
    duration = tokens / INDEXED_PER_SECOND + 3 * tokens / _counting_speed(setup, remembers=True)
    is_affordable = duration <= budget
    return (
        setup.facts.longest_item is None
        and is_affordable
        and INDEX_BYTES * tokens <= available_memory() / 4
    )


def _plan_counts(setup: TrainingSetup, why: str) -> Plan:
    config = _run_config(setup, {"name": "kneser-ney"}, {})
    seconds = setup.splits["train"].num_predictions / COUNTS_PER_SECOND
    plan = f"Plan: n-gram counts (Kneser-Ney, {_format_seconds(seconds)})."
    usual: Tree = {"minutes": DEFAULT_MINUTES}
    values = {name: getattr(setup.config.train, name) for name in BUDGETS}
    for name, value in values.items():
        if value not in (None, usual.get(name)):
            plan += f" They are counted once: --{name} {value:g} is not used."
    return Plan(config=config, reasons=(_describe_text(setup), why, plan))


def _num_predictions(setup: TrainingSetup) -> float:
    """Return the number of predictions in the training split; infinity for problems without end."""
    tokens = setup.splits["train"]
    return math.inf if tokens.stream is not None else tokens.num_targets


def _plan_classifier(setup: TrainingSetup) -> Plan:
    """Plan the classifier that counts: n-grams of words, of characters, or of both."""
    model: Tree = {"name": "nb-svm", "order": WORD_ORDER}
    what = f"n-grams of up to {WORD_ORDER} words"
    if setup.config.data.tokenizer != "word":
        model = {**model, "order": CHARACTER_ORDER}
        what = f"n-grams of up to {CHARACTER_ORDER} characters"
        if setup.config.data.tokenizer == "char" and " " in setup.facts.alphabet:
            model = {**model, "word_order": WORD_ORDER, "strength": CHARACTER_STRENGTH}
            what += f" and {WORD_ORDER} words"
    config = _run_config(setup, model, {})
    facts = setup.facts
    labels = plural(facts.labels or 0, "label")
    text = f"{facts.name}: {facts.documents:,} examples with {labels}."
    why = "Labels follow from which n-grams occur in an input, and these can be counted."
    plan = f"Plan: a linear model on the log-count ratios of {what} (NB-SVM)."
    return Plan(config=config, reasons=(text, why, plan))


def _describe_text(setup: TrainingSetup) -> str:
    facts, tokens = setup.facts, setup.splits["train"].num_predictions
    if facts.kind == "examples":
        what = (
            "Problems are drawn without end"
            if setup.splits["train"].stream
            else (f"{setup.splits['train'].num_targets:,} tokens of targets to train on")
        )
        return f"{facts.name}: {facts.documents:,} examples. {what}."
    is_list = facts.kind == "lines"
    number, unit = (facts.documents, "items") if is_list else (facts.characters, "characters")
    return (
        f"{facts.name}: {number:,} {unit}. Training on {tokens:,} tokens, "
        f"{facts.vocabulary:,} of them distinct."
    )


def _reasons(
    setup: TrainingSetup, family: Family, best: _Choice, folds: int, why: str, *, is_measured: bool
) -> tuple[str, str, str]:
    """Explain a plan; `why` is how long counting takes, or why the plan has no counts."""
    shape = f"{best.size.description}, {best.parameters:,} parameters"
    passes = best.predictions / _num_predictions(setup)
    times = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
    if best.speed is None:
        reads = f"The budget is {best.predictions:,.0f} tokens, {times} times the text"
    else:
        about = "" if is_measured else "about "
        reads = (
            f"At {about}{best.speed:,.0f} tokens/s this machine reads the text {times} times "
            f"in {setup.config.train.minutes:g} min"
        )
    if not passes:
        reads = f"{best.predictions:,.0f} predictions of tokens of targets"
    dropout = f", so the plan adds dropout {best.dropout}." if best.dropout else "."
    if folds:
        remembers = getattr(best.config.model, "memory", 0)
        recent = " and a memory of recent text" if remembers else ""
        model = f"Plan: n-gram counts ({why}){recent} plus a GPT ({shape}) trained to correct them."
    else:
        model = f"Plan: {family.title} ({shape}) without n-gram counts, because {why}."
    return _describe_text(setup), reads + dropout, model


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
