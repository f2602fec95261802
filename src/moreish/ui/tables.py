"""Tables and lines that the commands print."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from moreish.data import SPLIT_TITLES, AuditReport, Finding, SplitName
from moreish.errors import command, visible
from moreish.evaluate import (
    Score,
    TextNovelty,
    Token,
    TokenizerStats,
    TokenSurprisal,
    format_bits,
    perplexity,
)
from moreish.python_errors import spell
from moreish.runs import RunGroup
from moreish.training import LRRange
from moreish.utils.files import format_bytes
from moreish.utils.text import plural


def clock(seconds: float) -> str:
    """Format a duration, as in `0:59` and `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _table(left: Sequence[str], right: Sequence[str] = (), *, gap: int = 2) -> Table:
    """Return an empty table with columns that are aligned to the left, then to the right."""
    table = Table(*left, box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for title in right:
        table.add_column(title, justify="right")
    return table


def warning_lines(audit: AuditReport) -> list[Text]:
    """Return the findings of an audit that are severe or can be fixed by an option, and those of
    private data."""
    shown = [
        finding
        for finding in audit.findings
        if finding.severity == "warning" or finding.fix or finding.is_private
    ]
    if not shown:
        return []
    scope = "" if audit.is_complete else "Only the beginning was checked. "
    more = f"  {scope}All findings: {command('doctor', *audit.source_args)}"
    return [*(_finding(finding) for finding in shown), Text(spell(more), style="dim"), Text()]


def audit_lines(audit: AuditReport) -> list[Text]:
    """Return the size of a text and all findings of its audit."""
    lines = [
        Text(visible(audit.size)),
        *(Text(visible(spell(note)), style="dim") for note in audit.notes),
        Text(),
    ]
    for finding in audit.findings:
        lines.append(_finding(finding))
        if finding.location:
            lines.append(Text(visible(f"  {finding.location}: {finding.example}"), style="dim"))
        if finding.conversion:
            lines.append(Text(visible(f"  {finding.fix_label}"), style="bold"))
    if not audit.findings:
        lines.append(Text("No problems found."))
    if audit.fix_command:
        lines += [Text(), Text(visible(spell(audit.fix_command)))]
    return lines


def _finding(finding: Finding) -> Text:
    mark = ("! ", "bold red") if finding.severity == "warning" else ("· ", "dim")
    fix = f"  {spell(finding.fix_label)}" if finding.fix else ""
    return Text.assemble(mark, spell(finding.summary), (fix, "bold"))


def score_table(scores: Mapping[SplitName, Score]) -> Table:
    """Return a table of exact losses, one row for each split."""
    titles = ("loss (nats/token)", "bits/char", "bits/byte", "perplexity", "tokens")
    table = _table([""], titles)
    for name, score in scores.items():
        title = SPLIT_TITLES[name]
        values: list[tuple[float, float | None, str]] = [(score.loss, score.stderr, "")]
        running = score.running_loss
        if running is not None and not math.isclose(running, score.loss):
            windows = score.loss, score.stderr, "fresh windows"
            values = [(running, score.running_stderr, "running"), windows]
        if score.adaptive_loss is not None:
            values = [(score.adaptive_loss, None, "adaptive"), *values]
        if len(values) > 1:
            table.add_row(title)
        for value, error, kind in values:
            scale = value / score.loss if score.loss else 1.0
            table.add_row(
                f"  {kind or 'running'}" if len(values) > 1 else title,
                _with_error(value, error),
                format_bits(scale * score.bits_per_char),
                format_bits(scale * score.bits_per_byte),
                f"{perplexity(value):.2f}",
                f"{score.tokens:,}",
            )
        if (new := score.new_items) is not None:
            loss = _with_error(new.loss, new.stderr)
            table.add_row("  new items", loss, "", "", f"{new.perplexity:.2f}", f"{new.tokens:,}")
        if score.code_bytes is not None:
            nats = 8 * math.log(2) * score.code_bytes / score.tokens
            table.add_row("  coded", f"{nats:.4f}", "", "", "", f"{score.code_bytes:,} bytes")
    return table


MEASURES = {
    "exact_match": ("targets right", 100.0),
    "accuracy": ("labels right", 100.0),
    "macro_f1": ("macro F1", 100.0),
    "calibration_error": ("calibration error", 100.0),
    "char_error_rate": ("character errors", 100.0),
    "symbol_error_rate": ("symbol errors", 100.0),
    "bleu": ("BLEU", 1.0),
    "chrf": ("chrF", 1.0),
}
"""Measures of predictions: their titles, and what they are multiplied by."""


def prediction_rows(
    scores: Mapping[SplitName, Score],
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the titles and the rows of a table of how good predicted targets are."""
    names = [n for n in MEASURES if any(getattr(s, n) is not None for s in scores.values())]
    titles = [MEASURES[name][0] + (" (%)" if MEASURES[name][1] == 100 else "") for name in names]
    rows = []
    for split, score in scores.items():
        cells = []
        for name in names:
            value, error = getattr(score, name), getattr(score, f"{name}_stderr", None)
            factor = MEASURES[name][1]
            shown = "" if value is None else f"{factor * value:.2f}"
            if error is not None and math.isfinite(error):
                shown += f" ± {factor * error:.2f}"
            cells.append(shown)
        rows.append((SPLIT_TITLES[split], *cells, f"{score.predicted or 0:,}"))
    return ["", *titles, "examples"], rows


def prediction_table(scores: Mapping[SplitName, Score]) -> Table:
    """Return a table of how good predicted targets are, one row for each split."""
    (first, *titles), rows = prediction_rows(scores)
    table = _table([first], titles)
    for row in rows:
        table.add_row(*row)
    return table


def _with_error(loss: float, stderr: float | None) -> str:
    is_known = stderr is not None and not math.isnan(stderr)
    return f"{loss:.4f} ± {stderr:.4f}" if is_known else f"{loss:.4f}"


def runs_table(entries: Sequence[Mapping[str, Any]], now: float) -> Table:
    """Return a table of runs, as `moreish runs` describes them.

    Args:
        entries: the runs.
        now: the time, in seconds since 1970.
    """
    table = _table(["run", "model"], ("val. loss", "size", "age"))
    table.add_column("status")
    for entry in entries:
        table.add_row(
            visible(str(entry["run"])),
            entry["model"] or "",
            "" if entry["loss"] is None else f"{entry['loss']:.4f}",
            format_bytes(entry["bytes"]),
            _format_age(now - entry["modified"]),
            entry["status"],
        )
    return table


def _format_age(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return plural(int(seconds / size), unit)
    return "now"


def guess_line(vocabulary: int) -> str:
    """Return the loss of a uniform guess, as a reference for other losses."""
    return f"A uniform guess among {vocabulary:,} tokens has a loss of {math.log(vocabulary):.4f}."


def tokenization_table(compared: Sequence[TokenizerStats]) -> Table:
    """Return a table with one row for each tokenizer."""
    titles = ("vocabulary", "tokens", "bytes/token", "MB/s", "unknown")
    table = _table(["tokenizer"], titles)
    for each in compared:
        table.add_row(
            visible(each.name),
            f"{each.vocabulary:,}",
            f"{each.tokens:,}",
            f"{each.bytes_per_token:.2f}",
            f"{each.megabytes_per_second:.1f}",
            f"{each.unknown:.1%}" if each.unknown else "",
        )
    return table


TOKEN_BACKGROUNDS = ("on blue", "on dark_green", "on dark_red", "on purple4", "on dark_goldenrod")
"""Background colors of neighboring tokens."""


def token_lines(name: str, tokens: Sequence[Token]) -> list[Text]:
    """Return a text with its tokens on colored backgrounds, then one line for each token."""
    size = sum(len(token.bytes.split()) for token in tokens)
    each = f", {size / len(tokens):.2f} bytes each" if tokens else ""
    title = Text(f"{visible(name)}: {plural(len(tokens), 'token')}{each}")
    labels = [
        Text(token.label, f"white {background}")
        for token, background in zip(tokens, cycle(TOKEN_BACKGROUNDS), strict=False)
    ]
    width = max((label.cell_len for label in labels), default=0)
    rows = []
    for token, label in zip(tokens, labels, strict=True):
        space = " " * (width - label.cell_len)
        rows.append(Text.assemble(f"{token.id:>8}  ", label, (f"{space}  {token.bytes}", "dim")))
    return [title, Text.assemble(*labels), *rows, Text()]


def ladder_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with one row for each rung, the best first, at most 80 columns wide. Columns
    without a value in any row are left out."""
    ranked = sorted(entries, key=ladder_loss)
    columns: dict[str, list[str]] = {}
    for entry in ranked:
        splits = {name: Score.model_validate(split) for name, split in entry["splits"].items()}
        val, train, test = splits["val"], splits.get("train"), splits.get("test")
        right = format_right(val)
        cells = {
            "param.\n/ 1000": f"{entry['parameters'] / 1e3:,.1f}",
            "time\n(s)": f"{entry['seconds']:.1f}",
            "train": _loss(train),
            "valid-\nation": _loss(val),
            "±": f"{val.stderr:.4f}" if math.isfinite(val.stderr) else "",
            NEW_ITEMS: "" if val.new_items is None else f"{val.new_items.loss:.4f}",
            "test": _loss(test),
            "stated": f"{entry['stated']['loss']:.2f}" if entry["stated"] else "",
            "bits/\nchar": format_bits(val.bits_per_char) if right is None else "",
            "copied": _copied(entry.get("copied")),
            "targets\nright": right or "",
        }
        for title, cell in cells.items():
            columns.setdefault(title, []).append(cell)
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    if len(shown) == len(columns):  # too wide
        del shown["±"]
    table = _table(["rung"], list(shown), gap=1)
    for column in table.columns:
        column.no_wrap = True
    for number, entry in enumerate(ranked):
        style = "bold" if number == 0 else None
        table.add_row(entry["rung"], *(cells[number] for cells in shown.values()), style=style)
    return table


def format_right(score: Score) -> str | None:
    """Format the share of targets that are predicted right; None for other data."""
    share = score.exact_match if score.accuracy is None else score.accuracy
    return None if share is None else f"{share:.2%}"


NEW_ITEMS = "new\nitems"
"""Title of the column with the loss on validation items that are not in the training split."""


def _loss(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{score.loss:.4f}" if math.isfinite(score.loss) else "∞"


def ladder_loss(entry: Mapping[str, Any]) -> float:
    """Return the validation loss of a rung; one without a finite loss is the worst."""
    loss = entry["splits"]["val"]["loss"]
    return math.inf if loss is None else loss


def _copied(share: float | None) -> str:
    """Format the copied share of items, or the mean number of copied characters of running text."""
    if share is None:
        return ""
    return f"{share:.0%}" if share <= 1 else f"{share:.0f}"


def format_loss(split: Mapping[str, Any] | None) -> str:
    """Format a loss and its standard error, as in `1.9740 ± 0.0081`."""
    if split is None or split["loss"] is None:
        return "" if split is None else "∞"
    error = f" ± {split['stderr']:.4f}" if split["stderr"] else ""
    return f"{split['loss']:.4f}{error}"


def stated_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sources of the stated losses of a ladder."""
    return [
        f"stated for {entry['rung']}: {entry['stated']['loss']:.2f}, {entry['stated']['where']}"
        for entry in entries
        if entry["stated"]
    ]


def novelty_table(texts: Sequence[TextNovelty]) -> Table:
    """Return a table of the ten items with the longest spans of the training data."""
    table = _table(["sample", "longest copied span", "found in", "nearest item", "edits"])
    for text in sorted(texts, key=lambda t: (-len(t.overlap), not t.known))[:10]:
        cells = [text.text, text.overlap, text.passage, text.nearest or "", str(text.distance)]
        table.add_row(*(_short(cell, 17) for cell in cells), style="bold" if text.known else None)
    return table


SPAN_WIDTH, MARGIN_WIDTH, PLACE_WIDTH = 30, 8, 18
"""Width of a copied span, of what surrounds it on either side, and of where it is."""


def overlap_table(texts: Sequence[TextNovelty], places: Sequence[str]) -> Table:
    """Return a table of the longest copied spans of running text, in the lines where they are."""
    table = _table(["copied span, in its line", "where"], ["length"])
    for text, place in zip(texts, places, strict=True):
        before, _, after = text.passage.partition(text.overlap)
        span = Text.assemble(
            (_one_line(before)[-MARGIN_WIDTH:], "dim"),
            (str(_short(text.overlap, SPAN_WIDTH)), "bold"),
            (_one_line(after)[:MARGIN_WIDTH], "dim"),
        )
        shown = place if len(place) <= PLACE_WIDTH else "…" + place[-PLACE_WIDTH + 1 :]
        table.add_row(span, visible(shown), str(len(text.overlap)))
    return table


def _one_line(text: str) -> str:
    return visible(text.replace("\n", "↵").replace("\t", " "))


def _short(text: str, length: int) -> Text:
    """Return a text on one line, cut to a length."""
    text = _one_line(text)
    return Text(text if len(text) <= length else text[: length - 1] + "…")


def comparison_table(groups: Sequence[RunGroup]) -> Table:
    """Return a table with one row for each group of runs, best first."""
    table = _table([""], ["runs", "loss (nats)", "seed spread"])
    for group in groups:
        spread = max(group.losses) - min(group.losses)
        seeds = f"{spread:.4f}" if len(group.losses) > 1 else ""
        table.add_row(group.name, str(len(group.runs)), f"{group.loss:.4f}", seeds)
    return table


def range_lines(found: LRRange) -> list[Text]:
    """Return a learning-rate range test as a bar chart: one line for each group of rates."""
    count = min(24, len(found.rates))
    groups = np.array_split(np.arange(len(found.rates)), count)
    losses = [float(np.mean([found.smoothed[i] for i in group])) for group in groups]
    low, high = min(losses), min(max(losses), 2 * losses[0])
    lines = []
    for group, loss in zip(groups, losses, strict=True):
        length = round(40 * min(1.0, (loss - low) / max(high - low, 1e-9)))
        first, last = found.rates[group[0]], found.rates[group[-1]]
        mark = "  valley starts" if first <= found.valley <= last else ""
        mark += "  suggested" if first <= found.suggested <= last else ""
        lines.append(Text(f"{first:9.2e}  {loss:7.4f}  ") + Text("█" * length + mark))
    return lines


def surprisal_table(tokens: list[TokenSurprisal]) -> Table:
    """Return a table with one row for each token: its probability, and its surprisal in nats."""
    table = _table([""], ["probability", "nats"])
    for token in tokens:
        shown = f"{token.probability:.4f}"
        if shown == "0.0000" and token.probability > 0:
            shown = f"{token.probability:.1e}"
        table.add_row(Text(token.token), shown, f"{abs(token.nats):.3f}")
    return table
