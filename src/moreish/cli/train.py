"""`moreish train`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from moreish.cli.base import (
    Json,
    Overwrite,
    Recipe,
    Set,
    Sources,
    app,
    find_run,
    print_json,
    read_sources,
    takes_flags,
)
from moreish.errors import MoreishError
from moreish.options import TrainOptions, names_of
from moreish.utils.signals import survive_hangup

RESULTS = {
    "status",
    "parameters",
    "splits",
    "seconds",
    "evaluation_seconds",
    "scoring_seconds",
    "tokens_per_second",
}
"""Fields of run.json that `train --json` prints."""


@app.command()
@survive_hangup()
@takes_flags(*names_of(TrainOptions))
def train(
    sources: Sources = None,
    out: Annotated[
        Path | None, Option(help="Run folder to create (default: a new one in runs/).")
    ] = None,
    overwrite: Overwrite = False,
    settings: Set = None,
    config: Recipe = None,
    resume: Annotated[
        Path | None,
        Option(
            metavar="RUN",
            parser=find_run,
            help="Resume an interrupted run, or train a finished one longer, for --minutes.",
        ),
    ] = None,
    inexact: Annotated[
        bool,
        Option("--inexact", help="Resume even where the result cannot be the same bit for bit."),
    ] = False,
    quiet: Annotated[
        bool, Option("--quiet", "-q", help="Print the run folder only, and errors.")
    ] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Train a language model on a text, by default on the built-in names for one minute."""
    from moreish import api
    from moreish.distributed import is_main_process
    from moreish.settings import from_assignments
    from moreish.ui import TrainingView, console, describe_ending, print_message, print_result

    terminal = console(stderr=as_json)
    terminal.quiet = quiet
    if inexact and resume is None:
        raise MoreishError("--inexact goes with --resume")
    from moreish.config import BUDGETS

    budget = {name: options[name] for name in BUDGETS if name in options}
    if resume is not None and any((sources, out, config, settings, overwrite, options != budget)):
        raise MoreishError("--resume takes no other settings than --minutes, --steps and --epochs")
    with TrainingView(terminal) as view:
        if resume is not None:
            run = api.resume(resume, inexact=inexact, report=view, **budget)
        else:
            run = api.train(
                **read_sources(sources),
                settings=from_assignments(settings or []),
                config=config,
                out=out,
                overwrite=overwrite,
                report=view,
                **options,
            )
    if not is_main_process():
        return
    record = run.record
    if record.status == "interrupted":
        terminal.print()
        print_message(terminal, describe_ending(run))
    if as_json:
        print_json(run=run.path, **record.model_dump(mode="json", include=RESULTS))
    if record.status == "interrupted":
        raise typer.Exit(130)
    if as_json:
        return
    if quiet:
        typer.echo(run.path)
        return
    if record.status == "stopped early":
        terminal.print(describe_ending(run))
    terminal.print()
    print_result(terminal, run)
