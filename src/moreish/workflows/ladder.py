"""Every rung from counting pairs to a GPT, on one split, with one evaluation and one table."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moreish.config import BUDGETS, DEFAULT_MINUTES, RunConfig, resolve
from moreish.errors import MoreishError, nearest
from moreish.models import REGISTRY
from moreish.planning import PLANNED_NETWORK, PLANNED_TRAIN
from moreish.runs import (
    ENDED_STATUSES,
    DatasetInfo,
    Run,
    library_versions,
    machine_info,
    remove_run,
)
from moreish.settings import Tree
from moreish.training import DivergenceError, Note, Report, set_up
from moreish.utils.files import encode_json, read_json, write_atomic
from moreish.workflows.train import resume, train

QUICK = 0.1
"""Minutes a rung of `--quick`."""

LARGE = "scale"
"""The rung that is climbed only when it is named."""

LADDER = "ladder.json"


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A validation loss that a lecture or a peer states, and where."""

    loss: float
    where: str


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A step of the ladder: what it adds, and the settings that make it."""

    name: str
    adds: str
    model: Tree
    train: Tree
    stated: Mapping[str, Stated]
    """By data set, for the lecture's own split."""


def _rung(
    name: str, adds: str, model: Tree, train: Tree | None = None, **stated: tuple[float, str]
) -> Rung:
    by_data = {
        data.replace("_", "-"): Stated(loss=loss, where=where)
        for data, (loss, where) in stated.items()
    }
    return Rung(name=name, adds=adds, model=model, train=train or {}, stated=by_data)


def _lecture(stage: str, **more: Any) -> Tree:
    """The GPT lecture's model at a stage; it brings the lecture's training recipe with it."""
    return {"name": "lecture-gpt", "stage": stage, **more}


MODERN: Tree = {
    "name": "gpt",
    "positions": "rotary",
    "norm": "rms",
    "qk_norm": True,
    "feedforward": "swiglu",
    "softcap": 15.0,
    "bias": False,
}
GPT_LECTURE = "the GPT lecture, a few random batches"

RUNGS: tuple[Rung, ...] = (
    _rung(
        "counts",
        "how often each letter follows another",
        {"name": "ngram", "order": 2, "add_k": 0.01},
        names_lecture=(2.454, "makemore 1, all words, training loss"),
    ),
    _rung("kneser-ney", "longer n-grams, smoothed well", {"name": "kneser-ney"}),
    _rung(
        "bigram",
        "the same table, learned by gradients",
        {"name": "bigram"},
        names_lecture=(2.45, "makemore 1, training loss"),
        shakespeare=(2.5, GPT_LECTURE),
    ),
    _rung(
        "mlp",
        "three letters through a hidden layer, the lecture's size",
        {"name": "mlp", "context": 3, "embedding": 10, "hidden": 200},
        names_lecture=(2.17, "makemore 2, 200,000 steps"),
    ),
    _rung("mlp-wide", "more context, a wider layer", {"name": "mlp"}),
    _rung(
        "mixture",
        "that network and the counts, averaged",
        {"name": "mixture", "network": {"name": "mlp"}},
    ),
    _rung("bow", "an average of the past, without order", {"name": "bow"}),
    _rung("rnn", "a memory of all that was read", {"name": "rnn"}),
    _rung("gru", "gates to the memory", {"name": "gru"}),
    _rung("lstm", "a cell beside it", {"name": "lstm"}),
    _rung("wavenet", "the past in pairs of pairs", {"name": "wavenet"}),
    _rung("head-unscaled", "one attention head, 32 wide, context 8", _lecture("unscaled-head")),
    _rung("head", "affinities scaled", _lecture("head"), shakespeare=(2.4, GPT_LECTURE)),
    _rung("heads", "four heads", _lecture("heads"), shakespeare=(2.28, GPT_LECTURE)),
    _rung(
        "feedforward",
        "a feed-forward layer",
        _lecture("feed-forward"),
        shakespeare=(2.24, GPT_LECTURE),
    ),
    _rung(
        "residual",
        "three blocks, residual connections, projection, feed-forward four times as wide",
        _lecture("residual"),
        shakespeare=(2.08, GPT_LECTURE),
    ),
    _rung("norm", "layer norm", _lecture("norm"), shakespeare=(2.06, GPT_LECTURE)),
    _rung("dropout", "dropout 0.1", _lecture("norm", dropout=0.1)),
    _rung(
        "gpt",
        "GPT-2's arrangement, wider and with more context",
        {"name": "gpt"},
        names_lecture=(2.00, "makemore's default transformer, 6,000 steps"),
        shakespeare=(1.88, "nanoGPT's README, its CPU setting"),
    ),
    _rung("modern", "rotary positions, RMS and QK norm, SwiGLU, soft cap", MODERN),
    _rung(
        "grams",
        "embeddings of n-grams up to five in place of layers, by Muon",
        {
            **PLANNED_NETWORK,
            "layers": 1,
            "width": 64,
            "heads": 2,
            "context": 128,
            "ngram_embedding": 5,
        },
        PLANNED_TRAIN,
    ),
    _rung(
        "hybrid",
        "counts, and a network that learns where they fail",
        {"name": "hybrid", "network": {**PLANNED_NETWORK, "layers": 2, "width": 96, "heads": 3}},
    ),
    _rung(
        "scale",
        "the GPT lecture's last model; it needs a GPU or hours",
        _lecture("norm", layers=6, heads=6, width=384, context=256, dropout=0.2),
        {"batch_size": 64, "lr": 3e-4},
        shakespeare=(1.48, "the GPT lecture, 5,000 steps of an A100"),
    ),
)


