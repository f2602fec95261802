"""`moreish doctor`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from moreish.cli.base import Json, Sources, app, print_json, read_sources, takes_flags
from moreish.errors import MoreishError
from moreish.options import TextOptions, names_of


@app.command()
@takes_flags(*names_of(TextOptions))
def doctor(
    sources: Sources = None,
    page: Annotated[
        Path | None, Option("--report", metavar="FILE", help="Write the findings to an HTML file.")
    ] = None,
    validation_file: Annotated[
        str | None,
        Option(metavar="FILE", help="Validation split of examples, to find inputs in both."),
    ] = None,
    test_file: Annotated[
        str | None, Option(metavar="FILE", help="Test split of examples, likewise.")
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Find problems in a text, and the options of train that fix them. Nothing is changed."""
    if not sources:
        raise MoreishError("name the text to check: moreish doctor FILE")
    from moreish import api
    from moreish.ui import TrainingView, audit_lines, console, print_message

    if page is not None:
        from moreish.reports import check_doctor_report_path

        for source in sources:
            check_doctor_report_path(page, source)
    out = console(stderr=as_json)
    with TrainingView(out) as view:
        audit = api.doctor(
            **read_sources(sources),
            validation_file=validation_file,
            test_file=test_file,
            report=view,
            **options,
        )
    if page is not None:
        api.doctor_page(audit, page)
    if as_json:
        print_json(**vars(audit), fixes=audit.fixes)
        return
    for line in audit_lines(audit):
        print_message(out, line)
    if page is not None:
        out.print(f"\nReport: {page}")
