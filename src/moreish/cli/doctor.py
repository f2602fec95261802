"""`moreish doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import Clean, Dedup, Json, MinCount, Nfc, app, print_json


@app.command()
def doctor(
    source: Annotated[
        str, typer.Argument(help="A built-in data set, a file, or a folder of text files.")
    ],
    kind: Annotated[
        str | None, typer.Option("--as", help="lines (each an item) or text; else guessed.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the source (utf-8).")] = None,
    split: Annotated[str | None, typer.Option(help="seeded or lecture (seeded).")] = None,
    dedup: Dedup = False,
    nfc: Nfc = False,
    clean: Clean = False,
    min_count: MinCount = None,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write it as a page (HTML).")
    ] = None,
    as_json: Json = False,
) -> None:
    """What is wrong with a text, where, and what would mend it. Nothing is trained or changed."""
    from moreish import api
    from moreish.ui import TrainingView, console, diagnosis_lines

    if page is not None:
        from moreish.figures import check_doctor_page

        check_doctor_page(page, source)
    out = console(stderr=as_json)
    view = TrainingView(out)
    try:
        diagnosis = api.doctor(
            source,
            kind=kind,
            encoding=encoding,
            split=split,
            dedup=dedup or None,
            nfc=nfc or None,
            clean=clean or None,
            min_count=min_count,
            report=view,
        )
    finally:
        view.close()
    if page is not None:
        api.doctor_page(diagnosis, page)
    if as_json:
        print_json({**asdict(diagnosis), "mends": diagnosis.mends})
        return
    for line in diagnosis_lines(diagnosis):
        out.print(line)
    if page is not None:
        out.print(f"\nThe page: {page}")
