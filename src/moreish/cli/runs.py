"""`moreish runs`: list, remove and rename runs."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from moreish.cli.base import RUNS, App, CommandGroup, Json, app, find_run, print_json, trained_at
from moreish.errors import MoreishError, command

runs = App(
    cls=CommandGroup,
    help="List the runs in runs/; remove or rename them.",
    invoke_without_command=True,
)
app.add_typer(runs, name="runs")

RunArgument = Annotated[
    Path, Argument(metavar="RUN", help="Run folder, or its name in runs/.", parser=find_run)
]


@runs.callback()
def list_runs(ctx: typer.Context, as_json: Json = False) -> None:
    """List the runs in runs/, the newest first; remove or rename them."""
    if ctx.invoked_subcommand is None:
        _print_list(as_json=as_json)


def _print_list(*, as_json: bool) -> None:
    from moreish.ui import console, runs_table

    entries = [_describe(path.parent) for path in RUNS.glob("*/run.json")]
    entries.sort(key=lambda entry: -entry["modified"])
    if as_json:
        print_json(runs=entries)
    elif entries:
        console().print(runs_table(entries, now=time.time()))
    else:
        console().print(f"There are no runs in {RUNS}/. Train one: {command('train')}")


def _describe(path: Path) -> dict[str, Any]:
    """Return what the list shows of a run; only its name and size if it is damaged."""
    from moreish.runs import Run

    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    modified = trained_at(path)
    entry: dict[str, Any] = {"run": path, "bytes": size, "modified": modified}
    try:
        run = Run.open(path)
    except MoreishError:
        return {**entry, "status": "damaged", "model": None, "loss": None}
    score = run.record.splits.get("val")
    loss = None if score is None else score.loss
    return {**entry, "status": run.record.status, "model": run.config.model.name, "loss": loss}


@runs.command(name="list")
def list_verb(as_json: Json = False) -> None:
    """List the runs in runs/, the newest first."""
    _print_list(as_json=as_json)


@runs.command(name="rm")
def remove(
    paths: Annotated[
        list[Path],
        Argument(metavar="RUN...", help="Run folders, or their names in runs/.", parser=find_run),
    ],
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove runs, with their weights and data."""
    from moreish.runs import Run, remove_run, training_lock
    from moreish.utils.files import format_bytes

    for path in paths:
        Run.open(path)  # raises if it is no run
    for path in paths:
        size = format_bytes(_describe(path)["bytes"])
        if not yes and not typer.confirm(f"Remove {path} ({size})?"):
            continue
        with training_lock(path):  # raises if another process trains it
            remove_run(path)
        typer.echo(f"Removed {path} ({size}).")


@runs.command(name="rename")
def rename(
    path: RunArgument,
    name: Annotated[str, Argument(metavar="NAME", help="New name, without a folder.")],
) -> None:
    """Rename a run; it stays in its folder."""
    from moreish.runs import Run, check_run_path, training_lock

    Run.open(path)
    if Path(name).name != name or name.startswith("."):
        raise MoreishError(f"'{name}' is not a name: leave out the folder")
    target = path.with_name(name)
    if target.exists():
        raise MoreishError(f"{target} exists: choose another name")
    check_run_path(target, overwrite=False)
    with training_lock(path):
        path.rename(target)
    typer.echo(f"Renamed {path} to {target}.")
