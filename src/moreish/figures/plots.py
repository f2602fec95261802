"""Functions that draw a matplotlib figure from plain numbers.

V vocabulary, M tokens shown, C width, H heads, T time.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from moreish.evaluate import principal_components
from moreish.figures.style import Theme
from moreish.training import LRRange

Array = NDArray[Any]

MAX_MAPS = 8
"""How many layers, and heads of each layer, the attention figure shows."""

CHARACTER_WIDTH = 0.42
"""Width per character of a longer label, in cells; a label of one character has a cell of 1."""

MAX_SHORT_LABEL = 2
"""Labels up to this length fit into a cell, and on an axis without rotation."""

MAX_TABLE_SIZE = 30
"""How many of the most frequent tokens the table of pairs shows."""

MAX_SURPRISAL = 6.0
"""The surprisal in nats that has the strongest color."""


def pair_table(
    table_MM: Array, names: Sequence[str], theme: Theme, *, counts: bool, vocab_size: int
) -> Figure:
    """Draw a heat map of token pairs: the row is the token before, the column the token after.

    Args:
        table_MM: (M, M) counts or probabilities.
        names: the labels of the tokens.
        counts: whether the numbers are counts.
        vocab_size: the number of all tokens; if there are more than M, the axis says so.
    """
    table = table_MM.astype(float)
    size = len(names)
    figure = Figure(figsize=(5.2, 5.7))
    axes = figure.add_subplot()
    high = max(float(table.max()), 1e-9)
    norm = LogNorm(0.5, high) if counts and high > 1 else Normalize(0, high)
    image = axes.imshow(
        np.maximum(table, 0.5) if counts else table, cmap=theme.colormap, norm=norm, aspect="equal"
    )
    is_short = max(map(len, names)) <= MAX_SHORT_LABEL
    axes.set_xticks(range(size), names, rotation=0 if is_short else 90)
    axes.set_yticks(range(size), names)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0, labelsize=9, labelcolor=theme.ink)
    axes.spines[:].set_visible(False)
    scope = f" ({size} most frequent of {vocab_size:,})" if vocab_size > size else ""
    axes.set(xlabel="token after", ylabel=f"token before{scope}")
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.6, aspect=40, pad=0.02)
    bar.outline.set_visible(False)
    if counts:
        bar.set_label("count")
        bar.ax.xaxis.set_major_formatter(lambda number, _: short_number(number))
    else:
        bar.set_label("probability of the token after")
        bar.ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.ax.tick_params(length=0, which="both")
    return figure


def loss_curves(
    steps: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    theme: Theme,
    *,
    guess: float | None = None,
    log: bool = False,
    figure_type: type[Figure] = Figure,
) -> Figure:
    """Draw the training and validation losses against the steps.

    Args:
        steps: lines of metrics.jsonl with a training loss.
        evaluations: lines with a validation score.
        guess: the loss of a uniform guess in nats, which is drawn where it is near.
        log: whether both axes are logarithmic.
        figure_type: the class of the figure.
    """
    figure = figure_type(figsize=(5.4, 3.6))
    axes = figure.add_subplot()
    step, loss = (np.array([line[key] for line in steps]) for key in ("step", "loss"))
    val_step = np.array([line["step"] for line in evaluations])
    val = np.array([line["val"]["loss"] for line in evaluations])
    smooth = smoothed(loss)
    train_color, val_color = theme.series[:2]
    axes.plot(step, loss, color=train_color, alpha=0.25, linewidth=0.6)
    axes.plot(step, smooth, color=train_color, linewidth=1.6, label="training (smoothed)")
    marker = "o" if len(val) < 40 else None
    axes.plot(
        val_step, val, color=val_color, linewidth=1.6, marker=marker, markersize=4,
        label=f"validation (lowest: {val.min():.3f})",
    )  # fmt: skip
    # A first step of a network that has learned nothing must not press the rest together.
    top = float(np.quantile(loss, 0.98)) if len(loss) > 200 else float(smooth.max())
    low, high = min(smooth.min(), val.min()), max(top, val.max())
    room = 0.08 * (high - low) or 0.1
    axes.set(ylim=(low - room, high + 2 * room), xlabel="step", ylabel="loss (nats per token)")
    if guess is not None and guess < high + 2 * room:
        axes.axhline(guess, color=theme.faint, linewidth=1, linestyle=":")
        axes.annotate(
            f"guessing {guess:.2f}", (1, guess), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", ha="right", color=theme.faint,
        )  # fmt: skip
    if log:
        axes.set(xscale="log", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.xaxis.set_major_formatter(lambda number, _: short_number(number))
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return figure


def readable_on(background: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever has more contrast (WCAG 2.1, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def smoothed(values: Array, window: float = 0.02) -> Array:
    """Return an exponential moving average with bias correction.

    Args:
        values: (N,) the series.
        window: the time constant, as a fraction of the length of the series.
    """
    decay = 1 - 1 / max(1.0, window * len(values))
    out, mean = np.empty(len(values)), 0.0
    for i, value in enumerate(values):
        mean = decay * mean + (1 - decay) * value
        out[i] = mean / (1 - decay ** (i + 1))
    return out


def embeddings(weight_VC: Array, labels: Sequence[str], theme: Theme) -> Figure:
    """Draw tokens as points: 2-dimensional embeddings as they are, others by their first two
    principal components."""
    points, names = weight_VC, ("dimension 1", "dimension 2")
    if weight_VC.shape[1] != 2:
        points, (first, second) = principal_components(weight_VC)
        names = (
            f"component 1 ({first:.0%} of the variance)",
            f"component 2 ({second:.0%} of the variance)",
        )
    figure = Figure(figsize=(5.2, 5.0))
    axes = figure.add_subplot()
    axes.scatter(points[:, 0], points[:, 1], s=190, color=theme.heat[1], linewidths=0)
    for (x, y), label in zip(points[:, :2], labels, strict=True):
        color = theme.series[1] if is_vowel(label) else theme.ink
        axes.text(x, y, label, ha="center", va="center", fontsize=11, color=color)
    axes.margins(0.08)
    axes.grid()
    axes.set(xlabel=names[0], ylabel=names[1])
    return figure


def is_vowel(label: str) -> bool:
    """Return whether a token is one vowel of the Latin alphabet, with or without accents."""
    letters = unicodedata.normalize("NFD", label.lower())
    return letters[:1] in set("aeiouyæœøı") and all(map(unicodedata.combining, letters[1:]))


def attention(maps: Sequence[Array], labels: Sequence[str], theme: Theme) -> Figure:
    """Draw attention weights, a row of squares per layer and a column per head.

    Args:
        maps: for each layer (H, T, T); rows attend to columns.
        labels: the T tokens.
    """
    layers, heads, length = len(maps), maps[0].shape[0], len(labels)
    rows, columns = min(layers, MAX_MAPS), min(heads, MAX_MAPS)
    short = max(map(len, labels)) <= MAX_SHORT_LABEL
    side = min(2.6, max(1.9, 0.16 * length))
    figure = Figure(figsize=(columns * side + 0.6, rows * side + 0.6))
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, j in np.ndindex(rows, columns):
        axes: Any = grid[i, j]
        axes.imshow(maps[i][j], cmap=theme.colormap, vmin=0, vmax=1)
        x_labels = labels if i == rows - 1 else [""] * length
        axes.set_xticks(range(length), x_labels, rotation=0 if short else 90)
        axes.set_yticks(range(length), labels if j == 0 else [""] * length)
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_color(theme.grid)
        axes.set_title(f"layer {i + 1}, head {j + 1}", fontsize=9, color=theme.faint, loc="center")
    return figure


def omitted_maps(maps: Sequence[Array]) -> str:
    """Return a sentence about the layers and heads that `attention` does not show, or ""."""
    layers, heads = len(maps), maps[0].shape[0]
    if max(layers, heads) <= MAX_MAPS:
        return ""
    return f"Only the first {MAX_MAPS} of {layers} layers and {heads} heads are shown. "


def surprisal(tokens: Sequence[tuple[str, float]], theme: Theme, *, row_width: int = 48) -> Figure:
    """Draw a text whose tokens are colored by their surprisal.

    Args:
        tokens: labels and surprisals in nats.
        row_width: the width of a row, in characters.
    """
    widths = [max(1.0, CHARACTER_WIDTH * len(label) + 0.4) for label, _ in tokens]
    positions, x, y = [], 0.0, 0
    for width in widths:
        if x and x + width > row_width:
            x, y = 0.0, y + 1
        positions.append((x, y))
        x += width
    rows = y + 1
    total = max(24.0, *(x + width for (x, _), width in zip(positions, widths, strict=True)))
    figure = Figure(figsize=(0.2 * total + 0.4, 0.36 * rows + 0.7))
    axes = figure.add_subplot()
    norm = Normalize(0, MAX_SURPRISAL)
    for (label, nats), (x, y), width in zip(tokens, positions, widths, strict=True):
        color = theme.colormap(norm(min(nats, MAX_SURPRISAL)))
        axes.add_patch(Rectangle((x, -y - 0.9), width, 0.9, color=color, linewidth=0))
        axes.text(
            x + width / 2, -y - 0.45, label, ha="center", va="center", fontsize=9,
            color=readable_on(color), family="DejaVu Sans Mono", in_layout=False,
        )  # fmt: skip
    axes.set(xlim=(0, total), ylim=(-rows, 0))
    axes.set_axis_off()
    mean = sum(nats for _, nats in tokens) / len(tokens)
    scale = f"color from 0 to {MAX_SURPRISAL:.0f} nats or more"
    axes.set_title(f"mean {mean:.2f} nats per token; {scale}", fontsize=9)
    return figure


def layer_statistics(layers: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Draw the statistics of `moreish.figures.layer_statistics`, a row for each layer."""
    figure = Figure(figsize=(5.4, 0.46 * len(layers) + 2.0))
    grid: Any = figure.subplots(2, 2, sharey=True)
    spread, inactive, gradient, update = grid.flat
    names = [layer["name"] for layer in layers]
    y = np.arange(len(layers))
    spread.barh(y, [layer["spread"] for layer in layers], color=theme.series[0], height=0.62)
    spread.set_xlabel("output:\nstandard deviation")
    percent = [100 * (layer["inactive"] or 0.0) for layer in layers]
    inactive.barh(y, percent, color=theme.series[1], height=0.62)
    for i, layer in enumerate(layers):
        note = "" if layer["inactive"] is None else f" {percent[i]:.0f}% {layer['kind']}"
        inactive.text(percent[i], i, note, va="center", fontsize=8, color=theme.faint)
    limits = (0, max(30.0, 1.6 * max(percent)))
    inactive.set(xlim=limits, xlabel="saturated or\ndead units (%)")
    for axes, key, label in (
        (gradient, "gradient", "gradient: standard\ndeviation (log10)"),
        (update, "update", "update / weight\n(log10)"),
    ):
        rows = [i for i, layer in enumerate(layers) if layer[key] is not None]
        log10 = [math.log10(max(layers[i][key], 1e-9)) for i in rows]
        axes.scatter(log10, rows, color=theme.series[2], s=26, zorder=3)
        axes.set_xlabel(label)
    spread.set_yticks(y, names)
    spread.set_ylim(len(layers) - 0.5, -0.5)
    for axes in figure.axes:
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    return figure


