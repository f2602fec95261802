"""A ladder of models from letter pairs to a GPT: one split, one evaluation, one table."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Unpack

from moreish.config import BUDGETS, DEFAULT_MINUTES, RunConfig, resolve
from moreish.errors import MoreishError, nearest
from moreish.models import REGISTRY, CountBasedModel, model_class
from moreish.options import TextOptions, settings_tree
from moreish.planning import PLANNED_NETWORK, PLANNED_TRAIN
from moreish.runs import (
    ENDED_STATUSES,
    Run,
    library_versions,
    machine_info,
    remove_run,
)
from moreish.settings import Tree
from moreish.training import (
    DivergenceError,
    Note,
    Report,
    TrainingSetup,
    fit_model_config,
    set_up,
)
from moreish.utils.files import encode_json, is_in_memory, read_json, write_atomic
from moreish.workflows.train import resume, train

QUICK = 0.1
"""Minutes per rung with `--quick`."""

LARGE = "scale"
"""The rung that is trained only when it is named."""

LADDER = "ladder.json"

SHOWN_PREDICTIONS = 5
"""Predictions that are shown of each rung."""

RENAMED_RUNGS = {"grams": "gpt-ngram"}
"""Deprecated names of rungs, each with its present name."""


@dataclass(frozen=True)
class Stated:
    """A validation loss that a lecture or another project states, and where."""

    loss: float
    where: str


@dataclass(frozen=True)
class Rung:
    """A model of the ladder, with its settings."""

    name: str
    adds: str
    """What it adds to the rung before."""
    model: Tree
    train: Tree = field(default_factory=dict)
    stated: Mapping[str, Stated] = field(default_factory=dict)
    """Stated losses by data set, for the lecture's own split."""
    labels: bool | None = None
    """For a rung of examples: whether it is for targets that are labels, or for all others; None:
    for both."""

    @property
    def only_counts(self) -> bool:
        return issubclass(model_class(self.model["name"]), CountBasedModel)


def _gpt_lecture(loss: float) -> dict[str, Stated]:
    return {"shakespeare": Stated(loss, "the GPT lecture, a few random batches")}


NAMES = "names-lecture"


def _lecture(stage: str, **more: Any) -> Tree:
    """Return the GPT lecture's model at a stage; the lecture's training recipe comes with it."""
    return {"name": "lecture-gpt", "stage": stage, **more}


