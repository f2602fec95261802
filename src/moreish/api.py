"""What `import moreish` offers; the command line is a thin skin over it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moreish.config import BUDGETS, AutoConfig, RunConfig, normalize, resolve
from moreish.data import (
    Corpus,
    Diagnosis,
    Order,
    Outcome,
    Reading,
    diagnose,
    prepare_text,
    read_corpus,
)
from moreish.errors import MoreishError
from moreish.evaluate import Token, TokenizerStats, measure_tokenizer, tokenize_text
from moreish.planning import MFU, Advice, Estimate, advise, foreseen, planned
from moreish.runs import Run
from moreish.settings import Tree, from_toml, merge
from moreish.tokenizers import REGISTRY, Limits, Tokenizer
from moreish.training import (
    LRRange,
    Note,
    Report,
    Working,
    check_optimizer,
    inherited,
    make_tokenizer,
    tracker_names,
    try_rates,
)
from moreish.training import prepare as understood
from moreish.workflows import RUNS, free_path
from moreish.workflows import resume as resume_training
from moreish.workflows import train as carry_out

if TYPE_CHECKING:
    from moreish.convert import Exported
    from moreish.figures import Picture


def train(
    source: str | Path | None = None,
    *,
    model: str | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    context: int | None = None,
    seed: int | None = None,
    kind: str | None = None,
    split: str | None = None,
    encoding: str | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    dedup: bool | None = None,
    nfc: bool | None = None,
    clean: bool | None = None,
    min_count: int | None = None,
    weights: Mapping[str, float] | None = None,
    init_from: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Run:
    """Train a language model of `source` and return its run.

    Without arguments: the built-in names, about a minute, and the model that suits them and this
    machine (see `plan`).

    Args:
        source: a built-in data set, a file, a folder of text files, or one that `prepare` made.
        model: a name in `moreish.models.REGISTRY`, or "auto".
        steps, minutes, epochs: how long; at most one of them.
        context: the same as `settings={"model": {"context": …}}`.
        kind: "lines" (each line an item) or "text" (running text); None guesses.
        split: "seeded" (80/10/10 by item, 90/5/5 of running text) or "lecture".
        tokenizer: a name in `moreish.tokenizers.REGISTRY`, or a tokenizer.json.
        vocab_size: the most tokens of a vocabulary that is learned from the text.
        dedup, nfc, clean, min_count: how to mend the text first, see `moreish.data.text.clean`.
        weights: of prepared text, the share of each source in what is trained on.
        init_from: a run whose weights the training starts from; or `hf:` and what `import_hf`
            takes, which is then imported to `runs/`.
        settings: any other setting, as nested groups: `{"train": {"lr": 0.001}}`.
        config: a TOML recipe; the arguments here win over it.
        out: the run folder; None makes a new one in `runs/`.
        overwrite: replace the run at `out`.
        report: is called with every event of the training; None shows progress on the terminal.

    Raises:
        MoreishError: a setting, the source or the place is wrong; nothing was written then.
    """
    given = _tree(
        seed=seed,
        model=model,
        context=context,
        steps=steps,
        minutes=minutes,
        epochs=epochs,
        source=source,
        kind=kind,
        split=split,
        encoding=encoding,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        dedup=dedup,
        nfc=nfc,
        clean=clean,
        min_count=min_count,
        weights=weights,
        init_from=init_from,
    )
    recipe = normalize({} if config is None else from_toml(Path(config)))
    asked = merge(given, normalize(settings or {}))
    wanted = merge(recipe, asked)
    base: Tree = {}
    if isinstance(start := wanted.get("init_from"), str):
        source_run = _start(start)
        base = inherited(source_run, wanted)
        asked = merge(asked, {"init_from": str(source_run.path)})
    resolved: RunConfig = resolve(base, recipe, asked)
    place = None if out is None else Path(out).expanduser()
    own = {} if base else wanted.get("model", {})
    notes: tuple[str, ...] = ()
    if own and "name" not in own:
        notes = (f"model.{min(own)} without --model: a plain GPT, which is not planned",)
    with _watching(report) as told:
        run, _ = carry_out(resolved, place, overwrite=overwrite, report=told, notes=notes)
    return run


def plan(
    source: str | Path | None = None,
    *,
    model: str | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    context: int | None = None,
    kind: str | None = None,
    split: str | None = None,
    encoding: str | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    dedup: bool | None = None,
    nfc: bool | None = None,
    clean: bool | None = None,
    min_count: int | None = None,
    weights: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    gpus: int | None = None,
    gpu: str | None = None,
    mfu: float | None = None,
) -> Advice | Estimate:
    """What `train` would choose with these arguments, and why; or, where the model is chosen, what
    the training will take. Nothing is trained, and data that are not here are not fetched: their
    vocabulary must be known then.

    Args:
        gpus: how many there will be (1).
        gpu: a known one, such as "h100", or its peak in TFLOP/s in bfloat16; None: the one here.
        mfu: share of that peak which is used (0.3).

    Raises:
        MoreishError: a setting or the source is wrong, or what is asked depends on missing data.
    """
    given = _tree(
        model=model,
        steps=steps,
        minutes=minutes,
        epochs=epochs,
        context=context,
        source=source,
        kind=kind,
        split=split,
        encoding=encoding,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        dedup=dedup,
        nfc=nfc,
        clean=clean,
        min_count=min_count,
        weights=weights,
    )
    recipe = normalize({} if config is None else from_toml(Path(config)))
    asked = merge(given, normalize(settings or {}))
    start, base = merge(recipe, asked).get("init_from"), Tree()
    if isinstance(start, str):
        base = _planned_start(start, merge(recipe, asked))
    resolved = resolve(base, recipe, asked)
    check_optimizer(resolved.train.optimizer)
    tracker_names(resolved.train.track)  # whose packages need not be here
    if isinstance(resolved.model, AutoConfig):
        if not (gpus is None and gpu is None and mfu is None):
            raise MoreishError(
                "the planner chooses for this machine: --gpus, --gpu and --mfu go with a model "
                "that is chosen, by --config or --model"
            )
        return advise(understood(resolved))
    return foreseen(
        resolved,
        asked=source is not None,
        gpus=1 if gpus is None else gpus,
        gpu=gpu,
        mfu=MFU if mfu is None else mfu,
    )


def _planned_start(start: str, asked: Mapping[str, Any]) -> Tree:
    """What a training takes over from the run, or the folder of another project, it starts from."""
    if not start.startswith("hf:"):
        return inherited(load(start), asked)
    from moreish.convert import described, described_by_name

    name = start.removeprefix("hf:")
    if (known := described_by_name(name)) is not None:
        return {"model": known, "data": {"tokenizer": "gpt2"}}
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        raise MoreishError(
            f"{start} is no folder here, and a plan fetches nothing: name one, with --set "
            "init_from=hf:FOLDER"
        )
    return {"model": described(folder), "data": {"tokenizer": str(folder / "tokenizer.json")}}


def prepare(
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    field: str = "text",
    separator: str | None = None,
    encoding: str = "utf-8",
    tokenizer: str = "gpt2",
    vocab_size: int | None = None,
    hold_out: float | None = None,
    split_seed: int = 42,
    workers: int | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Outcome:
    """Make token files of text of any size, which `train` and `plan` take; or go on with it, where
    it was cut short; or verify it, where it is done.

    Args:
        sources: files (text, JSON lines, Parquet; .gz, .bz2, .xz, .zst), folders of them, built-in
            data sets, and those of Hugging Face, `hf:NAME` or `hf:NAME:CONFIG`.
        field: of JSON lines; the column of Parquet files and data sets.
        separator: what stands between the documents of a text file; None: each file is one.
        hold_out: the share of validation, and of test; None: what suits the size.
        workers: threads, None: one for each core. They decide nothing but the speed.

    Raises:
        MoreishError: a source, an option or the place is wrong, or the text is too small.
    """
    given = [sources] if isinstance(sources, str | Path) else sources
    order = Order(
        sources=tuple(map(str, given)),
        reading=Reading(field=field, separator=separator, encoding=encoding),
        tokenizer=tokenizer,
        limits=Limits(vocab_size=vocab_size),
        hold_out=hold_out,
        split_seed=split_seed,
    )
    with _watching(report) as tell:
        return prepare_text(
            order,
            Path(out).expanduser(),
            overwrite=overwrite,
            workers=workers,
            told=lambda what, done, of: tell(Working(what=what, share=done / max(1, of))),
            note=lambda text: tell(Note(text=text)),
        )


def compare_tokenizers(
    source: str | Path = "names",
    tokenizers: Sequence[str] | None = None,
    *,
    vocab_size: int | None = None,
) -> list[TokenizerStats]:
    """What each of `tokenizers` makes of a source; those that learn do so from its training split.

    Args:
        tokenizers: registered names, or tokenizer.json files; None: all that can be had.

    Raises:
        MoreishError: the source or a tokenizer cannot be had.
    """
    if (Path(source) / "run.json").is_file():
        raise MoreishError(f"{source} is a run: give --text, to see what its tokenizer makes of it")
    built = _tokenizers(str(source), tokenizers, vocab_size)
    return [measure_tokenizer(name, tokenizer, corpus) for name, tokenizer, corpus in built]


def tokenize(
    text: str,
    source: str | Path = "names",
    tokenizers: Sequence[str] | None = None,
    *,
    vocab_size: int | None = None,
) -> dict[str, list[Token]]:
    """The tokens of `text`, by the name of the tokenizer.

    Args:
        source: a run, whose tokenizer is taken; or what the tokenizers are to cover, see
            `compare_tokenizers`.

    Raises:
        MoreishError: the source or a tokenizer cannot be had, or `text` is unknown to it.
    """
    if (Path(source) / "run.json").is_file():
        run = load(source)
        return {run.config.data.tokenizer: tokenize_text(run.tokenizer, text)}
    built = _tokenizers(str(source), tokenizers, vocab_size)
    return {name: tokenize_text(tokenizer, text) for name, tokenizer, _ in built}


def _tokenizers(
    source: str, names: Sequence[str] | None, vocab_size: int | None
) -> Iterator[tuple[str, Tokenizer, Corpus]]:
    """Each of them, made for the source."""
    config = resolve(_tree(source=source, vocab_size=vocab_size)).data
    corpus = read_corpus(config.source)
    for name in names or REGISTRY:
        try:
            tokenizer = make_tokenizer(config.model_copy(update={"tokenizer": name}), corpus)
        except MoreishError:
            if names:
                raise
            continue  # a library or a file is not here
        yield name, tokenizer, corpus


def doctor(
    source: str | Path,
    *,
    kind: str | None = None,
    split: str | None = None,
    encoding: str | None = None,
    dedup: bool | None = None,
    nfc: bool | None = None,
    clean: bool | None = None,
    min_count: int | None = None,
    report: Report | None = None,
) -> Diagnosis:
    """What is wrong with a text, and what would mend it. The arguments are those of `train`.

    Raises:
        MoreishError: the source cannot be read.
    """
    given = _tree(
        source=source,
        kind=kind,
        split=split,
        encoding=encoding,
        dedup=dedup,
        nfc=nfc,
        clean=clean,
        min_count=min_count,
    )
    data = resolve(given).data
    with _watching(report) as told:
        return diagnose(
            data.source,
            data.kind,
            data.encoding,
            data.mending,
            data.split,
            given=[data.source, *data.options()],
            progress=lambda share: told(Working(what="reading", share=share)),
        )


def doctor_page(diagnosis: Diagnosis, path: Path) -> None:
    """Write what the doctor says as a page. Raises MoreishError where it would replace something
    else, or lie in the source."""
    from moreish.figures import check_doctor_page, doctor_page, write

    check_doctor_page(path, next(iter(diagnosis.given), ""))
    write(path, doctor_page(diagnosis))


def resume(path: str | Path, *, inexact: bool = False, report: Report | None = None) -> Run:
    """Go on with an interrupted training, to the bits that it had ended with uninterrupted.

    Args:
        inexact: even where other versions, threads or machines make that impossible.

    Raises:
        MoreishError: there is nothing to resume, or it would not be exact.
    """
    with _watching(report) as told:
        run, _ = resume_training(Path(path).expanduser(), inexact=inexact, report=told)
    return run


def load(path: str | Path) -> Run:
    """Open a run folder. Raises MoreishError when it is none, or damaged."""
    return Run.open(path)


def _start(name: str) -> Run:
    """The run to start from; what is elsewhere is imported first."""
    if not name.startswith("hf:"):
        return load(name)
    from moreish.convert import content_of, fetched
    from moreish.convert import import_hf as carry_out

    folder = fetched(name.removeprefix("hf:"))
    for place in RUNS.glob(f"hf-{folder.name}*"):
        if (place / "run.json").is_file():
            run = load(place)
            here = run.config.data.source == str(folder.resolve())
            if here and content_of(folder) in run.record.data.notes:
                return run
    return carry_out(folder, free_path(f"hf-{folder.name}"))


def import_hf(source: str | Path, *, out: str | Path, overwrite: bool = False) -> Run:
    """A run with a model of Hugging Face's transformers, GPT-2's or Llama's, and its tokenizer.

    Args:
        source: a folder, or a name on the hub, such as openai-community/gpt2.
        out: the new run; `overwrite` replaces one.

    Raises:
        MoreishError: the model is of another kind, damaged, or cannot be reached.
    """
    from moreish.convert import fetched
    from moreish.convert import import_hf as carry_out

    return carry_out(fetched(str(source)), Path(out).expanduser(), overwrite=overwrite)


def export(
    run: Run,
    out: str | Path,
    *,
    to: str = "hf",
    licence: str = "unknown",
    overwrite: bool = False,
) -> "Exported":
    """Take a run to another program, which checks the folder before it appears.

    Args:
        to: "hf" (Hugging Face's transformers), "gguf" (llama.cpp) or "onnx" (ONNX Runtime).
        licence: for the model card.

    Raises:
        MoreishError: the model cannot be expressed there, a library is missing, or `out` exists.
    """
    from moreish.convert import export as carry_out

    return carry_out(run, Path(out).expanduser(), to=to, licence=licence, overwrite=overwrite)


def lr_range(
    source: str | Path = "names",
    *,
    model: str | None = None,
    low: float | None = None,
    high: float | None = None,
    steps: int = 300,
    split: str | None = None,
    kind: str | None = None,
    settings: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> LRRange:
    """Train `model` for a few steps at rates from `low` to `high`, see
    `moreish.training.lr_range`. The other arguments are those of `train`."""
    given = _tree(model=model, source=source, split=split, kind=kind)
    config = resolve(merge(given, normalize(settings or {})))
    with _watching(report) as told:
        ready, _ = planned(understood(config))
        return try_rates(ready, report=told, low=low, high=high, steps=steps)


def figures(run: Run, *, text: str | None = None) -> "list[Picture]":
    """Draw all pictures of `run` into its folder; `text` is the one that is looked at closely.

    Raises:
        MoreishError: the drawing library is not installed.
    """
    try:
        from moreish.figures import make
    except ImportError:
        raise MoreishError("drawing needs a library: pip install 'moreish[figures]'") from None
    return make(run, run.path / "figures", text)


def report(run: Run, *, text: str | None = None) -> Path:
    """Draw all pictures of `run` and write its report; returns where that is."""
    pictures = figures(run, text=text)
    from moreish.figures import run_page, write

    write(run.path / "report.html", run_page(run, pictures))
    return run.path / "report.html"


def ladder_report(found: Mapping[str, Any], folder: Path) -> Path:
    """Draw the figure of a ladder into `folder` and write its report; returns where that is.

    Raises:
        MoreishError: the drawing library is not installed.
    """
    try:
        from moreish.figures import THEMES, draw_ladder, ladder_page, save, themed, write
    except ImportError:
        raise MoreishError("drawing needs a library: pip install 'moreish[figures]'") from None
    if all(rung["splits"]["val"]["loss"] is None for rung in found["rungs"]):
        raise MoreishError("no rung has a finite loss: there is nothing to draw")
    for theme, suffix in THEMES:
        with themed(theme):
            save(draw_ladder(found["rungs"], theme), folder / f"ladder{suffix}.svg")
    write(folder / "report.html", ladder_page(found, folder))
    return folder / "report.html"


def draw_range(found: LRRange, path: Path) -> None:
    """Draw a learning-rate range test. Raises MoreishError without the drawing library."""
    try:
        from moreish.figures import LIGHT, draw_lr_range, save, themed
    except ImportError:
        raise MoreishError("drawing needs a library: pip install 'moreish[figures]'") from None
    with themed(LIGHT):
        figure = draw_lr_range(
            found.rates, found.losses, found.smoothed, found.valley, found.suggested, LIGHT
        )
        save(figure, path)


def _tree(**options: Any) -> Tree:
    """The options that are given, each in its group of settings."""
    tree: Tree = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in ("seed", "init_from"):
            tree[name] = str(value) if isinstance(value, Path) else value
        elif name in ("model", "context"):
            tree.setdefault("model", {})["name" if name == "model" else name] = value
        elif name in BUDGETS:
            tree.setdefault("train", {})[name] = value
        else:
            value = dict(value) if isinstance(value, Mapping) else value
            tree.setdefault("data", {})[name] = str(value) if isinstance(value, Path) else value
    return tree


@contextmanager
def _watching(report: Report | None) -> Iterator[Report]:
    """Who is told: `report`, or else the terminal, whose progress bar then goes in any case."""
    if report is not None:
        yield report
        return
    from moreish.ui import TrainingView

    view = TrainingView()
    try:
        yield view
    finally:
        view.close()
