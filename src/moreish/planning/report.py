"""What a training will take, for people to read."""

from dataclasses import asdict

from moreish.planning.estimate import Estimate, Memory
from moreish.ui import plural
from moreish.utils.files import format_bytes


def format_estimate(found: Estimate) -> list[str]:
    """An estimate for people: a line a subject, and a table of memory."""
    load, devices = found.load, found.devices
    parts = found.config.train.accumulate
    on = f" on each of {devices:,}" * (devices > 1)
    split = f" (a step is taken in {parts} parts)" * (parts > 1)
    at_once = plural(found.rows_at_once, "row")
    rows = [
        ("model", _model(found)),
        ("step", f"{load.rows:,} rows of {load.length:,} positions, {load.tokens:,} tokens"),
        ("training", _training(found)),
        ("for its size", f"{_count(found.optimal_tokens)} tokens are compute-optimal"),
        ("operations", _operations(found)),
        ("time", _time(found)),
        ("disk", f"{_size(found.disk)} at the most, {_size(found.checkpoint)} a checkpoint"),
        ("at once", f"{at_once}{on}{split}, products in {found.precision}"),
    ]
    lines = [f"{name:<13}{text}" for name, text in rows]
    return [*lines, "", *_table(found.ddp, found.fsdp)]


def _model(found: Estimate) -> str:
    name, rest = found.config.model.name, found.parameters - found.embeddings
    return f"{name}, {found.parameters:,} parameters, {rest:,} without embeddings"


def _training(found: Estimate) -> str:
    if found.tokens is None or found.load.steps is None:
        return "as many steps as there is time or data for"
    passes = ""
    if found.load.data_tokens is not None:
        passes = f", {_short(found.tokens / found.load.data_tokens)} times the data"
    each = _short(found.tokens / found.parameters)
    tokens = f"{_count(found.tokens)} tokens ({each} a parameter{passes})"
    return f"{found.load.steps:,} steps, {tokens}"


def _operations(found: Estimate) -> str:
    each = f"{_count(found.operations_per_position)} a token, {found.attention:.0%} of it attention"
    return each if found.operations is None else f"{found.operations:.3g} ({each})"


def _time(found: Estimate) -> str:
    if found.config.train.minutes is not None:
        return f"{found.config.train.minutes:g} minutes, as was asked"
    if found.peak is None:
        return "unknown: --gpu NAME (or its TFLOP/s) tells it"
    use = f"{found.devices} x {found.peak / 1e12:g} TFLOP/s, of which {found.mfu:.0%} are used"
    if found.hours is None:
        return f"unknown: it depends on the data ({use})"
    hours = f"{found.hours:,.3g} hours" if found.hours >= 1 else f"{found.hours * 60:.2g} min"
    hours = "less than a second" if found.hours * 3600 < 1 else hours
    days = f" ({found.hours / 24:.3g} days)" if found.hours >= 48 else ""
    return f"{hours}{days} on {use}"


def _table(ddp: Memory, fsdp: Memory | None) -> list[str]:
    columns = [("whole (DDP)", ddp), ("shared (FSDP)", fsdp)] if fsdp else [("memory", ddp)]
    lines = ["             " + "".join(f"{title:>15}" for title, _ in columns)]
    for name in (*asdict(ddp), "total"):
        sizes = [getattr(memory, name) for _, memory in columns]
        shown = "".join(f"{'?' if size is None else _size(size):>15}" for size in sizes)
        lines.append(f"{name:<13}{shown}")
    return lines


def _size(count: float) -> str:
    return format_bytes(count) if count else "-"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _count(number: float) -> str:
    """`855 M`, `2.95 B`."""
    for size, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
