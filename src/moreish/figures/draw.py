"""The pictures: functions from numbers to a matplotlib figure. They know nothing of runs.

V vocabulary, M some of it, L layers, H heads, T time.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from moreish.evaluate import principal_components
from moreish.figures.style import Theme

Array = NDArray[Any]

MOST_MAPS = 8
"""Layers, and heads of each, whose attention is drawn."""

LETTER = 0.42
"""Width of a letter of a longer token, where one alone has a cell of 1."""

SHORT = 2
"""Letters of tokens that have room in a cell, or on an axis as they are."""

MOST_CELLS = 40
"""Rows of a table of pairs; of a larger vocabulary the most frequent tokens are shown."""


def pairs(table_MM: Array, names: Sequence[str], theme: Theme, *, counts: bool, of: int) -> Figure:
    """Rows: the token before; columns: the one after. In each cell the pair and its number.

    Args:
        names: of the tokens, the most frequent ones of a vocabulary of `of`.
    """
    table = table_MM.astype(float)
    size = len(names)
    figure = Figure(figsize=(0.37 * size + 1.2, 0.37 * size + 1.0))
    axes = figure.add_subplot()
    high = max(float(table.max()), 1e-9)
    norm = LogNorm(0.5, high) if counts and high > 1 else Normalize(0, high)
    shown = np.maximum(table, 0.5) if counts else table
    axes.imshow(shown, cmap=theme.colormap, norm=norm, aspect="equal")
    short = max(map(len, names)) <= SHORT
    grounds = theme.colormap(norm(shown))
    for row in range(size):
        for column in range(size):
            value = table[row, column]
            colour = readable_on(grounds[row, column])
            number = _short(value) if counts else (f"{100 * value:.0f}" if value >= 0.005 else "")
            if short:
                axes.text(
                    column, row - 0.16, names[row] + names[column], ha="center", va="center",
                    fontsize=7.5, color=colour, in_layout=False,
                )  # fmt: skip
            if number:
                axes.text(
                    column, row + 0.24 * short, number, ha="center", va="center", fontsize=6,
                    color=colour, in_layout=False,
                )  # fmt: skip
    axes.set_xticks(range(size), names, rotation=0 if short else 90)
    axes.set_yticks(range(size), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    what = "how often the column follows the row" if counts else "chance of the column in per cent"
    rest = f"; the {size} most frequent of {of:,} tokens" if of > size else ""
    axes.set_xlabel(what + rest)
    return figure


def curves(steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]],
           theme: Theme) -> Figure:  # fmt: skip
    """Loss against steps and against tokens, each on linear and on logarithmic axes."""
    figure = Figure(figsize=(9.6, 6.6))
    grid: Any = figure.subplots(2, 2)
    step = np.array([line["step"] for line in steps])
    tokens = np.array([line["tokens"] for line in steps])
    loss = np.array([line["loss"] for line in steps])
    smooth = smoothed(loss)
    at = np.array([line["step"] for line in evaluations])
    val = np.array([line["val"]["loss"] for line in evaluations])
    at_tokens = np.interp(at, step, tokens) if len(step) else at
    ways = ((step, at, "steps"), (tokens, at_tokens, "tokens trained on"))
    for axes, (x, x_val, what) in zip(grid.flat, [*ways, *ways], strict=True):
        axes.plot(x, loss, color=theme.series[0], alpha=0.25, linewidth=0.6)
        axes.plot(x, smooth, color=theme.series[0], linewidth=1.6, label="training, smoothed")
        marker = "o" if len(at) < 40 else None
        axes.plot(
            x_val, val, color=theme.series[1], linewidth=1.6, marker=marker, markersize=3.5,
            label="validation, exact",
        )  # fmt: skip
        axes.grid(axis="y")
        axes.set_xlabel(what)
    for axes in grid[0]:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
    for axes in grid[1]:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    for axes in grid[:, 0]:
        axes.set_ylabel("loss (nats per token)")
    if len(val):
        best = int(val.argmin())
        grid[0, 0].annotate(
            f"{val[best]:.3f}", (at[best], val[best]), xytext=(0, 7), textcoords="offset points",
            ha="right", fontsize=9, color=theme.series[1],
        )  # fmt: skip
    grid[0, 0].legend(loc="upper right")
    return figure


def readable_on(ground: tuple[float, float, float, float]) -> str:
    """Black or white, whichever has the greater contrast (WCAG 2.1, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def smoothed(values: Array, window: float = 0.02) -> Array:
    """A running mean whose memory is a share of the whole, without the pull of its start."""
    keep = 1 - 1 / max(1.0, window * len(values))
    out, mean = np.empty(len(values)), 0.0
    for i, value in enumerate(values):
        mean = keep * mean + (1 - keep) * value
        out[i] = mean / (1 - keep ** (i + 1))
    return out


def embeddings(weight_VC: Array, labels: Sequence[str], theme: Theme) -> Figure:
    """Tokens as points: the embedding itself if it has two numbers, else its two widest axes."""
    names = ["first number", "second number"]
    points = weight_VC
    if weight_VC.shape[1] != 2:
        points, shares = principal_components(weight_VC)
        names = [f"component {i + 1} ({shares[i]:.0%} of the variance)" for i in range(2)]
    figure = Figure(figsize=(6.4, 6.0))
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=150, color=theme.heat[1], linewidths=0)
    for (x, y), label in zip(points[:, :2], labels, strict=True):
        vowel = label.lower() in "aeiouy" and label
        colour = theme.series[1] if vowel else theme.ink
        axes.text(x, y, label, ha="center", va="center", fontsize=9, color=colour)
    axes.margins(0.08)
    axes.grid()
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return figure


