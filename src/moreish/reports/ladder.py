"""The report of a ladder."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moreish.data import SplitName
from moreish.errors import command
from moreish.evaluate import Score, format_bits
from moreish.reports.html import figure, page, preformatted, table
from moreish.ui import SPLIT_TITLES, format_loss, format_right, ladder_loss

CAPTION = (
    "Left: validation loss of every rung with 95 % intervals, the best at the top. Right: loss "
    "against the number of parameters and against training time. Models that count n-grams have "
    "another color."
)


def ladder_report_html(ladder: Mapping[str, Any], folder: Path) -> str:
    """Return the report of a ladder as one HTML page.

    Args:
        ladder: the content of ladder.json.
        folder: where its figures are: ladder.svg and ladder-dark.svg.
    """
    has_test = any("test" in rung["splits"] for rung in ladder["rungs"])
    splits: Sequence[SplitName] = ("train", "val", "test") if has_test else ("train", "val")
    rungs = sorted(ladder["rungs"], key=ladder_loss)
    scores = [Score.model_validate(rung["splits"]["val"]) for rung in rungs]
    has_new = any(score.new_items for score in scores)
    has_targets = any(map(format_right, scores))
    has_stated = any(rung["stated"] for rung in rungs)
    rows = [
        (
            rung["rung"],
            rung["adds"],
            f"{rung['parameters']:,}",
            f"{rung['seconds']:.1f}",
            *(format_loss(rung["splits"].get(name)) for name in splits),
            *["" if score.new_items is None else f"{score.new_items.loss:.4f}"] * has_new,
            *[_stated(rung)] * has_stated,
            format_right(score) or format_bits(score.bits_per_char),
        )
        for rung, score in zip(rungs, scores, strict=True)
    ]
    losses = (SPLIT_TITLES[name] for name in splits)
    header = (
        "rung",
        "adds",
        "parameters",
        "seconds",
        *losses,
        *["new items"] * has_new,
        *["stated"] * has_stated,
        "targets right" if has_targets else "bits/char",
    )
    samples = "".join(
        f"<h2>{html.escape(rung['rung'])}</h2>"
        f"{preformatted(chr(10).join(rung['samples']))}"
        f"<p class=faint>Report of this run: "
        f"<code>{html.escape(command('report', folder / rung['run']))}</code></p>"
        for rung in rungs
    )
    units = {"minutes": "min", "epochs": "epochs", "steps": "steps"}
    (budget,) = (f"{ladder[key]:g} {unit}" for key, unit in units.items() if ladder.get(key))
    subtitle = f"{budget} for each rung that is trained; {ladder['split']} split"
    light, dark = folder / "ladder.svg", folder / "ladder-dark.svg"
    parts = [figure(light, dark, "Loss and cost", CAPTION), table(header, rows), samples]
    source = ladder["source"]
    shown = source if isinstance(source, str) else ", ".join(source)
    return page(f"Ladder on {'standard input' if shown == '-' else shown}", subtitle, parts)


def _stated(rung: Mapping[str, Any]) -> str:
    stated = rung["stated"]
    return f"{stated['loss']:.2f} ({stated['where']})" if stated else ""
