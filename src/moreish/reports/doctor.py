"""The report of `moreish doctor`."""

import html
import os
from pathlib import Path

from moreish.data import CATALOG, AuditReport
from moreish.errors import MoreishError, visible
from moreish.reports.html import HEAD, page, table
from moreish.utils.files import user_path
from moreish.utils.text import plural

TITLE = "Data check of "
"""The start of the title, by which `check_doctor_report_path` recognizes an earlier report."""

OLD_TITLE = "The doctor on "
"""The same, in reports of version 0.1."""


def doctor_report_html(audit: AuditReport) -> str:
    """Return the findings as one HTML page."""
    title = f"{TITLE}{visible(audit.name)}"
    return page(title, "Report by Moreish", [findings_html(audit)])


def check_doctor_report_path(path: Path, source: str) -> None:
    """Check that a report at `path` would replace nothing but an earlier one.

    Args:
        path: the file to write.
        source: the source of the text; empty if it is unknown.

    Raises:
        MoreishError: `path` is in the source, is another file, or its folder does not exist.
    """
    # Unlike Path.resolve, realpath accepts links that form a loop.
    source_path = Path(os.path.realpath(user_path(source)))
    target = Path(os.path.realpath(path))
    is_inside = source_path == target or (source_path.is_dir() and source_path in target.parents)
    if source and source not in CATALOG and is_inside:
        raise MoreishError(f"--report {path}: this is part of the source; name a file outside it")
    if path.is_dir() or not path.parent.is_dir():
        raise MoreishError(f"--report {path}: name a file in a folder that exists")
    if path.exists():
        starts = [(HEAD + title).encode() for title in (TITLE, OLD_TITLE)]
        with path.open("rb") as file:
            if not file.read(max(map(len, starts))).startswith(tuple(starts)):
                raise MoreishError(f"--report {path}: not an earlier report; name a new file")


def findings_html(audit: AuditReport) -> str:
    """Return a summary and the table of findings."""
    size = (
        f"{plural(audit.lines, 'line')}, {plural(audit.characters, 'character')}, "
        f"{audit.distinct_characters:,} of them distinct"
    )
    scope = "The whole text was checked" if audit.is_complete else "Only the beginning was checked"
    summary = f"{scope}: {size}."
    notes = "".join(f"<p class=faint>{html.escape(visible(n))}</p>" for n in audit.notes)
    if not audit.findings:
        return f"<p>{html.escape(summary)}</p>{notes}<p>No problems found.</p>"
    summary += " ! marks what damages a model or reveals private data."
    rows = [
        (
            "!" if finding.severity == "warning" else "",
            finding.summary,
            visible(finding.location),
            visible(finding.example),
            finding.fix_label,
        )
        for finding in audit.findings
    ]
    findings = table(("", "problem", "where", "example", "fixed by"), rows)
    fix = f"<p>{html.escape(visible(audit.fix_command))}</p>" if audit.fix_command else ""
    return f"<p>{html.escape(summary)}</p>{notes}<div class=doctor>{findings}</div>{fix}"