def attention(maps: Sequence[Array], labels: Sequence[str], theme: Theme) -> Figure:
    """A row for each layer, a column for each head; each (H, T, T), rows taking from columns."""
    layers, heads, length = len(maps), maps[0].shape[0], len(labels)
    shown_layers, shown_heads = min(layers, MOST_MAPS), min(heads, MOST_MAPS)
    short = max(map(len, labels)) <= SHORT
    side = min(2.6, max(1.5, 0.13 * length))
    figure = Figure(figsize=(shown_heads * side + 0.6, shown_layers * side + 0.6))
    grid = figure.subplots(shown_layers, shown_heads, squeeze=False)
    for i, j in np.ndindex(shown_layers, shown_heads):
        axes: Any = grid[i, j]
        axes.imshow(maps[i][j], cmap=theme.colormap, vmin=0, vmax=1)
        below = labels if i == shown_layers - 1 else [""] * length
        axes.set_xticks(range(length), below, rotation=0 if short else 90)
        axes.set_yticks(range(length), labels if j == 0 else [""] * length)
        axes.tick_params(length=0, labelsize=6.5)
        axes.spines[:].set_color(theme.grid)
        axes.set_title(f"layer {i + 1}, head {j + 1}", fontsize=8, color=theme.faint, loc="center")
    return figure


def left_off(maps: Sequence[Array]) -> str:
    """What `attention` does not show, as a sentence."""
    layers, heads = len(maps), maps[0].shape[0]
    if max(layers, heads) <= MOST_MAPS:
        return ""
    return f"Of {layers} layers and {heads} heads the first {MOST_MAPS} are shown. "