def lr_range(test: LRRange, theme: Theme) -> Figure:
    """Draw a learning-rate range test, with the start of the valley and the suggested rate."""
    figure = Figure(figsize=(6.8, 4.0))
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses, color=theme.series[0], alpha=0.25, linewidth=0.7)
    axes.plot(test.rates, test.smoothed, color=theme.series[0], linewidth=1.8)
    low, high = min(test.smoothed), test.smoothed[0]
    marks = [(test.suggested, "suggested", theme.series[1], high)]
    if test.valley != test.suggested:
        level = high - 0.12 * (high - low)
        marks.append((test.valley, "start of the valley", theme.series[2], level))
    for rate, name, color, level in marks:
        axes.axvline(rate, color=color, linewidth=1.2, linestyle="--")
        axes.text(rate, level, f" {name}: {rate:.2g}", color=color, fontsize=9, ha="left")
    limits = (low - 0.1 * (high - low), high + 0.25 * (high - low))
    axes.set(xscale="log", ylim=limits, xlabel="learning rate", ylabel="loss (nats per token)")
    axes.grid(axis="y")
    return figure


def short_number(number: float) -> str:
    """Format a number in three or four characters: `627`, `6.8k`, `1.2M`."""
    if number < 1000:
        return f"{number:.0f}"
    scaled, unit = (number / 1e3, "k") if number < 1e6 else (number / 1e6, "M")
    return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