RUNGS: tuple[Rung, ...] = (
    Rung(
        "counts",
        "how often each letter follows another",
        {"name": "ngram", "order": 2, "add_k": 0.01},
        stated={NAMES: Stated(2.45, "makemore 1, all words, training loss")},
    ),
    Rung("kneser-ney", "longer n-grams, with Kneser-Ney smoothing", {"name": "kneser-ney"}),
    Rung(
        "bigram",
        "a table of letter pairs, trained by gradient descent",
        {"name": "bigram"},
        stated={NAMES: Stated(2.45, "makemore 1, training loss"), **_gpt_lecture(2.5)},
    ),
    Rung(
        "mlp",
        "a hidden layer over three letters, of the lecture's size",
        {"name": "mlp", "context": 3, "embedding": 10, "hidden": 200},
        stated={NAMES: Stated(2.17, "makemore 2, 200,000 steps")},
    ),
    Rung("mlp-wide", "an MLP of more context and a wider layer", {"name": "mlp"}),
    Rung(
        "mixture",
        "the average of that MLP and n-gram counts",
        {"name": "mixture", "network": {"name": "mlp"}},
    ),
    Rung("bow", "the average of the context, without order", {"name": "bow"}),
    Rung("rnn", "a recurrent hidden state", {"name": "rnn"}),
    Rung("gru", "gates on the hidden state", {"name": "gru"}),
    Rung("lstm", "a cell state", {"name": "lstm"}),
    Rung("wavenet", "the context merged in pairs, layer by layer", {"name": "wavenet"}),
    Rung("head-unscaled", "one attention head, 32 wide, context 8", _lecture("unscaled-head")),
    Rung("head", "scaled attention scores", _lecture("head"), stated=_gpt_lecture(2.4)),
    Rung("heads", "four heads", _lecture("heads"), stated=_gpt_lecture(2.28)),
    Rung(
        "feedforward", "a feed-forward layer", _lecture("feed-forward"), stated=_gpt_lecture(2.24)
    ),
    Rung(
        "residual",
        "three blocks, residual connections, projection, feed-forward four times as wide",
        _lecture("residual"),
        stated=_gpt_lecture(2.08),
    ),
    Rung("norm", "layer norm", _lecture("norm"), stated=_gpt_lecture(2.06)),
    Rung("dropout", "dropout 0.1", _lecture("norm", dropout=0.1)),
    Rung(
        "gpt",
        "GPT-2's architecture, wider and with more context",
        {"name": "gpt"},
        stated={
            NAMES: Stated(2.00, "makemore's default transformer, 6,000 steps"),
            "shakespeare": Stated(1.88, "nanoGPT's README, its CPU setting"),
        },
    ),
    Rung(
        "modern",
        "rotary positions, RMS and QK norm, SwiGLU, soft cap",
        {**PLANNED_NETWORK, "norm": "rms", "feedforward": "swiglu"},
    ),
    Rung(
        "gpt-ngram",
        "n-gram embeddings up to 5-grams in place of layers, trained with Muon",
        PLANNED_NETWORK
        | {"layers": 1, "width": 64, "heads": 2, "context": 128, "ngram_embedding": 5},
        PLANNED_TRAIN,
    ),
    Rung(
        "hybrid",
        "n-gram counts, and a network trained to correct them",
        {"name": "hybrid", "network": {**PLANNED_NETWORK, "layers": 2, "width": 96, "heads": 3}},
    ),
    Rung(
        LARGE,
        "the GPT lecture's last model; it needs a GPU or hours",
        _lecture("norm", layers=6, heads=6, width=384, context=256, dropout=0.2),
        {"batch_size": 64, "lr": 3e-4},
        {"shakespeare": Stated(1.48, "the GPT lecture, 5,000 steps on an A100")},
    ),
)

EXAMPLE_RUNGS: tuple[Rung, ...] = (
    Rung(
        "naive-bayes",
        "how often each n-gram of the input occurs with each label",
        {"name": "naive-bayes"},
        labels=True,
    ),
    Rung("nb-svm", "a trained weight for each n-gram", {"name": "nb-svm"}, labels=True),
    Rung("lstm", "an LSTM that reads the input and writes the target", {"name": "lstm"}),
    Rung("gpt", "attention to the input, from left to right", {"name": "gpt"}),
    Rung("encoder", "attention in both directions", {"name": "encoder"}, labels=True),
    Rung(
        "label-hybrid",
        "n-gram counts, and an encoder trained to correct them",
        {"name": "label-hybrid"},
        labels=True,
    ),
    Rung(
        "encoder-decoder",
        "attention in both directions over the input, and from the target to it",
        {"name": "encoder-decoder"},
        labels=False,
    ),
)
"""The rungs of examples."""


def rungs_for(names: str | None, *, targets: str | None = None) -> list[Rung]:
    """Return the rungs of a comma-separated list; for None, all but the large one.

    A registered model that no rung uses is a rung of its own, with its default settings.

    Args:
        names: the names of rungs.
        targets: what the targets are where the data are examples.

    Raises:
        MoreishError: the list is empty, or a name is unknown.
    """
    known: Iterable[Rung] = RUNGS
    if targets:
        known = (r for r in EXAMPLE_RUNGS if r.labels in (None, targets == "label"))
    rungs = {rung.name: rung for rung in known}
    used = {*rungs, *(rung.model["name"] for rung in (*RUNGS, *EXAMPLE_RUNGS))}
    rungs |= {n: Rung(n, "a registered model", {"name": n}) for n in REGISTRY if n not in used}
    if names is None:
        return [
            rung
            for rung in rungs.values()
            if rung.name != LARGE and (targets or not REGISTRY[rung.model["name"]].needs_examples)
        ]
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise MoreishError(f"--rungs {names}: name at least one of {', '.join(rungs)}")
    for name in RENAMED_RUNGS.keys() & set(chosen):
        message = f"rung {name} is deprecated; use {RENAMED_RUNGS[name]}"
        warnings.warn(message, FutureWarning, stacklevel=2)
    chosen = [RENAMED_RUNGS.get(name, name) for name in chosen]
    for name in chosen:
        if name not in rungs:
            raise MoreishError(f"unknown rung '{name}': {nearest(name, rungs)}")
    return [rungs[name] for name in chosen]


