"""Figures of runs of examples: confusion of labels, calibration, attention from target to input.

L labels, D positions of a target, I positions of an input, H heads.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from moreish.evaluate import confusion, reliability
from moreish.figures.style import Theme
from moreish.models import EncoderDecoder
from moreish.runs import Predicted, Run

MAX_LABELS = 20
"""How many of the most frequent labels the table of confusions shows."""

MAX_HEADS = 4
"""How many heads of the last layer the figure of attention shows."""

NUM_PREDICTIONS = 2000
"""Examples of the validation split that figures are drawn from."""

Drawing = tuple[str, str, str, Any]
"""Name, title, caption, and a function that draws the figure in a theme."""


def example_plots(run: Run) -> Iterator[Drawing]:
    """Yield the figures of a run of examples."""
    predicted = run.predict_split(run.split("val"), NUM_PREDICTIONS)
    if run.record.data.targets == "label":
        pairs = confusion(predicted.predictions, predicted.targets)
        caption = (
            "Row: the label in the data; column: the label predicted; numbers of examples of the "
            "validation split."
        )
        draw: Any = partial(draw_confusion, pairs)
        yield "confusion", "Confusion of labels", caption, draw
        caption = (
            "How often predictions of a probability are right. On the diagonal, probabilities are "
            "what they say; below it, the model is overconfident. The size of a dot is the number "
            "of examples."
        )
        yield "calibration", "Calibration", caption, partial(draw_calibration, predicted)
    if isinstance(run.model, EncoderDecoder):
        maps_HDI, rows, columns, text = cross_attention(run, predicted)
        caption = (
            "Which tokens of the input each token of the target attends to, in the last layer; "
            f"the target is the prediction for “{text}”."
        )
        draw = partial(draw_attention, maps_HDI, rows, columns)
        yield "cross-attention", "Attention to the input", caption, draw


def draw_confusion(pairs: Counter[tuple[str, str]], theme: Theme) -> Figure:
    """Draw a table of true and predicted labels, the most frequent ones."""
    counts: Counter[str] = Counter()
    for (target, guess), number in pairs.items():
        counts.update({target: number, guess: number})
    labels = [label for label, _ in counts.most_common(MAX_LABELS)]
    table_LL = np.array([[pairs[row, column] for column in labels] for row in labels])
    size = max(2.4, min(7.0, 0.6 * len(labels) + 1.2))
    figure = Figure(figsize=(size + 0.6, size))
    axes = figure.add_subplot()
    shares = table_LL / np.maximum(1, table_LL.sum(1, keepdims=True))
    axes.imshow(shares, cmap=theme.colormap, vmin=0, vmax=1)
    rotation = 0 if max(map(len, labels)) * len(labels) < 30 else 90
    axes.set_xticks(range(len(labels)), labels, rotation=rotation)
    axes.set_yticks(range(len(labels)), labels)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="predicted", ylabel="in the data")
    axes.tick_params(length=0, labelsize=9, labelcolor=theme.ink)
    axes.spines[:].set_visible(False)
    for place in np.ndindex(*table_LL.shape):
        if table_LL[place]:
            color = theme.paper if shares[place] > 0.5 else theme.ink
            axes.text(
                place[1], place[0], f"{table_LL[place]:,}",
                ha="center", va="center", color=color, fontsize=9,
            )  # fmt: skip
    return figure


def draw_calibration(predicted: Predicted, theme: Theme) -> Figure:
    """Draw the accuracy of predictions by their probability (a reliability diagram)."""
    probabilities = np.array([p.probability for p in predicted.predictions])
    pairs = zip(predicted.predictions, predicted.targets, strict=True)
    is_right = np.array([p.target == target for p, target in pairs], float)
    bins = reliability(probabilities, is_right)
    figure = Figure(figsize=(4.2, 3.8))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=":")
    confidence, accuracy, number = np.array(bins).T
    axes.plot(confidence, accuracy, color=theme.series[0], linewidth=1.5)
    sizes = 20 + 180 * number / number.max()
    axes.scatter(confidence, accuracy, s=sizes, color=theme.series[0], alpha=0.7)
    axes.set(xlabel="probability of the predicted label", ylabel="share that is right")
    axes.set(xlim=(max(0, confidence.min() - 0.1), 1.02), ylim=(0, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def cross_attention(
    run: Run, predicted: Predicted
) -> tuple[NDArray[np.float32], list[str], list[str], str]:
    """Return the weights of the last layer for one prediction, and the labels of rows and
    columns."""
    model, predictor = run.model, run.predictor()
    assert isinstance(model, EncoderDecoder)
    lengths = [len(p.input) for p in predicted.predictions]
    middle = int(np.argsort(lengths)[len(lengths) * 3 // 4])
    prediction = predicted.predictions[middle]
    source = predictor.encode_input(prediction.input)
    target = prediction.ids
    tokens = torch.from_numpy(np.concatenate([source, target]).astype(np.int64))[None]
    with torch.inference_mode():
        maps_HDI = model.cross_attention(tokens)[-1]
    label = run.tokenizer.label
    end = label(predictor.tokenizer.boundary_id or 0)
    return (
        maps_HDI[:MAX_HEADS].numpy(),
        [*map(label, target.tolist()), end],
        list(map(label, source[:-1].tolist())),
        prediction.input,
    )


def draw_attention(
    maps_HDI: NDArray[np.float32], rows: Sequence[str], columns: Sequence[str], theme: Theme
) -> Figure:
    """Draw the attention of each position of a target to the positions of an input, by head."""
    width = max(2.2, min(4.5, 0.28 * len(columns) + 0.6))
    height = max(1.6, min(5.0, 0.28 * len(rows) + 0.8))
    figure = Figure(figsize=(width * min(2, len(maps_HDI)), height * -(-len(maps_HDI) // 2)))
    for head, map_DI in enumerate(maps_HDI):
        axes = figure.add_subplot(-(-len(maps_HDI) // 2), min(2, len(maps_HDI)), head + 1)
        axes.imshow(map_DI, cmap=theme.colormap, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 12 else 0)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0, labelsize=7, labelcolor=theme.ink)
        axes.spines[:].set_visible(False)
        axes.set_title(f"head {head + 1}", fontsize=9, color=theme.ink)
    return figure