def surprisal(tokens: Sequence[tuple[str, float]], theme: Theme, *, row: int = 48) -> Figure:
    """Tokens on a ground that is the darker the more they surprised (nats).

    Args:
        row: letters that find room beside each other.
    """
    widths = [max(1.0, LETTER * len(label) + 0.4) for label, _ in tokens]
    places, x, y = [], 0.0, 0
    for wide in widths:  # as many in a row as find room
        if x and x + wide > row:
            x, y = 0.0, y + 1
        places.append((x, y))
        x += wide
    rows = y + 1
    width = max(24.0, *(x + wide for (x, _), wide in zip(places, widths, strict=True)))
    figure = Figure(figsize=(0.2 * width + 0.4, 0.36 * rows + 0.7))
    axes = figure.add_subplot()
    norm = Normalize(0, 6)
    for (label, nats), (x, y), wide in zip(tokens, places, widths, strict=True):
        ground = theme.colormap(norm(min(nats, 6)))
        axes.add_patch(Rectangle((x, -y - 0.9), wide, 0.9, color=ground, linewidth=0))
        colour = readable_on(ground)
        axes.text(
            x + wide / 2, -y - 0.45, label, ha="center", va="center", fontsize=9, color=colour,
            family="DejaVu Sans Mono", in_layout=False,
        )  # fmt: skip
    axes.set_xlim(0, width)
    axes.set_ylim(-rows, 0)
    axes.set_axis_off()
    mean = sum(nats for _, nats in tokens) / len(tokens)
    axes.set_title(f"{mean:.2f} nats per token; pale: expected, strong: 6 nats or more", fontsize=9)
    return figure