def train_ladder(
    source: str | list[str],
    *,
    out: Path,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    rungs: str | None = None,
    split: str | None = None,
    seed: int = 0,
    test: bool = False,
    overwrite: bool = False,
    report: Report,
    done: Callable[[dict[str, Any], int, int], None] = lambda rung, number, total: None,
    **options: Unpack[TextOptions],
) -> dict[str, Any]:
    """Train every rung with the same budget, which count-based models ignore.

    Rungs that are complete in `out` are kept; an interrupted one is resumed.

    Args:
        source: a data set, a file or a folder; or several of them.
        out: the folder of the ladder.
        minutes, epochs, steps: budget of each rung, at most one of them (default: 1 minute).
        rungs: as in `rungs_for`.
        split: as in `moreish.train`; the lectures' own data have the lecture's split.
        seed: random seed for weights and batches.
        test: whether to evaluate the test split too, which each run records.
        overwrite: whether to train the chosen rungs again, and to replace another ladder at `out`.
        report: receives every event.
        done: called with each rung's entry as soon as it is complete, its number, and the number
            of all rungs.
        options: how to read and clean the text.

    Returns:
        The content of ladder.json.

    Raises:
        MoreishError: a rung is unknown, `out` holds something else, or every training run failed.
    """
    budget: Tree = {"minutes": minutes, "epochs": epochs, "steps": steps}
    if all(value is None for value in budget.values()):
        budget["minutes"] = DEFAULT_MINUTES
    resolve({"train": budget})  # a ladder of count-based models would not notice a wrong one
    lectures = {data for rung in RUNGS for data in rung.stated}
    split = split or ("lecture" if isinstance(source, str) and source in lectures else "seeded")
    data: Tree = {"source": source, "split": split, **settings_tree(options).get("data", {})}
    config = resolve({"data": data, "model": {"name": "ngram"}})
    setup = set_up(config)
    facts = setup.facts
    chosen = rungs_for(rungs, targets=facts.targets)
    data["kind"] = facts.kind
    shown = "-" if is_in_memory(config.data.sources[0]) else source
    plan: Tree = {"source": shown, "split": split, "kind": facts.kind, **budget, "seed": seed}
    plan["data"] = dict(facts.sha256)  # a file that has changed is another ladder
    entries, replaced = _read_entries(out, plan, overwrite=overwrite)
    is_complete, failed = True, {}
    try:
        for number, rung in enumerate(chosen, 1):
            config, path = _rung_config(rung, plan, data), out / rung.name
            run = None if overwrite else _find_run(path, config, setup)
            if run is None or rung.name not in entries:
                entries.pop(rung.name, None)
                _save(out, {**plan, "complete": False}, entries)
                try:
                    if run is None or run.record.status == "diverged":
                        run = train(config, path, overwrite=True, report=report)
                    elif run.record.status not in ENDED_STATUSES:
                        run = resume(path, report=report)
                except DivergenceError as error:  # the others can still be trained
                    report(Note(text=f"{rung.name}: {error}"))
                    failed[rung.name] = str(error)
                    continue
                if run.record.status == "interrupted":
                    is_complete = False
                    break
                entries[rung.name] = _entry(rung, run, plan)
            splits = entries[rung.name]["splits"]
            # The lectures' split of running text has no test part.
            if test and "test" not in splits and "test" in run.split_names:
                splits["test"] = run.score("test").as_json()
            done(entries[rung.name], number, len(chosen))
    finally:
        if not entries and not any(out.glob("*/run.json")):
            (out / LADDER).unlink(missing_ok=True)
            with suppress(OSError):  # it holds other files
                out.rmdir()
    if failed and not entries:
        raise MoreishError(f"no rung could be trained; the last error: {failed.popitem()[1]}")
    if is_complete:
        for name in replaced - {rung.name for rung in chosen}:
            remove_run(out / name)
    return _save(out, {**plan, "complete": is_complete, "failed": failed}, entries)


