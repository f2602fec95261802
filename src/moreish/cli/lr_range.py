"""`moreish lr-range`."""

from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import Json, app, print_json
from moreish.errors import command
from moreish.utils.sighup import outliving_its_terminal


@app.command(name="lr-range")
@outliving_its_terminal()
def lr_range(
    source: Annotated[
        str, typer.Argument(help="A built-in data set, a file, or a folder of text files.")
    ] = "names",
    model: Annotated[str | None, typer.Option(help="As in train (auto).")] = None,
    low: Annotated[
        float | None, typer.Option(help="The first rate (a 300th of the model's own).")
    ] = None,
    high: Annotated[
        float | None, typer.Option(help="The last rate (300 times the model's own).")
    ] = None,
    steps: Annotated[int, typer.Option(help="Rates in between, one step each.")] = 300,
    split: Annotated[str | None, typer.Option(help="seeded or lecture (seeded).")] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="lines (each an item) or text; else guessed.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any setting of the training."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw the curve into this SVG file.")] = None,
    as_json: Json = False,
) -> None:
    """Train a little at growing learning rates: where does the loss fall, where does it burst?"""
    from moreish import api
    from moreish.settings import from_assignments
    from moreish.ui import TrainingView, console, range_lines

    view = TrainingView(console(stderr=True))
    try:
        found = api.lr_range(
            source,
            model=model,
            low=low,
            high=high,
            steps=steps,
            split=split,
            kind=kind,
            settings=from_assignments(settings or []),
            report=view,
        )
    finally:
        view.close()
    if out is not None:
        api.draw_range(found, out)
    if as_json:
        print_json(
            {
                "suggested": found.suggested,
                "valley": found.valley,
                "rates": found.rates,
                "losses": found.losses,
            }
        )
        return
    for line in range_lines(found):
        console().print(line)
    given = {"--model": model, "--split": split, "--as": kind}
    words = [word for flag, value in given.items() if value for word in (flag, value)]
    for setting in [*(settings or []), f"train.lr={found.suggested:.2g}"]:
        words += ["--set", setting]
    console().print(f"\nUse it: {command('train', source, *words)}")
