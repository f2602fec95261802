"""`moreish ladder`."""

from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import Json, app, print_json
from moreish.errors import MoreishError, command
from moreish.utils.sighup import survive_hangup


@app.command()
@survive_hangup()
def ladder(
    source: Annotated[
        str, typer.Argument(help="A built-in data set, a file, a folder of texts or prepared.")
    ] = "names",
    minutes: Annotated[float | None, typer.Option(help="Train each rung this long (1).")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train each rung for this many passes instead.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Train each rung for this many optimizer steps instead.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Six seconds a rung.")] = False,
    rungs: Annotated[str | None, typer.Option(metavar="A,B,C", help="Only these rungs.")] = None,
    split: Annotated[
        str | None, typer.Option(help="seeded, or lecture (which the lectures' data get).")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="lines (each an item) or text; else guessed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    test: Annotated[bool, typer.Option("--test", help="Evaluate the test split too.")] = False,
    out: Annotated[Path | None, typer.Option(help="Its folder (ladders/SOURCE).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train these rungs again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Climb from counting pairs to a GPT on one split: one table, one figure, one report."""
    from moreish import api
    from moreish.ui import TrainingView, console, ladder_table, stated_lines
    from moreish.workflows import QUICK, climb

    if quick and (minutes, epochs, steps) != (None, None, None):
        raise MoreishError("give one of --quick, --minutes, --epochs and --steps")
    place = out or Path("ladders") / (Path(source).resolve().stem or "ladder")
    view = TrainingView(console(stderr=as_json), brief=True)
    try:
        found = climb(
            source,
            out=place,
            minutes=QUICK if quick else minutes,
            epochs=epochs,
            steps=steps,
            rungs=rungs,
            split=split,
            kind=kind,
            seed=seed,
            test=test,
            overwrite=overwrite,
            report=view,
            done=view.rung,
        )
    finally:
        view.close()
    drawn = ""
    if found["rungs"]:
        try:
            drawn = f"The report: {api.ladder_report(found, place)}"
        except MoreishError as error:  # the table is there all the same
            drawn = f"No report: {error}"
    if as_json:
        print_json(found)
    elif found["rungs"]:
        console().print()
        console().print(ladder_table(found["rungs"]))
        if found["source"] == "names":
            hint = "The lectures' own names, with their numbers: moreish ladder names-lecture"
            console().print(hint, style="dim")
        for line in stated_lines(found["rungs"]):
            console().print(line, style="dim")
    if drawn and not as_json:
        console().print(f"\n{drawn}")
        console().print(f"Any of them: {command('sample', place / found['rungs'][-1]['rung'])}")
    if not found["complete"]:
        again = "the same command goes on" + (", without --overwrite" if overwrite else "")
        console(stderr=True).print(f"Stopped and saved; {again}.")
        raise typer.Exit(130)
