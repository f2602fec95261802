"""`moreish figures` and `moreish report`."""

from typing import Annotated

import typer
from typer import Option

from moreish.cli.base import Json, RunPath, app, print_json, working

Text = Annotated[
    str | None,
    Option(
        help="Text whose attention and surprisal are drawn (default: the start of the validation "
        "split)."
    ),
]


@app.command()
def figures(path: RunPath, text: Text = None, as_json: Json = False) -> None:
    """Draw the figures of a run into its folder, for light and dark backgrounds."""
    from moreish import api

    run = api.load(path)
    with working("Drawing the figures"):
        pictures = api.figures(run, text=text)
    if as_json:
        print_json(run=path, figures=[picture.light for picture in pictures])
        return
    for picture in pictures:
        typer.echo(f"{picture.light}  {picture.title}")


@app.command()
def report(path: RunPath, text: Text = None, as_json: Json = False) -> None:
    """Write one HTML file with the results and figures of a run."""
    from moreish import api

    with working("Drawing the figures and writing the report"):
        page = api.report(api.load(path), text=text)
    if as_json:
        print_json(run=path, report=page)
    else:
        typer.echo(page)
