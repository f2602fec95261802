"""`moreish ladder`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from moreish.cli.base import Json, Sources, app, print_json, read_sources, takes_flags
from moreish.errors import MoreishError, command
from moreish.options import TextOptions, names_of
from moreish.utils.signals import survive_hangup


@app.command()
@survive_hangup()
@takes_flags("minutes", "epochs", "steps", "split", "seed", *names_of(TextOptions))
def ladder(
    sources: Sources = None,
    quick: Annotated[bool, Option("--quick", help="Train each rung for 6 seconds.")] = False,
    rungs: Annotated[
        str | None, Option(metavar="A,B,C", help="Train only these rungs (default: all).")
    ] = None,
    test: Annotated[bool, Option("--test", help="Evaluate the test split too.")] = False,
    out: Annotated[
        Path | None, Option(help="Folder of the ladder (default: ladders/SOURCE).")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Train these rungs again.")] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Train a ladder of models on one split, from letter pairs to a GPT, and compare them in a
    table, a figure and a report. Training options apply to each rung; the lectures' own data
    are split as in the lectures. Examples have rungs of their own."""
    from moreish import api
    from moreish.data import source_settings
    from moreish.ui import (
        TrainingView,
        console,
        ladder_loss,
        ladder_table,
        print_message,
        stated_lines,
    )
    from moreish.workflows import QUICK, train_ladder

    if quick:
        if options.keys() & {"minutes", "epochs", "steps"}:
            raise MoreishError("give one of --quick, --minutes, --epochs and --steps")
        options["minutes"] = QUICK
        console(stderr=True).print(
            "Six seconds are enough for counts and small networks. Larger ones barely begin to "
            "learn, so their losses say little: without --quick each rung has a minute.",
            style="dim",
        )
    first, column = (sources or ["names"])[0], options.get("column")
    name = "text" if first == "-" else Path(first).resolve().stem or "ladder"
    folder = out or Path("ladders") / (name if column is None else f"{name}-{column}")
    with (
        source_settings(**{"source": None, **read_sources(sources)}, column=column) as place,
        TrainingView(console(stderr=as_json), brief=True) as view,
    ):
        found = train_ladder(
            place.get("source", "names"),
            out=folder,
            rungs=rungs,
            test=test,
            overwrite=overwrite,
            report=view,
            done=view.rung,
            **options,
        )
    report = ""
    if found["rungs"]:
        try:
            report = f"Report: {api.ladder_report(found, folder)}"
        except MoreishError as error:  # the table is printed all the same
            report = f"No report: {error}"
    if as_json:
        print_json(**found)
    elif found["rungs"]:
        console().print()
        console().print(ladder_table(found["rungs"]))
        if found["source"] == "names":
            hint = "The lectures' own names, with their numbers: moreish ladder names-lecture"
            console().print(hint, style="dim")
        if any("unseen_loss" in rung["splits"]["val"] for rung in found["rungs"]):
            hint = "new items: the validation items that are not in the training split"
            console().print(hint, style="dim")
        for line in stated_lines(found["rungs"]):
            console().print(line, style="dim")
        console().print(f"\n{report}")
        best = min(found["rungs"], key=ladder_loss)["rung"]
        verb = "predict" if found["kind"] == "examples" else "sample"
        print_message(console(), f"Best: {best}. Next: {command(verb, folder / best)}")
    if not found["complete"]:
        flags = ", without --overwrite" if overwrite else ""
        console(stderr=True).print(f"Stopped. Run the same command{flags} to resume.")
        raise typer.Exit(130)