def rungs_for(names: str | None) -> list[Rung]:
    """The rungs that a comma-separated list names; for None all but the large one. A registered
    model that is no rung of its own is one with its default settings.

    Raises:
        MoreishError: a name is unknown; the nearest is named.
    """
    known = {rung.name: rung for rung in RUNGS}
    used = {rung.model["name"] for rung in RUNGS}
    for model in REGISTRY:
        if model not in known and model not in used:
            known[model] = _rung(model, "a registered model", {"name": model})
    some = [name for name in known if name != LARGE]
    chosen = some if names is None else [n.strip() for n in names.split(",") if n.strip()]
    for name in chosen:
        if name not in known:
            raise MoreishError(f"unknown rung '{name}': {nearest(name, known)}")
    return [known[name] for name in chosen]


def climb(
    source: str,
    *,
    out: Path,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    rungs: str | None = None,
    split: str | None = None,
    kind: str | None = None,
    seed: int = 0,
    test: bool = False,
    overwrite: bool = False,
    report: Report,
    done: Callable[[dict[str, Any]], None] = lambda rung: None,
) -> dict[str, Any]:
    """Train every rung for as long (counted ones take what they need); returns ladder.json.

    A rung that `out` holds already is not trained again; one that was interrupted goes on.

    Args:
        minutes, epochs, steps: budget of each rung, at most one of them (default: 1 minute).
        split: as in `train`; None is the lecture's for the lectures' own data.
        test: evaluate the test split too, which each run records.
        overwrite: train the chosen rungs again; of another ladder at `out`, nothing stays then.
        done: is called with each rung's entry as soon as it is there.

    Raises:
        MoreishError: a rung is unknown, `out` holds something else, or a training failed.
    """
    chosen = rungs_for(rungs)
    if not chosen:
        raise MoreishError(
            f"--rungs {rungs}: name at least one of {', '.join(r.name for r in RUNGS)}"
        )
    budget: Tree = {"minutes": minutes, "epochs": epochs, "steps": steps}
    if all(value is None for value in budget.values()):
        budget["minutes"] = DEFAULT_MINUTES
    resolve({"train": budget})  # counted rungs would not notice a budget that makes no sense
    lectures = {data for rung in RUNGS for data in rung.stated}
    split = split or ("lecture" if source in lectures else "seeded")
    facts = _facts(source, kind, split)
    plan: Tree = {"source": source, "split": split, "kind": facts.kind, **budget, "seed": seed}
    plan["data"] = dict(facts.sha256)  # a file that has changed is another ladder
    entries, others = _earlier(out, plan, overwrite=overwrite)
    complete, failed = True, {}
    try:
        for rung in chosen:
            config, path = _config(rung, plan), out / rung.name
            found = None if overwrite else _found(path, config, facts)
            if found is None or rung.name not in entries:
                entries.pop(rung.name, None)
                _save(out, {**plan, "complete": False}, entries)
                try:
                    run = _trained(config, found, path, report)
                except DivergenceError as error:  # the others can still be climbed
                    report(Note(text=f"{rung.name}: {error}"))
                    failed[rung.name] = str(error)
                    continue
                if run.record.status == "interrupted":
                    complete = False
                    break
                entries[rung.name] = _entry(rung, run, plan)
            if test and "test" not in entries[rung.name]["splits"]:
                _test(entries[rung.name], Run.open(path))
            done(entries[rung.name])
    finally:
        if not entries and not any(out.glob("*/run.json")):
            (out / LADDER).unlink(missing_ok=True)
            with suppress(OSError):  # there was something else before
                out.rmdir()
    if failed and not entries:
        raise MoreishError(f"no rung could be trained; the last said: {failed.popitem()[1]}")
    if complete:
        for name in others - {rung.name for rung in chosen}:
            remove_run(out / name)
    return _save(out, {**plan, "complete": complete, "failed": failed}, entries)


