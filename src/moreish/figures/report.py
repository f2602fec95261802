"""One HTML page that holds all of a run, or of a ladder, and needs nothing else."""

import base64
import html
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moreish.data import CATALOG, AuditReport
from moreish.errors import MoreishError, command, visible
from moreish.evaluate import Score, format_bits
from moreish.runs import Run
from moreish.utils.files import write_atomic

if TYPE_CHECKING:
    from moreish.figures.pictures import Picture

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
"""What every page begins with."""


def page(title: str, about: str, parts: Iterable[str]) -> str:
    """A whole document around `parts`."""
    return (
        f"{HEAD}{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p class=faint>{html.escape(about)}</p>"
        + "".join(parts)
        + "</body></html>\n"
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells that look like numbers stand to the right."""
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = ""
    for row in rows:
        cells = "".join(
            f"<td{' class=number' if _is_number(c) else ''}>{html.escape(c)}</td>" for c in row
        )
        body += f"<tr>{cells}</tr>"
    return f"<div class=wide><table><tr>{titles}</tr>{body}</table></div>"


def figure(light: Path, dark: Path, title: str, reading: str) -> str:
    """A picture for either theme, inside the page; one that is wider than it can be moved."""
    return (
        f"<h2>{html.escape(title)}</h2><p class=faint>{html.escape(reading)}</p>"
        "<div class=wide tabindex=0><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}">'
        f'<img alt="{html.escape(title)}" src="{_inline(light)}"></picture></div>'
    )


def run_page(run: Run, pictures: "Iterable[Picture]") -> str:
    """The report of a run."""
    record, data = run.record, run.record.data
    losses = table(
        ("", "loss (nats/token)", "± ", "bits/char", "bits/byte", "perplexity", "tokens"),
        (
            (
                {"train": "training", "val": "validation", "test": "test"}[name],
                f"{score.loss:.4f}",
                f"{score.stderr:.4f}",
                format_bits(score.bits_per_char),
                format_bits(score.bits_per_byte),
                f"{score.perplexity:.2f}",
                f"{score.tokens:,}",
            )
            for name, score in run.scores.items()
        ),
    )
    facts = [
        ("data", (f"{data.name}: {data.documents:,} {'lines' if run.kind == 'lines' else 'texts'}, "
                 f"{data.characters:,} characters, {data.vocabulary} tokens to choose from")),
        ("model", f"{record.config['model']['name']}, {record.parameters or 0:,} numbers"),
        ("trained", f"{record.seconds or 0:.0f} s, {record.status}"),
        ("made", (f"{record.created}, Moreish {record.versions['moreish']}, "
                 f"PyTorch {record.versions['torch']}, {record.machine['system']}")),
    ]  # fmt: skip
    settings = [
        (f"{group}.{key}", str(value))
        for group in ("data", "model", "train")
        for key, value in record.config[group].items()
        if value is not None
    ]
    parts = [
        table(("", ""), facts),
        "<h2>Exact losses</h2>",
        losses,
        "<h2>What it writes</h2><pre>",
        html.escape(_samples(run)),
        "</pre>",
        *(figure(p.light, p.dark, p.title, p.reading) for p in pictures),
        _growing(run),
        _examined(run),
        "<h2>Settings</h2>",
        table(("", ""), settings),
    ]
    return page(run.path.name, "a report by Moreish", parts)


def _loss(split: Mapping[str, Any] | None) -> str:
    """With its standard error."""
    if split is None or split["loss"] is None:
        return "" if split is None else "∞"
    return f"{split['loss']:.4f}" + (f" ± {split['stderr']:.4f}" if split["stderr"] else "")


def ladder_page(found: Mapping[str, Any], folder: Path) -> str:
    """The report of the ladder in `folder`, whose figure is there already."""
    rows = []
    tested = any("test" in rung["splits"] for rung in found["rungs"])
    names = ("train", "val", "test") if tested else ("train", "val")
    for rung in found["rungs"]:
        splits, stated = rung["splits"], rung["stated"]
        rows.append(
            (
                rung["rung"],
                rung["adds"],
                f"{rung['parameters']:,}",
                f"{rung['seconds']:.1f}",
                *(_loss(splits.get(name)) for name in names),
                format_bits(Score.from_json(splits["val"]).bits_per_char),
                f"{stated['loss']:.2f} ({stated['where']})" if stated else "",
            )
        )
    losses = ("training", "validation", "test")[: len(names)]
    head = ("rung", "adds", "numbers", "seconds", *losses, "bits/char", "stated")
    samples = "".join(
        f"<h2>{html.escape(rung['rung'])}</h2>"
        f"<pre>{html.escape(chr(10).join(rung['samples']))}</pre>"
        f"<p class=faint>Inside it: <code>{html.escape(command('report', folder / rung['run']))}"
        "</code></p>"
        for rung in found["rungs"]
    )
    reading = (
        "Left: every rung, best at the top, with 95 % intervals. Right: what it cost in "
        "numbers and in seconds. Counted rungs have another colour."
    )
    minutes, epochs = found["minutes"], found["epochs"]
    budget = "a minute" if minutes == 1 else f"{minutes:g} minutes" if minutes else ""
    budget = budget or f"{epochs:g} times over the data"
    about = f"{budget} for each rung that is trained by gradients, {found['split']} split"
    light, dark = folder / "ladder.svg", folder / "ladder-dark.svg"
    parts = [figure(light, dark, "Loss and cost", reading), table(head, rows), samples]
    return page(f"The ladder on {found['source']}", about, parts)


DOCTOR = "The doctor on "
"""What the title of such a page begins with."""


def doctor_page(audit: AuditReport) -> str:
    """What the doctor says of a text."""
    return page(f"{DOCTOR}{visible(audit.name)}", "by Moreish", _audit(audit))


def check_doctor_page(path: Path, source: str) -> None:
    """Raises MoreishError where a page at `path` would replace something else, or be read as a
    part of the source (of which the name may be unknown: empty)."""
    # Unlike Path.resolve, this takes links that lead round in a circle.
    whole = Path(os.path.realpath(Path(source).expanduser()))
    there = Path(os.path.realpath(path))
    inside = whole == there or (whole.is_dir() and whole in there.parents)
    if source and source not in CATALOG and inside:
        raise MoreishError(f"--report {path}: that is in the source; name a file outside of it")
    if path.is_dir() or not path.parent.is_dir():
        raise MoreishError(f"--report {path}: name a file in a folder that exists")
    if path.exists():
        ours = (HEAD + DOCTOR).encode()
        with path.open("rb") as file:
            if file.read(len(ours)) != ours:
                raise MoreishError(f"--report {path}: it is no page of the doctor; name a new file")


def _audit(audit: AuditReport) -> list[str]:
    rows = [
        ("!" if finding.severity == "warning" else "", finding.summary, visible(finding.location),
         visible(finding.example), finding.fix_label)
        for finding in audit.findings
    ]  # fmt: skip
    about = (
        f"{audit.lines:,} lines, {audit.characters:,} characters, "
        f"{audit.distinct_characters:,} of them distinct"
        f"{'' if audit.is_complete else '; only the beginning was checked'}. "
        "! marks what spoils a model, or exposes somebody."
    )
    notes = "".join(f"<p class=faint>{html.escape(visible(n))}</p>" for n in audit.notes)
    parts = [f"<p>{html.escape(about)}</p>", notes]
    if not rows:
        return [*parts, "<p>Nothing to mend.</p>"]
    found = table(("", "found", "where", "for example", "mended by"), rows)
    mended = html.escape(visible(audit.fix_command))
    return [*parts, f"<div class=doctor>{found}</div>", f"<p>{mended}</p>" if mended else ""]


def _examined(run: Run) -> str:
    """What the doctor found before the training, where there was a text to look at."""
    try:
        audit = AuditReport.load(run.path / "doctor.json")
    except (OSError, ValueError):
        return ""
    return "<h2>What the doctor found</h2>" + "".join(_audit(audit))


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    write_atomic(path, text.encode("utf-8", "replace"))


def _samples(run: Run) -> str:
    if run.kind == "text":
        return run.sample(1)[0]
    try:
        return "\n".join(run.sample(20, new_only=True))
    except MoreishError:  # it knows hardly anything but its data
        return "\n".join(run.sample(20))


def _growing(run: Run) -> str:
    path = run.path / "samples.txt"
    text = path.read_text("utf-8") if path.exists() else ""
    return f"<h2>What it wrote while it learned</h2><pre>{html.escape(text)}</pre>" if text else ""


def _inline(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() and not set(cell) - set("0123456789.,± ")