def _save(out: Path, about: Tree, entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Write ladder.json, which marks the folder as that of a ladder, and return its content."""
    all_rungs = EXAMPLE_RUNGS if about["kind"] == "examples" else RUNGS
    order = {rung.name: place for place, rung in enumerate(all_rungs)}
    rungs = sorted(entries.values(), key=lambda entry: order.get(entry["rung"], len(order)))
    content = {**about, "versions": library_versions(), "machine": machine_info(), "rungs": rungs}
    if rungs or not about["complete"]:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / LADDER, encode_json(content))
    return content


def _read_entries(
    out: Path, plan: Tree, *, overwrite: bool
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Read the complete rungs, or else the names of those that this ladder replaces.

    Raises:
        MoreishError: `out` holds something else, or another ladder that may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}, set()
    if not (out / LADDER).is_file():
        raise MoreishError(f"{out} exists and is not a ladder: choose another --out")
    try:
        saved = read_json(out / LADDER)
        entries = {entry["rung"]: entry for entry in saved["rungs"]}
    except (ValueError, LookupError, TypeError) as error:
        if overwrite:
            return {}, set()
        raise MoreishError(f"{out / LADDER} is damaged ({error}): use --overwrite") from None
    for key, value in plan.items():
        if saved.get(key) != value and not overwrite:
            other = (
                f"with {key} {saved.get(key)}, not {value}" if key != "data" else "of other data"
            )
            raise MoreishError(
                f"{out} is a ladder {other}: choose another --out, or replace it with --overwrite"
            )
    if all(saved.get(key) == value for key, value in plan.items()):
        return entries, set()
    return {}, set(entries)


def _rung_config(rung: Rung, plan: Tree, data: Tree) -> RunConfig:
    budget = {} if rung.only_counts else {key: plan[key] for key in BUDGETS}
    return resolve(
        {
            "seed": plan["seed"],
            "model": rung.model,
            "train": {**rung.train, **budget},
            "data": data,
        }
    )


def _find_run(path: Path, config: RunConfig, setup: TrainingSetup) -> Run | None:
    """Open the run at `path`, if there is one.

    Raises:
        MoreishError: its settings or data are not those of this ladder.
    """
    if not (path / "run.json").exists():
        return None
    run = Run.open(path)
    facts, train = setup.facts, config.train
    model = fit_model_config(config.model, facts, setup.tokenizer)
    if train.lr is None:  # the run stores the default of its model
        train = train.model_copy(update={"lr": run.config.train.lr})
    settings = (run.config.seed, run.config.model, run.config.train)
    if settings != (config.seed, model, train) or run.record.data.sha256 != facts.sha256:
        raise MoreishError(
            f"{path} is another run than this ladder's: choose another --out, or use --overwrite"
        )
    return run


def _entry(rung: Rung, run: Run, plan: Tree) -> dict[str, Any]:
    is_lecture = plan["split"] == "lecture" and isinstance(plan["source"], str)
    stated = rung.stated.get(plan["source"]) if is_lecture else None
    samples, copied = _samples(run)
    return {
        "rung": rung.name,
        "adds": rung.adds,
        "run": run.path.name,
        "made": run.record.created,
        "counted": rung.only_counts,
        "parameters": run.model.num_parameters(),
        "seconds": run.record.seconds,
        "splits": {name: score.as_json() for name, score in run.scores.items()},
        "samples": samples,
        "copied": copied,
        "stated": None if stated is None else asdict(stated),
    }


def _samples(run: Run) -> tuple[list[str], float | None]:
    """Return a few texts of a model, and which share of its items is in the training split, or the
    mean length of the longest copied span of running text; of examples, a few predictions."""
    if run.kind == "examples":
        predicted = run.predict_split(run.split("val"), SHOWN_PREDICTIONS)
        pairs = zip(predicted.examples, predicted.predictions, strict=True)
        return [f"{pair.input} → {found.target}" for pair, found in pairs], None
    is_list = run.kind == "lines"
    texts = run.sample(100, seed=0) if is_list else run.sample(3, max_tokens=300, seed=0)
    novelty = run.novelty(texts)
    copied = sum(text.known if is_list else len(text.overlap) for text in novelty) / len(texts)
    return texts[:5] if is_list else [texts[0][:120]], copied
