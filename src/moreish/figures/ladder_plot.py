"""The figure of a ladder: the loss of every rung, and what it cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from moreish.figures.style import Theme

Array = NDArray[Any]

MAX_LABELS = 8
"""Number of rungs up to which all points are labeled."""


def ladder(rungs: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Draw the validation losses, the best at the top, and the losses against cost.

    Args:
        rungs: entries of ladder.json; those whose loss is infinite are left out.
    """
    finite = [rung for rung in rungs if rung["splits"]["val"]["loss"] is not None]
    ranked = sorted(finite, key=lambda rung: -rung["splits"]["val"]["loss"])
    names = [rung["rung"] for rung in ranked]
    losses = np.array([rung["splits"]["val"]["loss"] for rung in ranked])
    errors = np.array([rung["splits"]["val"]["stderr"] or 0.0 for rung in ranked])
    figure = Figure(figsize=(11, max(4.6, 0.3 * len(ranked) + 1.0)))
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.0, 1.1))
    left, right = halves
    bars: Axes = left.subplots()
    by_size, by_time = right.subplots(2, 1)
    y = np.arange(len(ranked))
    colors = [theme.series[2 if rung["counted"] else 0] for rung in ranked]
    bars.hlines(y, losses.min() * 0.97, losses, color=theme.grid, linewidth=1)
    bars.errorbar(losses, y, xerr=1.96 * errors, fmt="none", ecolor=theme.faint, elinewidth=1)
    bars.scatter(losses, y, color=colors, s=34, zorder=3)
    for i, rung in enumerate(ranked):
        bars.annotate(
            f"{losses[i]:.3f}", (losses[i], i), xytext=(4, 3), textcoords="offset points",
            fontsize=7.5, color=theme.faint,
        )  # fmt: skip
        if rung["stated"]:
            bars.scatter(rung["stated"]["loss"], i, marker="|", s=110, color=theme.series[1])
    bars.set_yticks(y, names)
    bars.tick_params(axis="y", length=0)
    bars.set_xlabel("validation loss (nats per token)")
    if sources := [rung["stated"]["where"] for rung in ranked if rung["stated"]]:
        on_all_data = any("training loss" in source for source in sources)
        note = " (counts and bigram: on all data)" if on_all_data else ""
        bars.set_title(f"| stated in the lecture{note}", fontsize=8, color=theme.series[1])
    bars.grid(axis="x")
    for axes, key, smallest, label in (
        (by_size, "parameters", 1, "parameters or counts"),
        (by_time, "seconds", 0.01, "training time (s)"),
    ):
        cost = np.array([max(smallest, rung[key]) for rung in ranked])
        axes.scatter(cost, losses, color=colors, s=26, zorder=3)
        axes.set(xscale="log", xlabel=label, ylabel="validation loss")
        axes.margins(x=0.22, y=0.16)
        axes.grid()
        _plain_ticks(axes)
        # With equal budgets many rungs take the same time: then only the Pareto front is labeled.
        labeled = [
            i for i in range(len(names))
            if key == "parameters" or len(names) <= MAX_LABELS
            or not ((cost < cost[i]) & (losses <= losses[i])).any()
        ]  # fmt: skip
        _label_points(axes, cost, losses, {i: names[i] for i in labeled}, theme)
    return figure


def _plain_ticks(axes: Axes) -> None:
    """Label the horizontal axis at 1, 2 and 5 times powers of ten, or at these if there are many,
    as plain numbers."""
    low, high = axes.get_xlim()
    multiples = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=multiples))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label_points(axes: Axes, x: Array, y: Array, names: Mapping[int, str], theme: Theme) -> None:
    """Write names to the right of points, moved up or down where others are in the way.

    Args:
        x, y: all points.
        names: the names of those to label, by index.
    """
    low, high = np.log10(axes.get_xlim())
    bottom, top = axes.get_ylim()
    width, height = high - low, top - bottom
    taken = [(math.log10(a), b, 0.012 * width) for a, b in zip(x, y, strict=True)]
    for i in sorted(names, key=lambda i: y[i]):
        length = 0.0165 * width * len(names[i])
        left = math.log10(x[i]) + 0.025 * width
        for shift in sorted(np.arange(-12, 13), key=abs):
            level = y[i] + shift * 0.03 * height
            overlaps = any(
                abs(level - b) < 0.055 * height and left < a + w and a < left + length
                for a, b, w in taken
                if (a, b) != (math.log10(x[i]), y[i])
            )
            if not overlaps:
                break
        taken.append((left, level, length))
        is_far = abs(level - y[i]) > 0.05 * height
        label = axes.annotate(
            names[i], (x[i], y[i]), xytext=(10**left, level), fontsize=7.5, color=theme.faint,
            va="center", arrowprops={"arrowstyle": "-", "color": theme.grid} if is_far else None,
        )  # fmt: skip
        label.set_in_layout(False)  # a label outside the axes must not shrink them
