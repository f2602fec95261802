"""Building blocks of HTML pages that need no other files."""

import base64
import html
from collections.abc import Iterable
from pathlib import Path

from moreish.utils.files import write_atomic

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --faint: #656d76;
  --line: #d8dee4; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9aa4af; --line: #30363d; }
}
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 42rem; } .faint { color: var(--faint); }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  font-weight: 400; vertical-align: top; } th { color: var(--faint); }
td.number { text-align: right; white-space: nowrap; } .wide { overflow-x: auto; }
.doctor td:nth-child(3), .doctor td:nth-child(5) { white-space: nowrap; }
.doctor td:nth-child(4) { white-space: pre-wrap; }
img { height: auto; display: block; }
pre { white-space: pre-wrap; font: 14px/1.45 ui-monospace, monospace; border-left: 3px solid
  var(--line); padding-left: .9rem; margin: .5rem 0; }
"""

HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>'
)
"""The start of every page."""


def page(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """Return a whole document; `parts` are HTML."""
    return (
        f"{HEAD}{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p class=faint>{html.escape(subtitle)}</p>"
        + "".join(parts)
        + "</body></html>\n"
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; cells that look like numbers are aligned to the right."""
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = ""
    for row in rows:
        cells = "".join(
            f"<td{' class=number' if _is_number(c) else ''}>{html.escape(c)}</td>" for c in row
        )
        body += f"<tr>{cells}</tr>"
    return f"<div class=wide><table><tr>{titles}</tr>{body}</table></div>"


def figure(light: Path, dark: Path, title: str, caption: str) -> str:
    """Return an embedded figure for both color schemes; a wide one scrolls."""
    return (
        f"<h2>{html.escape(title)}</h2><p class=faint>{html.escape(caption)}</p>"
        "<div class=wide tabindex=0><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data_url(dark)}">'
        f'<img alt="{html.escape(title)}" src="{_data_url(light)}"></picture></div>'
    )


def preformatted(text: str) -> str:
    """Return a text with its line breaks."""
    return f"<pre>{html.escape(text)}</pre>"


def write_report(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    write_atomic(path, text.encode("utf-8", "replace"))


def _data_url(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() and not set(cell) - set("0123456789.,± ")
