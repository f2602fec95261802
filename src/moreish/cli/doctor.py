"""`moreish doctor`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from moreish.cli.base import Json, app, print_json, takes_flags
from moreish.options import TextOptions, names_of


@app.command()
@takes_flags(*names_of(TextOptions))
def doctor(
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE", help="A built-in data set, a text file, or a folder of text files."
        ),
    ],
    page: Annotated[
        Path | None, Option("--report", metavar="FILE", help="Write the findings to an HTML file.")
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Find problems in a text, and the options of train that fix them. Nothing is changed."""
    from moreish import api
    from moreish.ui import TrainingView, audit_lines, console

    if page is not None:
        from moreish.reports import check_doctor_report_path

        check_doctor_report_path(page, source)
    out = console(stderr=as_json)
    with TrainingView(out) as view:
        audit = api.doctor(source, report=view, **options)
    if page is not None:
        api.doctor_page(audit, page)
    if as_json:
        print_json(**vars(audit), fixes=audit.fixes)
        return
    for line in audit_lines(audit):
        out.print(line)
    if page is not None:
        out.print(f"\nReport: {page}")
