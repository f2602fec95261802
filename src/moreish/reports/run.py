"""The report of a run."""

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moreish.data import AuditReport, SplitName
from moreish.errors import MoreishError
from moreish.evaluate import Score, format_bits
from moreish.reports.doctor import findings_html
from moreish.reports.html import (
    bars,
    figure,
    page,
    passage,
    preformatted,
    samples_list,
    table,
    tinted,
)
from moreish.runs import Run, describe_losses
from moreish.ui import SPLIT_TITLES, prediction_rows
from moreish.utils.text import plural

MAX_PAIR_TOKENS = 1 << 23
"""Tokens of a run up to which the report counts pairs: a few seconds."""


@dataclass(frozen=True, kw_only=True)
class RunFigure:
    """A figure of a run, and its caption."""

    name: str
    title: str
    caption: str
    light: Path
    dark: Path
    notes: Sequence[str] = ()
    """What it shows, in words."""
    tokens: Sequence[tuple[str, float]] = ()
    """The labels and surprisals of a text, which a page shows as text."""


def run_report_html(run: Run, figures: Iterable[RunFigure]) -> str:
    """Return the report of a run as one HTML page."""
    record = run.record
    versions = f"Moreish {record.versions['moreish']}, PyTorch {record.versions['torch']}"
    facts = [
        ("created", f"{record.created}, {versions}, {record.machine['system']}"),
        *(
            (f"{group}.{key}", str(value))
            for group in ("data", "model", "train")
            for key, value in record.config[group].items()
            if value is not None
        ),
    ]
    shown = {figure.name: figure for figure in figures}
    log = shown.pop("loss-log", None)
    parts = [
        f"<p class=lead>{html.escape(_summary(run))}</p>",
        _samples(run),
        *_verdict(run),
        *(_figure(figure, log) for figure in shown.values()),
        *_training_samples(run),
        *_findings(run),
        f"<details><summary>Settings and versions</summary>{table(('', ''), facts)}</details>",
    ]
    return page(run.path.resolve().name, "Run report by Moreish", parts)


def _summary(run: Run) -> str:
    """Return a sentence on what learned from what, and in what time."""
    record, data = run.record, run.record.data
    size = plural(data.characters, "character")
    if run.kind == "examples":
        size = plural(data.documents, "example")
    elif run.kind == "lines" or data.documents > 1:
        size = f"{plural(data.documents, 'line' if run.kind == 'lines' else 'document')} ({size})"
    time = ""
    if record.seconds is not None:
        time = f" in {format_duration(record.earlier_seconds + record.seconds)}"
    ended = "" if record.status == "finished" else f" The run is {record.status}."
    return (
        f"This {run.config.model.name} model with {plural(record.parameters or 0, 'parameter')} "
        f"learned from {data.name}: {size}, {data.vocabulary:,} distinct tokens{time}.{ended}"
    )


def format_duration(seconds: float) -> str:
    """
    >>> format_duration(8.6), format_duration(300), format_duration(7300)
    ('9 s', '5 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _verdict(run: Run) -> list[str]:
    """Return what the losses mean: beside guessing and token pairs, and in training beside
    validation."""
    if not run.scores:
        return []
    has_own_bytes = any(
        format_bits(s.bits_per_char) != format_bits(s.bits_per_byte) for s in run.scores.values()
    )
    losses = table(
        ("", "loss", "bits/char", *["bits/byte"] * has_own_bytes, "perplexity", "tokens"),
        (
            row
            for name, score in run.scores.items()
            for row in _loss_rows(name, score, has_own_bytes=has_own_bytes)
        ),
    )
    parts = ["<h2>How good it is</h2>"]
    if run.kind == "examples":
        return [*parts, table(*prediction_rows(run.scores)), losses]
    if (val := run.scores.get("val")) is not None and math.isfinite(val.loss):
        unit = "character" if run.config.data.tokenizer == "char" else "token"
        rows = [*run.baselines.items()]
        others = ", ".join(f"{name}: {math.exp(-loss):.1%}" for name, loss in rows)
        new = val.new_items
        on_new = f", and on its new items {math.exp(-new.loss):.1%}" if new is not None else ""
        verdict = (
            f"On the validation split, it gives each next {unit} a probability of "
            f"{math.exp(-val.loss):.1%} on average ({others}){on_new}. {describe_losses(run)}"
        )
        parts += [
            f"<p>{html.escape(verdict)}</p>",
            bars([*rows, ("this model", val.loss)]),
            f"<p class=faint>Validation loss in nats per {unit}. The averages are geometric.</p>",
        ]
    return [*parts, losses]


def _loss_rows(name: SplitName, score: Score, *, has_own_bytes: bool) -> Iterator[tuple[str, ...]]:
    """Yield the row of a split in the table of losses, and that of its new items."""
    yield (
        SPLIT_TITLES[name],
        f"{score.loss:.4f} ± {score.stderr:.4f}",
        format_bits(score.bits_per_char),
        *[format_bits(score.bits_per_byte)] * has_own_bytes,
        f"{score.perplexity:.2f}",
        f"{score.tokens:,}",
    )
    if (new := score.new_items) is not None:
        yield (
            f"{SPLIT_TITLES[name]}, new items",
            f"{new.loss:.4f} ± {new.stderr:.4f}",
            *[""] * (1 + has_own_bytes),
            f"{new.perplexity:.2f}",
            f"{new.tokens:,}",
        )


def _samples(run: Run) -> str:
    if run.kind == "examples":
        predicted = run.predict_split(run.split("val"), 20)
        return samples_list(predicted.as_lines())
    if run.kind == "text":
        return passage(run.sample(1, seed=0)[0].strip("\n"))
    try:
        return samples_list(run.sample(20, new_only=True, seed=0))
    except MoreishError:  # nearly all samples are copies of the data
        return samples_list(run.sample(20, seed=0))


def _figure(shown: RunFigure, log: RunFigure | None) -> str:
    if shown.tokens:
        caption = f"<p class=faint>{html.escape(shown.caption)}</p>"
        return f"<h2>{html.escape(shown.title)}</h2>{caption}{tinted(shown.tokens)}"
    files = (log.light, log.dark) if shown.name == "loss" and log is not None else None
    return figure(shown.light, shown.dark, shown.title, shown.caption, log=files, notes=shown.notes)


def _training_samples(run: Run) -> list[str]:
    path = run.path / "samples.txt"
    text = path.read_text("utf-8") if path.exists() else ""
    if not text:
        return []
    title = "<summary>Samples during training</summary>"
    return [f"<details>{title}{preformatted(text)}</details>"]


def _findings(run: Run) -> list[str]:
    """Return what `moreish doctor` found before training, if it checked a text."""
    try:
        audit = AuditReport.load(run.path / "doctor.json")
    except (OSError, ValueError):
        return []
    return ["<h2>Data check</h2>", findings_html(audit)]
