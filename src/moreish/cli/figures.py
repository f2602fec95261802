"""`moreish figures` and `moreish report`."""

from typing import Annotated

import typer

from moreish.cli.base import Json, RunPath, app, print_json

Text = Annotated[
    str | None,
    typer.Option(help="Whose attention and surprisal are drawn (the start of validation)."),
]


@app.command()
def figures(path: RunPath, text: Text = None, as_json: Json = False) -> None:
    """Draw what a run learned and how, into its folder; light and dark."""
    from moreish import api

    run = api.load(path)
    pictures = api.figures(run, text=text)
    if as_json:
        print_json({"run": str(path), "figures": [str(p.light) for p in pictures]})
        return
    for picture in pictures:
        typer.echo(f"{picture.light}  {picture.title}")


@app.command()
def report(path: RunPath, text: Text = None, as_json: Json = False) -> None:
    """One HTML file with all of a run in it, which opens anywhere without a network."""
    from moreish import api

    place = api.report(api.load(path), text=text)
    if as_json:
        print_json({"run": str(path), "report": str(place)})
    else:
        typer.echo(f"{place}")