def _save(out: Path, about: Tree, entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """ladder.json: all rungs that are there, in their order. It also says whose folder this is."""
    order = {rung.name: place for place, rung in enumerate(RUNGS)}
    rungs = sorted(entries.values(), key=lambda entry: order.get(entry["rung"], len(order)))
    found = {**about, "versions": library_versions(), "machine": machine_info(), "rungs": rungs}
    if rungs or not about["complete"]:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / LADDER, encode_json(found))
    return found


def _facts(source: str, kind: str | None, split: str) -> DatasetInfo:
    """What the data are understood to be, for every rung."""
    data = {"source": source, "split": split} | ({"kind": kind} if kind else {})
    return set_up(resolve({"data": data, "model": {"name": "ngram"}})).facts


def _earlier(
    out: Path, plan: Tree, *, overwrite: bool
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The rungs that are done already, and the names of those that make way for this ladder.

    Raises:
        MoreishError: there is something else at `out`, or another ladder that is to stay.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}, set()
    if not (out / LADDER).is_file():
        raise MoreishError(f"{out} is there, and is not a ladder: choose another --out")
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


def _config(rung: Rung, plan: Tree) -> RunConfig:
    budget = {} if counted(rung) else {key: plan[key] for key in BUDGETS}
    return resolve(
        {
            "seed": plan["seed"],
            "model": rung.model,
            "train": {**rung.train, **budget},
            "data": {key: plan[key] for key in ("source", "split", "kind")},
        }
    )


def _found(path: Path, config: RunConfig, facts: DatasetInfo) -> Run | None:
    """The run at `path`, if it is the one that `config` asks for.

    Raises:
        MoreishError: it is another.
    """
    if not (path / "run.json").exists():
        return None
    run = Run.open(path)
    there = run.config
    expected = config.model_copy(
        update={"model": config.model.for_data(facts.longest_item, facts.vocabulary)}
    )
    if config.train.lr is None:  # it took what suits the model
        rate = {"lr": there.train.lr}
        expected = expected.model_copy(update={"train": config.train.model_copy(update=rate)})
    same = all(getattr(there, key) == getattr(expected, key) for key in ("seed", "model", "train"))
    if not same or run.record.data.sha256 != facts.sha256:
        raise MoreishError(
            f"{path} is another run than this ladder's: choose another --out, or use --overwrite"
        )
    return run


def _trained(config: RunConfig, found: Run | None, path: Path, report: Report) -> Run:
    """The run of a rung: new, or gone on with where it was stopped."""
    if found is not None and found.record.status != "diverged":
        ended = found.record.status in ENDED_STATUSES
        return found if ended else resume(path, report=report)[0]
    return train(config, path, overwrite=True, report=report)[0]


def counted(rung: Rung) -> bool:
    """Whether it is fitted by counting alone."""
    from moreish.models import CountBasedModel, model_class

    return issubclass(model_class(rung.model["name"]), CountBasedModel)


def _entry(rung: Rung, run: Run, plan: Tree) -> dict[str, Any]:
    stated = rung.stated.get(plan["source"]) if plan["split"] == "lecture" else None
    items = run.kind == "lines"
    texts = run.sample(100) if items else run.sample(3, max_tokens=300)
    return {
        "rung": rung.name,
        "adds": rung.adds,
        "run": run.path.name,
        "made": run.record.created,
        "counted": counted(rung),
        "parameters": run.model.num_parameters(),
        "seconds": run.record.seconds,
        "splits": {name: score.as_json() for name, score in run.scores.items()},
        "samples": texts[:5] if items else [texts[0][:120]],
        "copied": _copied(run, texts),
        "stated": None if stated is None else asdict(stated),
    }


def _test(entry: dict[str, Any], run: Run) -> None:
    """The lectures' split of running text has no test part."""
    if "test" in run.split_names:
        entry["splits"]["test"] = run.score("test").as_json()


def _copied(run: Run, texts: list[str]) -> float:
    """What a rung learned by heart: of what it writes, the share of items that stand in the data,
    or the characters of the longest passage that does, on the average."""
    found = run.novelty(texts)
    if run.kind == "lines":
        return sum(text.known for text in found) / len(found)
    return sum(len(text.overlap) for text in found) / len(found)
