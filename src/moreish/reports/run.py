"""The report of a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moreish.data import AuditReport
from moreish.errors import MoreishError
from moreish.evaluate import format_bits
from moreish.reports.doctor import findings_html
from moreish.reports.html import figure, page, preformatted, table
from moreish.runs import Run
from moreish.ui import SPLIT_TITLES
from moreish.utils.text import plural


@dataclass(frozen=True, kw_only=True)
class RunFigure:
    """A figure of a run, and its caption."""

    name: str
    title: str
    caption: str
    light: Path
    dark: Path


def run_report_html(run: Run, figures: Iterable[RunFigure]) -> str:
    """Return the report of a run as one HTML page."""
    record, data = run.record, run.record.data
    losses = table(
        ("", "loss (nats/token)", "std. error", "bits/char", "bits/byte", "perplexity", "tokens"),
        (
            (
                SPLIT_TITLES[name],
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
    parts = [plural(data.characters, "character"), f"vocabulary of {data.vocabulary:,} tokens"]
    if run.kind == "lines" or data.documents > 1:
        parts.insert(0, plural(data.documents, "line" if run.kind == "lines" else "document"))
    contents = f"{data.name}: {', '.join(parts)}"
    versions = f"Moreish {record.versions['moreish']}, PyTorch {record.versions['torch']}"
    facts = [
        ("data", contents),
        ("model", f"{record.config['model']['name']}, {record.parameters or 0:,} parameters"),
        ("training", f"{record.seconds or 0:.0f} s, {record.status}"),
        ("created", f"{record.created}, {versions}, {record.machine['system']}"),
    ]
    settings = [
        (f"{group}.{key}", str(value))
        for group in ("data", "model", "train")
        for key, value in record.config[group].items()
        if value is not None
    ]
    parts = [
        table(("", ""), facts),
        "<h2>Loss on the whole splits</h2>",
        losses,
        "<h2>Samples</h2>",
        preformatted(_samples(run)),
        *(figure(f.light, f.dark, f.title, f.caption) for f in figures),
        *_training_samples(run),
        *_findings(run),
        "<h2>Settings</h2>",
        table(("", ""), settings),
    ]
    return page(run.path.name, "Run report by Moreish", parts)


def _samples(run: Run) -> str:
    if run.kind == "text":
        return run.sample(1)[0]
    try:
        return "\n".join(run.sample(20, new_only=True))
    except MoreishError:  # nearly all samples are copies of the data
        return "\n".join(run.sample(20))


def _training_samples(run: Run) -> list[str]:
    path = run.path / "samples.txt"
    text = path.read_text("utf-8") if path.exists() else ""
    return ["<h2>Samples during training</h2>", preformatted(text)] if text else []


def _findings(run: Run) -> list[str]:
    """Return what `moreish doctor` found before training, if it checked a text."""
    try:
        audit = AuditReport.load(run.path / "doctor.json")
    except (OSError, ValueError):
        return []
    return ["<h2>Data check</h2>", findings_html(audit)]
