"""How a notebook shows a run."""

import html
from collections.abc import Sequence

from moreish.data import SPLIT_TITLES
from moreish.evaluate import uniform_loss
from moreish.runs.folder import RunFolder
from moreish.utils.text import plural


def run_html(run: RunFolder, samples: Sequence[str]) -> str:
    """Return the name, data, model and losses of a run, and samples, as HTML that is escaped."""
    data, record = run.record.data, run.record
    size = plural(data.characters, "character")
    if run.kind == "lines":
        size = f"{plural(data.documents, 'item')}, {size}"
    time = "" if record.seconds is None else f" in {record.seconds:,.0f} s"
    losses = [
        f"{SPLIT_TITLES[name]} {score.loss:.4f} ± {score.stderr:.4f}"
        for name, score in run.scores.items()
    ]
    losses.append(f"guessing {uniform_loss(run.record.data.vocabulary):.4f} (nats per token)")
    facts = {
        "data": f"{data.name}: {size}; {data.vocabulary:,} distinct tokens",
        "model": f"{run.config.model.name}, {plural(record.parameters or 0, 'parameter')}",
        "training": f"{record.status}{time}",
        "loss": " · ".join(losses),
    }
    rows = "".join(
        f'<tr><th style="text-align: left">{name}</th>'
        f'<td style="text-align: left">{html.escape(text)}</td></tr>'
        for name, text in facts.items()
    )
    shown = "".join(
        f'<pre style="margin: .3em 0; white-space: pre-wrap">{html.escape(text)}</pre>'
        for text in samples
    )
    return f"<div><b>{html.escape(str(run.path))}</b><table>{rows}</table>{shown}</div>"