def statistics(layers: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Of each layer: spread of what it gives, units that say nothing, gradient, size of a step."""
    figure = Figure(figsize=(10.4, 0.3 * len(layers) + 1.3))
    spread, silent, gradient, update = figure.subplots(1, 4, sharey=True)
    names = [layer["name"] for layer in layers]
    y = np.arange(len(layers))
    spread.barh(y, [layer["spread"] for layer in layers], color=theme.series[0], height=0.62)
    spread.set_xlabel("deviation of the output")
    shares = [100 * (layer["silent"] or 0.0) for layer in layers]
    silent.barh(y, shares, color=theme.series[1], height=0.62)
    for place, layer in enumerate(layers):
        note = "" if layer["silent"] is None else f" {100 * layer['silent']:.0f} % {layer['kind']}"
        silent.text(shares[place], place, note, va="center", fontsize=8, color=theme.faint)
    silent.set_xlim(0, max(30.0, 1.6 * max(shares)))
    silent.set_xlabel("units saturated or dead (%)")
    for axes, key, what in (
        (gradient, "gradient", "deviation of the gradient\n(powers of ten)"),
        (update, "update", "a step over the matrix\n(powers of ten)"),
    ):
        there = [place for place, layer in enumerate(layers) if layer[key] is not None]
        power = [math.log10(max(layers[place][key], 1e-9)) for place in there]
        axes.scatter(power, there, color=theme.series[2], s=26, zorder=3)
        axes.set_xlabel(what)
    spread.set_yticks(y, names)
    spread.set_ylim(len(layers) - 0.5, -0.5)
    for axes in (spread, silent, gradient, update):
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
    return figure


def lr_range(rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float],
             valley: float, suggested: float, theme: Theme) -> Figure:  # fmt: skip
    """The learning-rate range test, with the valley and the suggestion marked."""
    figure = Figure(figsize=(6.8, 4.0))
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=theme.series[0], alpha=0.25, linewidth=0.7)
    axes.plot(rates, smooth, color=theme.series[0], linewidth=1.8)
    low, high = min(smooth), smooth[0]
    for rate, name, colour in (
        (valley, "the valley begins", theme.series[2]),
        (suggested, "suggested", theme.series[1]),
    ):
        if name == "suggested" or valley != suggested:
            axes.axvline(rate, color=colour, linewidth=1.2, linestyle="--")
            level = high if name == "suggested" else high - 0.12 * (high - low)
            axes.text(rate, level, f" {name} {rate:.2g}", color=colour, fontsize=9, ha="left")
    axes.set_xscale("log")
    axes.set_ylim(low - 0.1 * (high - low), high + 0.25 * (high - low))
    axes.grid(axis="y")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss (nats per token)")
    return figure


def ladder(rungs: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Validation loss of every rung, best first, with its error; then against what it cost."""
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
    colours = [theme.series[2 if rung["counted"] else 0] for rung in ranked]
    bars.hlines(y, losses.min() * 0.97, losses, color=theme.grid, linewidth=1)
    bars.errorbar(losses, y, xerr=1.96 * errors, fmt="none", ecolor=theme.faint, elinewidth=1)
    bars.scatter(losses, y, color=colours, s=34, zorder=3)
    for place, rung in enumerate(ranked):
        bars.text(
            losses[place], place + 0.12, f"  {losses[place]:.3f}", va="bottom", fontsize=7.5,
            color=theme.faint,
        )  # fmt: skip
        if rung["stated"]:
            bars.scatter(rung["stated"]["loss"], place, marker="|", s=110, color=theme.series[1])
    bars.set_yticks(y, names)
    bars.tick_params(axis="y", length=0)
    bars.set_xlabel("validation loss (nats per token)")
    stated = [rung["stated"]["where"] for rung in ranked if rung["stated"]]
    if stated:
        trained = any("training loss" in where for where in stated)
        note = "| as the lecture states it" + (" (counts, bigram: on all data)" if trained else "")
        bars.set_title(note, fontsize=8, color=theme.series[1], loc="left")
    bars.grid(axis="x")
    bars.set_axisbelow(True)
    for axes, key, least, title in (
        (by_size, "parameters", 1, "numbers learned or counted"),
        (by_time, "seconds", 0.01, "seconds of training"),
    ):
        cost = np.array([max(least, rung[key]) for rung in ranked])
        axes.scatter(cost, losses, color=colours, s=26, zorder=3)
        axes.set_xscale("log")
        axes.margins(x=0.18, y=0.16)
        axes.set_xlabel(title)
        axes.set_ylabel("validation loss")
        axes.grid()
        axes.set_axisbelow(True)
        # Under an equal budget many take the same time: there only those are named that nothing
        # faster beats.
        named = [
            i for i in range(len(names))
            if key == "parameters" or not ((cost < cost[i]) & (losses <= losses[i])).any()
        ]  # fmt: skip
        _label_points(axes, cost[named], losses[named], [names[i] for i in named], theme)
    return figure


def _label_points(axes: Axes, x: Array, y: Array, names: Sequence[str], theme: Theme) -> None:
    """Names to the right of their points, moved up or down to where there is room."""
    wide, high = max(np.ptp(np.log10(x)), 0.3) * 1.36, max(np.ptp(y), 1e-9) * 1.2
    taken = [(math.log10(a), b, 0.012 * wide) for a, b in zip(x, y, strict=True)]
    for i in np.argsort(y):
        length = 0.0165 * wide * len(names[i])
        at = math.log10(x[i]) + 0.02 * wide
        for shift in sorted(np.arange(-12, 13), key=abs):
            level = y[i] + shift * 0.03 * high
            clash = any(
                abs(level - b) < 0.055 * high and at < a + w and a < at + length
                for a, b, w in taken
                if (a, b) != (math.log10(x[i]), y[i])
            )
            if not clash:
                break
        taken.append((at, level, length))
        far = abs(level - y[i]) > 0.05 * high
        label = axes.annotate(
            names[i], (x[i], y[i]), xytext=(10**at, level), fontsize=7.5, color=theme.faint,
            va="center", arrowprops={"arrowstyle": "-", "color": theme.grid} if far else None,
        )  # fmt: skip
        label.set_in_layout(False)  # or a label far off would squeeze the picture to nothing


def _short(number: float) -> str:
    """`627`, `6.8k`, `1.2M`: three characters or four."""
    if number < 1000:
        return f"{number:.0f}"
    scaled, unit = (number / 1e3, "k") if number < 1e6 else (number / 1e6, "M")
    return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
