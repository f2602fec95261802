"""The functions of `import moreish`, which the command line calls as well."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack

from moreish import convert, data, reports, training, workflows
from moreish.config import AutoConfig, BudgetConfig, normalize, resolve
from moreish.distributed import is_main_process
from moreish.errors import MoreishError
from moreish.evaluate import Token, TokenizerStats, measure_tokenizer, tokenize_text
from moreish.options import ModelOptions, TextOptions, TrainOptions, settings_tree, takes_options
from moreish.planning import DEFAULT_MFU, Estimate, Plan, estimate_run, plan_run, resolve_auto_model
from moreish.runs import Comparison, Run, RunGroup, compare_runs
from moreish.settings import Tree, expand_names, from_toml, merge
from moreish.tokenizers import REGISTRY, Tokenizer, VocabularyLimits
from moreish.training import Report
from moreish.ui import TrainingView, console, print_ending
from moreish.utils.extras import import_extra
from moreish.utils.files import user_path

Source = data.Source
Settings = Mapping[str, Any]


@takes_options(TrainOptions)
def train(
    source: Source | None = None,
    *,
    text: str | None = None,
    settings: Settings | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    report: Report | None = None,
    **options: Unpack[TrainOptions],
) -> Run:
    """Train a language model on a text and return its run.

    Without arguments it trains on the built-in names for about a minute, with the model that the
    planner chooses for this machine (see `plan`).

    Args:
        source: a built-in data set, a file, a folder of text files, or one that `prepare` made; a
            list of paths (`pathlib.Path`); or the items of a list, e.g. `["anna", "otto", …]`.
        text: a text to learn, in place of a source.
        settings: any other setting, as nested groups or with dots, e.g. `{"train": {"clip": 0.5}}`
            or `{"train.clip": 0.5}`; all are listed in docs/settings.md.
        config: a recipe (TOML) of settings, which the other arguments override.
        out: the run folder; None creates one in `runs/`.
        overwrite: whether to replace the run at `out`.
        report: a function that is called with every event of the run; None shows the progress
            on the terminal.

    Raises:
        MoreishError: the source, a setting or the output folder is invalid; nothing was written.
    """
    with data.source_settings(source, text, column=options.get("column")) as place:
        recipe, overrides = _layers(place, options, settings, config)
        requested = merge(recipe, overrides)
        base: Tree = {}
        if isinstance(start := requested.get("init_from"), str):
            start_run = _start(start)
            base = training.warm_start_settings(start_run, requested)
            overrides = merge(overrides, {"init_from": str(start_run.path)})
        own = {} if base else requested.get("model", {})
        notes: tuple[str, ...] = ()
        if own and "name" not in own:
            notes = (f"model.{min(own)} was set without --model, so this trains a plain GPT.",)
        path = None if out is None else user_path(out)
        resolved = resolve(base, recipe, overrides)
        with _report_context(report) as watch:
            run = workflows.train(resolved, path, overwrite=overwrite, report=watch, notes=notes)
    return _ended(run, report)


@takes_options(TrainOptions)
def plan(
    source: Source | None = None,
    *,
    text: str | None = None,
    settings: Settings | None = None,
    config: str | Path | None = None,
    gpus: int | None = None,
    gpu: str | None = None,
    mfu: float | None = None,
    **options: Unpack[TrainOptions],
) -> Plan | Estimate:
    """Return what `train` would choose with these arguments, or what a chosen model would take.

    Nothing is trained and nothing is downloaded: the vocabulary of a data set that is not on this
    machine must be known from the settings.

    Args:
        source, text, settings, config: as in `train`.
        gpus: the number of GPUs to estimate for (default 1).
        gpu: a GPU by name, such as "h100", or its bfloat16 peak in TFLOP/s; None takes this one.
        mfu: the fraction of that peak to assume (default 0.3).

    Returns:
        The plan, where the model is left to the planner; otherwise the estimate for the model.

    Raises:
        MoreishError: a setting or the source is invalid, or the answer depends on missing data.
    """
    with data.source_settings(source, text, column=options.get("column")) as place:
        recipe, overrides = _layers(place, options, settings, config)
        requested = merge(recipe, overrides)
        start = requested.get("init_from")
        base = _planned_start(start, requested) if isinstance(start, str) else {}
        resolved = resolve(base, recipe, overrides)
        training.check_optimizer(resolved.train.optimizer)
        training.parse_trackers(resolved.train.track, installed=False)
        if isinstance(resolved.model, AutoConfig):
            if (gpus, gpu, mfu) != (None, None, None):
                raise MoreishError(
                    "--gpus, --gpu and --mfu need a chosen model, by --config or --model: the "
                    "planner chooses for this machine"
                )
            return plan_run(training.set_up(resolved))
        gpus, mfu = 1 if gpus is None else gpus, DEFAULT_MFU if mfu is None else mfu
        needs_data = bool(place)
        return estimate_run(resolved, requires_data=needs_data, gpus=gpus, gpu=gpu, mfu=mfu)


def _layers(
    place: Tree,
    options: Mapping[str, Any],
    settings: Settings | None = None,
    config: str | Path | None = None,
) -> tuple[Tree, Tree]:
    """Return the settings of a recipe, and those of the arguments, which override it."""
    recipe = normalize({} if config is None else from_toml(user_path(config)))
    own = normalize(expand_names(settings or {}))
    return recipe, merge({"data": place}, settings_tree(options), own)


def _start(name: str) -> Run:
    """Return the run to start from; a Hugging Face model is imported to `runs/` first, once."""
    if not name.startswith("hf:"):
        return load(name)
    folder = convert.resolve_model_folder(name.removeprefix("hf:"))
    for record in sorted(workflows.RUNS.glob("*/run.json")):
        if not record.parent.name.startswith(f"hf-{folder.name}"):
            continue
        run = load(record.parent)
        is_same = run.has_weights and run.config.data.source == str(folder.resolve())
        if is_same and convert.checkpoint_digest(folder) in run.record.data.notes:
            return run
    return convert.import_hf(folder, workflows.free_path(f"hf-{folder.name}"))


def _planned_start(start: str, requested: Mapping[str, Any]) -> Tree:
    """Return the settings that a run takes over from the run or Hugging Face model that it
    starts from, without importing the model."""
    if not start.startswith("hf:"):
        return training.warm_start_settings(load(start), requested)
    name = start.removeprefix("hf:")
    if (published := convert.gpt2_settings(name)) is not None:
        return {"model": published, "data": {"tokenizer": "gpt2"}}
    folder = user_path(name)
    if not name or not folder.is_dir():
        raise MoreishError(
            f"{start}: there is no such folder, and plan downloads nothing; give one that exists, "
            "--init-from hf:FOLDER"
        )
    tokenizer = str(folder / "tokenizer.json")
    return {"model": convert.load_model_settings(folder), "data": {"tokenizer": tokenizer}}


def resume(
    path: Run | str | Path,
    *,
    inexact: bool = False,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    report: Report | None = None,
) -> Run:
    """Resume an interrupted run, which ends with the same weights as if it had never stopped; or
    train a finished one longer, from its best weights.

    Args:
        path: the run, or its folder.
        inexact: whether to resume even where other versions, threads or machines make the same
            bits impossible.
        minutes, steps, epochs: how long to train a finished run further.
        report: as in `train`.

    Raises:
        MoreishError: there is nothing to resume, or it would not be exact.
    """
    given = {"minutes": minutes, "steps": steps, "epochs": epochs}
    budget = {name: value for name, value in given.items() if value is not None}
    BudgetConfig.parse(budget, "train")
    with _report_context(report) as watch:
        folder = path.path if isinstance(path, Run) else user_path(path)
        run = workflows.resume(folder, inexact=inexact, budget=budget, report=watch)
    return _ended(run, report)


def load(path: str | Path) -> Run:
    """Open a run folder. Raises MoreishError when it is not one, or is damaged."""
    return Run.open(path)


@takes_options(TextOptions)
def doctor(
    source: Source | None = None,
    *,
    text: str | None = None,
    validation_file: str | None = None,
    test_file: str | None = None,
    report: Report | None = None,
    **options: Unpack[TextOptions],
) -> data.AuditReport:
    """Find problems in a text, and the options of `train` that fix them.

    Args:
        source, text, report: as in `train`.
        validation_file: Validation split from its own file; the source is then all training split.
            Of examples only: inputs that are in several splits are reported.
        test_file: Test split from a file of its own, with --validation-file.

    Raises:
        MoreishError: the source cannot be read.
    """
    held_out = {"validation_file": validation_file, "test_file": test_file}
    with (
        data.source_settings(source, text, column=options.get("column")) as place,
        _report_context(report) as watch,
    ):
        config = resolve(*_layers(place, options), {"data": held_out}).data
        if training.is_examples(config):
            corpus = training.load_examples(config)
            return data.audit_examples(corpus, source_args=config.arguments())
        if validation_file is not None or test_file is not None:
            raise MoreishError("--validation-file and --test-file: check each text by itself")
        return data.audit_source(
            config.source,
            config.kind,
            config.encoding,
            config.cleaning,
            column=config.column,
            separator=config.separator,
            source_args=config.arguments(),
            progress=lambda share: watch(training.Progress(what="reading", share=share)),
        )


def doctor_page(audit: data.AuditReport, path: Path) -> None:
    """Write the findings of `doctor` as an HTML page. Raises MoreishError where that would replace
    something else, or lie in the source."""
    reports.check_doctor_report_path(path, next(iter(audit.source_args), ""))
    reports.write_report(path, reports.doctor_report_html(audit))


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
) -> data.PrepareResult:
    """Tokenize text of any size into token files, which `train` and `plan` take as a source.

    Called again it resumes what was interrupted, or verifies what is complete.

    Args:
        sources: files (text, JSON lines, Parquet; .gz, .bz2, .xz, .zst), folders of them, built-in
            data sets, and data sets of Hugging Face, `hf:NAME` or `hf:NAME:CONFIG`.
        out: the folder to write to.
        field: the field of JSON lines, or the column of Parquet files, that holds the text.
        separator: the text between the documents of a file; None: each file is one document.
        encoding: the character encoding of text files.
        tokenizer: a name in `moreish.tokenizers.REGISTRY`, or a tokenizer.json.
        vocab_size: the largest size of a learned vocabulary.
        hold_out: the fraction of the text for validation, and for test; None: set by the size.
        split_seed: the seed that decides which chunks are held out.
        workers: the number of threads (default: one for each core); they affect only the speed.
        overwrite: whether to replace what was prepared in `out`.
        report: as in `train`.

    Raises:
        MoreishError: a source, an option or the output folder is invalid, or the text is too small.
    """
    config = data.PrepareConfig(
        sources=tuple(map(str, [sources] if isinstance(sources, str | Path) else sources)),
        source_format=data.SourceFormat(field=field, separator=separator, encoding=encoding),
        tokenizer=tokenizer,
        limits=VocabularyLimits(vocab_size=vocab_size),
        hold_out=hold_out,
        split_seed=split_seed,
    )
    with _report_context(report) as watch:
        return data.prepare_dataset(
            config,
            user_path(out),
            overwrite=overwrite,
            workers=workers,
            progress=lambda what, done, total: watch(
                training.Progress(what=what, share=done / max(1, total), size=total)
            ),
            note=lambda text: watch(training.Note(text=text)),
        )


def compare_tokenizers(
    source: str | Path = "names",
    tokenizers: Sequence[str] | None = None,
    *,
    vocab_size: int | None = None,
) -> list[TokenizerStats]:
    """Measure how each tokenizer encodes a source.

    Args:
        source: a built-in data set, a file, or a folder of text files.
        tokenizers: registered names or tokenizer.json files; None: all that are available.
            Tokenizers with a learned vocabulary are trained on the training split.
        vocab_size: the largest size of a learned vocabulary.

    Raises:
        MoreishError: the source or a tokenizer is not available.
    """
    if (Path(source) / "run.json").is_file():
        raise MoreishError(f"{source} is a run: add --text TEXT to see its tokens")
    built = _tokenizers(source, tokenizers, vocab_size)
    return [measure_tokenizer(name, tokenizer, corpus) for name, tokenizer, corpus in built]


def tokenize(
    text: str,
    source: str | Path = "names",
    tokenizers: Sequence[str] | None = None,
    *,
    vocab_size: int | None = None,
) -> dict[str, list[Token]]:
    """Return the tokens of a text, by the name of the tokenizer.

    Args:
        text: what to tokenize.
        source: a run, whose tokenizer is used; or a source as in `compare_tokenizers`.
        tokenizers, vocab_size: as in `compare_tokenizers`.

    Raises:
        MoreishError: the source or a tokenizer is not available, or cannot encode `text`.
    """
    if (Path(source) / "run.json").is_file():
        run = load(source)
        return {run.config.data.tokenizer: tokenize_text(run.tokenizer, text)}
    built = _tokenizers(source, tokenizers, vocab_size)
    return {name: tokenize_text(tokenizer, text) for name, tokenizer, _ in built}


def _tokenizers(
    source: str | Path, names: Sequence[str] | None, vocab_size: int | None
) -> Iterator[tuple[str, Tokenizer, data.Corpus]]:
    """Yield the name of each tokenizer, the tokenizer built for the source, and the source."""
    config = resolve(*_layers({"source": str(source)}, {"vocab_size": vocab_size})).data
    corpus = data.read_corpus(config.source)
    for name in names or REGISTRY:
        try:
            tokenizer = training.build_tokenizer(
                config.model_copy(update={"tokenizer": name}), corpus
            )
        except MoreishError:
            if names:
                raise
            continue  # its library or its file is missing
        yield name, tokenizer, corpus


@takes_options(ModelOptions)
def lr_range(
    source: Source | None = None,
    *,
    text: str | None = None,
    low: float | None = None,
    high: float | None = None,
    steps: int = 300,
    settings: Settings | None = None,
    report: Report | None = None,
    **options: Unpack[ModelOptions],
) -> training.LRRange:
    """Train a model for a few steps at growing learning rates (Smith 2017, "Cyclical Learning Rates
    for Training Neural Networks", section 3.3).

    Args:
        source, text, settings, report: as in `train`.
        low, high: the first and the last rate; None: the model's usual one / 300 and x 300.
        steps: the number of rates, one step each.

    Raises:
        MoreishError: the model has no learning rate, or none can be found.
    """
    place = data.source_settings(source, text, column=options.get("column"))
    with place as found, _report_context(report) as watch:
        config = resolve(*_layers(found, options, settings))
        setup, _ = resolve_auto_model(training.set_up(config))
        return training.run_lr_range_test(setup, report=watch, low=low, high=high, steps=steps)


def import_hf(source: str | Path, *, out: str | Path, overwrite: bool = False) -> Run:
    """Import a GPT-2 or Llama model of Hugging Face's transformers, with its tokenizer, as a run.

    Args:
        source: a folder, or a name on the hub, such as openai-community/gpt2.
        out: the run folder to create.
        overwrite: whether to replace the run at `out`.

    Raises:
        MoreishError: the model is of another kind, damaged, or cannot be reached.
    """
    folder = convert.resolve_model_folder(str(source))
    return convert.import_hf(folder, user_path(out), overwrite=overwrite)


export = convert.export


def compare(
    *runs: Run | str | Path | Sequence[Run | str | Path],
    test: bool = False,
    report: Report | None = None,
) -> tuple[list[RunGroup], list[Comparison]]:
    """Compare runs on the same tokens, with confidence intervals.

    Args:
        runs: at least two runs or run folders, or one sequence of them, trained on the same text
            and split. Those that differ only in their seed form one group.
        test: whether to compare on the test split; run.json counts how often that was done.
        report: as in `train`.

    Returns:
        The groups, the best first, and the difference of every pair of them; `str` of a
        comparison is a sentence.

    Raises:
        MoreishError: fewer than two different runs, runs of different texts or splits, or runs
            that differ only in their seed.
    """
    flat: list[Run | str | Path] = []
    for item in runs:
        flat += [item] if isinstance(item, Run | str | Path) else item
    opened = [item if isinstance(item, Run) else load(item) for item in flat]
    if len({run.path.resolve() for run in opened}) < max(2, len(opened)):
        raise MoreishError("name at least two different runs, each once")
    with _report_context(report) as watch:
        return compare_runs(
            opened,
            "test" if test else "val",
            lambda what, share: watch(training.Progress(what=what, share=share)),
        )


def figures(run: Run, *, text: str | None = None) -> list[reports.RunFigure]:
    """Draw all figures of a run into its folder.

    Args:
        run: the run.
        text: the text of the attention and surprisal figures; None: the start of the validation
            split.

    Raises:
        MoreishError: the drawing library is not installed.
    """
    return _figures_package().make_figures(run, run.path / "figures", text)


def report(run: Run, *, text: str | None = None) -> Path:
    """Draw all figures of a run and write its report; the arguments are those of `figures`.

    Returns:
        The path of the HTML file.
    """
    path = run.path / "report.html"
    reports.write_report(path, reports.run_report_html(run, figures(run, text=text)))
    return path


def ladder_report(found: Mapping[str, Any], folder: Path) -> Path:
    """Draw the figure of a ladder into its folder and write its report.

    Returns:
        The path of the HTML file.

    Raises:
        MoreishError: the drawing library is not installed, or no rung has a finite loss.
    """
    package, path = _figures_package(), folder / "report.html"
    if all(rung["splits"]["val"]["loss"] is None for rung in found["rungs"]):
        raise MoreishError("no rung has a finite loss: there is nothing to draw")
    package.make_ladder_figure(found["rungs"], folder)
    reports.write_report(path, reports.ladder_report_html(found, folder))
    return path


def draw_range(found: training.LRRange, path: Path) -> None:
    """Draw a learning-rate range test. Raises MoreishError without the drawing library."""
    _figures_package().make_lr_range_figure(found, path)


def _figures_package() -> ModuleType:
    """Return `moreish.figures`. Raises MoreishError if its library is not installed."""
    import_extra("matplotlib", "figures", "drawing")
    return import_module("moreish.figures")


def _ended(run: Run, report: Report | None) -> Run:
    """Return a run that was trained; without `report`, print how that ended."""
    if report is None and is_main_process():
        print_ending(console(), run)
    return run


def _report_context(report: Report | None) -> AbstractContextManager[Report]:
    """Return a context with `report`, or with a view on the terminal that is closed at the end."""
    return TrainingView() if report is None else nullcontext(report)
