"""Formats the estimated cost of a training run for the terminal."""

from dataclasses import asdict

from moreish.planning.estimate import Estimate, Memory
from moreish.utils.files import format_bytes
from moreish.utils.text import plural


def format_estimate(found: Estimate) -> list[str]:
    """Formats an estimate as one line per subject and a table of memory."""
    load, devices = found.load, found.devices
    parts = found.config.train.accumulate
    on = f" on each of {devices:,}" * (devices > 1)
    split = f" ({parts} micro-batches per step)" * (parts > 1)
    at_once = plural(found.rows_at_once, "row")
    rows = [
        ("model", _model(found)),
        ("step", f"{load.rows:,} rows of {load.length:,} positions, {load.tokens:,} tokens"),
        ("training", _training(found)),
        ("for its size", f"{_count(found.optimal_tokens)} tokens are compute-optimal"),
        ("FLOPs", _operations(found)),
        ("time", _time(found)),
        ("disk", f"at most {_size(found.disk)}, {_size(found.checkpoint)} per checkpoint"),
        ("at once", f"{at_once}{on}{split}, matrix products in {found.precision}"),
    ]
    lines = [f"{name:<13}{text}" for name, text in rows]
    return [*lines, "", *_table(found.ddp, found.fsdp)]


def _model(found: Estimate) -> str:
    name, rest = found.config.model.name, found.parameters - found.embeddings
    return f"{name}, {found.parameters:,} parameters, {rest:,} without embeddings"


def _training(found: Estimate) -> str:
    if found.tokens is None or found.load.steps is None:
        return "the number of steps depends on the time or the data"
    passes = ""
    if found.load.data_tokens is not None:
        passes = f", {_short(found.tokens / found.load.data_tokens)} epochs"
    each = _short(found.tokens / found.parameters)
    tokens = f"{_count(found.tokens)} tokens ({each} per parameter{passes})"
    return f"{found.load.steps:,} steps, {tokens}"


def _operations(found: Estimate) -> str:
    each = (
        f"{_count(found.operations_per_position)} per token, {found.attention:.0%} of it attention"
    )
    return each if found.operations is None else f"{found.operations:.3g} ({each})"


def _time(found: Estimate) -> str:
    if found.config.train.minutes is not None:
        return f"{found.config.train.minutes:g} minutes, as requested"
    if found.peak is None:
        return "unknown: name the GPU with --gpu NAME, or its peak TFLOP/s"
    use = f"{found.devices} x {found.peak / 1e12:g} TFLOP/s at {found.mfu:.0%} MFU"
    if found.hours is None:
        return f"unknown: it depends on the data ({use})"
    hours = f"{found.hours:,.3g} hours" if found.hours >= 1 else f"{found.hours * 60:.2g} min"
    hours = "under 1 s" if found.hours * 3600 < 1 else hours
    days = f" ({found.hours / 24:.3g} days)" if found.hours >= 48 else ""
    return f"{hours}{days} on {use}"


def _table(ddp: Memory, fsdp: Memory | None) -> list[str]:
    columns = [("DDP", ddp), ("FSDP", fsdp)] if fsdp else [("memory", ddp)]
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
