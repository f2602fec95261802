"""Building blocks of HTML pages that need no other files."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from moreish.utils.files import write_atomic

STYLE = """
:root { color-scheme: light dark;
  --paper: light-dark(#fbfaf7, #171513); --card: light-dark(#ffffff, #1f1c1a);
  --ink: light-dark(#201d19, #ece7df); --faint: light-dark(#655f56, #a8a095);
  --line: light-dark(#e3ded4, #36322d); --accent: light-dark(#0f5d66, #79c6cf);
  --warm: light-dark(#d9661f, #c4581a);
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, "Noto Serif", serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", "DejaVu Sans Mono", Menlo, monospace; }
*, *::before, *::after { box-sizing: border-box; }
html { background: var(--paper); -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 1.6rem clamp(1rem, 4vw, 2rem) 4rem;
  color: var(--ink); overflow-wrap: anywhere;
  font: 400 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; margin: 0; }
h2 { font-size: 1.12rem; font-weight: 620; margin: 2.8rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 42rem; } .faint { color: var(--faint); }
.lead { font-size: 1.12rem; margin: .9rem 0 1.2rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums;
  font-size: .93rem; }
td, th { padding: .3rem 1rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line);
  font-weight: 400; vertical-align: top; overflow-wrap: normal; } th { color: var(--faint); }
.number { text-align: right; } td.number { white-space: nowrap; } .wide { overflow-x: auto; }
.doctor td:nth-child(3), .doctor td:nth-child(5) { white-space: nowrap; }
.doctor td:nth-child(4) { white-space: pre-wrap; }
figure { margin: .6rem 0; } img { height: auto; display: block; max-width: 100%; }
.wide img { max-width: max(100%, 60rem); }
.beside { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; align-items: start; }
.beside > ol { flex: 1 1 17rem; } ol { margin: .6rem 0; padding-left: 1.6rem; font-size: .95rem; }
li { padding: .1rem 0; }
.samples { list-style: none; padding: 1rem 1.2rem; margin: .6rem 0; columns: 9rem; gap: 1.5rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  font: 1.12rem/1.6 var(--serif); }
.text { padding: 1rem 1.2rem; margin: .6rem 0; background: var(--card); white-space: pre-wrap;
  border: 1px solid var(--line); border-radius: 12px; font: 1.08rem/1.65 var(--serif); }
.text span { background: color-mix(in oklab, var(--warm) calc(var(--t) * 1%), transparent);
  border-radius: 2px; padding: .1em 0; }
.bars { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content;
  gap: .45rem .9rem; align-items: center; max-width: 42rem; margin: .8rem 0;
  font-variant-numeric: tabular-nums; }
.bars i { height: .8rem; border-radius: 4px; background: var(--faint); opacity: .55; }
.bars i.own { background: var(--accent); opacity: 1; } .bars b { font-weight: 650; }
.toggle { accent-color: var(--accent); width: 1.05rem; height: 1.05rem; vertical-align: -.15rem; }
.toggle:checked ~ .plain, .toggle:not(:checked) ~ .toggled { display: none; }
details { margin-top: 2.4rem; } summary { cursor: pointer; font-weight: 620; font-size: 1.05rem; }
code { font: .92em var(--mono); }
pre { white-space: pre-wrap; font: .88rem/1.5 var(--mono); border-left: 3px solid var(--line);
  padding-left: .9rem; margin: .5rem 0; }
td:last-child, th:last-child { padding-right: 0; }
@media (max-width: 30rem) { table { font-size: .78rem; } td, th { padding-right: .4rem; } }
:focus-visible { outline: 2.5px solid var(--accent); outline-offset: 2px; }
"""

MAX_FITTED_POINTS = 430
"""Width up to which a figure shrinks to fit its page; a wider one, which would become unreadable,
scrolls."""

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
    """Return a table; cells that look like numbers, and the titles above them, are aligned to the
    right."""
    lines = [list(row) for row in rows]
    last = lines[-1] if lines else [""] * 99
    titles = "".join(
        f"<th{' class=number' if _is_number(cell) else ''}>{html.escape(title)}</th>"
        for title, cell in zip(header, last, strict=False)
    )
    body = ""
    for row in lines:
        cells = "".join(
            f"<td{' class=number' if _is_number(c) else ''}>{html.escape(c)}</td>" for c in row
        )
        body += f"<tr>{cells}</tr>"
    return f"<div class=wide><table><tr>{titles}</tr>{body}</table></div>"


def figure(
    light: Path,
    dark: Path,
    title: str,
    caption: str,
    *,
    log: tuple[Path, Path] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return an embedded figure for both color schemes.

    Args:
        light, dark: the SVG files.
        title, caption: what it shows.
        log: the files of the same figure with logarithmic axes, to which a checkbox switches.
        notes: what it shows in words, as a list beside it.
    """  # fmt: skip
    head = f"<h2>{html.escape(title)}</h2><p class=faint>{html.escape(caption)}</p>"
    if log is not None:
        return (
            f"{head}<div><input type=checkbox class=toggle id=log> <label for=log>Logarithmic axes"
            f"</label><div class=plain>{_picture(light, dark, title)}</div>"
            f"<div class=toggled>{_picture(*log, title)}</div></div>"
        )
    words = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    picture = _picture(light, dark, title)
    return head + (f"<div class=beside>{picture}<ol>{words}</ol></div>" if words else picture)


def _picture(light: Path, dark: Path, title: str) -> str:
    width = float(light.read_text("utf-8").partition('width="')[2].partition("pt")[0])
    frame = "class=wide tabindex=0" if width > MAX_FITTED_POINTS else ""
    return (
        f'<figure {frame}><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{_data_url(dark)}"><img alt="{html.escape(title)}" '
        f'src="{_data_url(light)}"></picture></figure>'
    )


def tinted(tokens: Iterable[tuple[str, float]]) -> str:
    """Return a text whose tokens are tinted by their surprisal in nats: the stronger, the less
    probable."""
    spans = (
        f'<span style="--t:{round(min(70.0, 12 * nats))}">{html.escape(_plain(label))}</span>'
        for label, nats in tokens
    )
    return f"<div class=text>{''.join(spans)}</div>"


def _plain(label: str) -> str:
    """The label of a token as text: spaces as such, and a line feed after its sign."""
    return " · " if label == "·" else label.replace("␣", " ").replace("↵", "↵\n")


def bars(rows: Sequence[tuple[str, float]]) -> str:
    """Return horizontal bars with their numbers; the last is the one that the page is about."""
    longest = max(number for _, number in rows)
    parts = (
        f"<{tag}>{html.escape(name)}</{tag}><i class={kind} "
        f'style="width:{100 * number / longest:.1f}%"></i><{tag}>{number:.2f}</{tag}>'
        for i, (name, number) in enumerate(rows)
        for tag, kind in [("b", "own") if i == len(rows) - 1 else ("span", "other")]
    )
    return f"<div class=bars>{''.join(parts)}</div>"


def samples_list(texts: Iterable[str]) -> str:
    """Return short texts in columns."""
    return f"<ul class=samples>{''.join(f'<li>{html.escape(t)}</li>' for t in texts)}</ul>"


def passage(text: str) -> str:
    """Return running text with its line breaks."""
    return f"<div class=text>{html.escape(text)}</div>"


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
