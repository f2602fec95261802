"""`moreish train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moreish.cli.base import (
    Clean,
    Dedup,
    Json,
    MinCount,
    Nfc,
    Tokenizer,
    VocabSize,
    Weight,
    app,
    print_json,
    shares,
)
from moreish.errors import MoreishError, command
from moreish.utils.sighup import outliving_its_terminal

RESULTS = {
    "status",
    "parameters",
    "splits",
    "seconds",
    "evaluation_seconds",
    "scoring_seconds",
    "tokens_per_second",
}
"""Of run.json, what `train --json` prints."""


@app.command()
@outliving_its_terminal()
def train(
    source: Annotated[
        str | None,
        typer.Argument(help="A built-in data set, a file, a folder of texts or prepared (names)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="ngram, bigram, mlp, gpt, hybrid … (auto).")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Train this long (1).")] = None,
    steps: Annotated[int | None, typer.Option(help="… or this many steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="… or this often over the data.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the model sees.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and batches (0).")] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="lines (each an item) or text; else guessed.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="seeded, or lecture: the lectures' own split (seeded).")
    ] = None,
    tokenizer: Tokenizer = None,
    vocab_size: VocabSize = None,
    encoding: Annotated[str | None, typer.Option(help="Of the source (utf-8).")] = None,
    dedup: Dedup = False,
    nfc: Nfc = False,
    clean: Clean = False,
    min_count: MinCount = None,
    weight: Weight = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (a new one in runs/).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run at --out.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any setting, e.g. train.lr=0.001."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe (TOML) of settings.")] = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Start from its weights; or from hf:FOLDER."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted training.")
    ] = None,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="… even if it cannot end with the same bits.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model of a text. Without arguments: names, for a minute."""
    from moreish import api
    from moreish.distributed import first
    from moreish.settings import from_assignments
    from moreish.ui import TrainingView, console, score_table

    out_console = console(stderr=as_json)
    view = TrainingView(out_console)
    options: dict[str, Any] = {
        "source": source,
        "model": model,
        "minutes": minutes,
        "steps": steps,
        "epochs": epochs,
        "context": context,
        "seed": seed,
        "kind": kind,
        "split": split,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "encoding": encoding,
        "dedup": dedup or None,
        "nfc": nfc or None,
        "clean": clean or None,
        "min_count": min_count,
        "weights": shares(weight),
        "init_from": init_from,
        "out": out,
        "config": config,
    }
    try:
        if inexact and resume is None:
            raise MoreishError("--inexact goes with --resume")
        if resume is None:
            run = api.train(
                **options,
                settings=from_assignments(settings or []),
                overwrite=overwrite,
                report=view,
            )
        elif settings or overwrite or any(value is not None for value in options.values()):
            raise MoreishError("--resume takes no other settings: the run has its own")
        else:
            run = api.resume(resume, inexact=inexact, report=view)
    finally:
        view.close()
    if not first():
        return
    record = run.record
    if record.status == "interrupted":
        go_on = command("train", "--resume", run.path)
        out_console.print(f"\nStopped. Go on with: {go_on}")
    if as_json:
        print_json({"run": str(run.path), **record.model_dump(mode="json", include=RESULTS)})
    if record.status == "interrupted":
        raise typer.Exit(130)
    if as_json:
        return
    if record.status == "stopped early":
        out_console.print("Stopped early: validation was rising. The best weights are kept.")
    out_console.print()
    out_console.print(score_table(run.scores))
    out_console.print(f"\nMore of it: {command('sample', run.path)}")
