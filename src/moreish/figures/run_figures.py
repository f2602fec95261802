"""The figures of a run: each in a light and a dark version.

V vocabulary, M tokens shown, C width, T time.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from moreish.errors import MoreishError
from moreish.evaluate import (
    attention_maps,
    bigram_counts,
    bigram_probabilities,
    context_counts,
    evaluate_losses,
    find_transformer,
    token_embedding,
    tokens_by_frequency,
)
from moreish.figures import plots
from moreish.figures.ladder_plot import ladder
from moreish.figures.layer_statistics import layer_statistics
from moreish.figures.style import THEMES, Theme, save, use_theme
from moreish.models import Mixture
from moreish.reports import RunFigure
from moreish.runs import Run
from moreish.training import LRRange

MAX_ATTENTION_TOKENS = 24
"""The text whose attention is drawn is cut to this length."""

MIXTURE_NOTE = (
    " The training loss is that of the network alone. For validation, network and counts have "
    "equal weight until the weight is fitted at the end."
)


class Plot(NamedTuple):
    """What a figure shows, before it is drawn."""

    name: str
    title: str
    caption: str
    draw: Callable[[Theme], Figure]


def make_figures(run: Run, folder: Path, text: str | None = None) -> list[RunFigure]:
    """Draws all figures that the model of a run has.

    Args:
        run: the run.
        folder: receives NAME.svg and NAME-dark.svg.
        text: whose attention and surprisal are drawn; None: the start of the validation split.
    """
    figures = []
    for plot in _plots(run, text):
        light, dark = (folder / f"{plot.name}{suffix}.svg" for _, suffix in THEMES)
        save_themed(plot.draw, light, dark)
        name, title, caption, _ = plot
        figures.append(RunFigure(name=name, title=title, caption=caption, light=light, dark=dark))
    return figures


def save_themed(draw: Callable[[Theme], Figure], *paths: Path) -> None:
    """Draws a figure in every theme, in the order of `THEMES`; fewer paths draw fewer of them."""
    for (theme, _), path in zip(THEMES, paths, strict=False):
        with use_theme(theme):
            save(draw(theme), path)


def _plots(run: Run, text: str | None) -> Iterator[Plot]:
    log = list(run.read_metrics())
    steps, evaluations = [e for e in log if "loss" in e], [e for e in log if "val" in e]
    if steps and evaluations:
        yield Plot(
            "loss",
            "Loss",
            "Pale: every logged step. If the validation loss rises while the training loss falls, "
            "the model is overfitting; the run keeps the weights of the lowest validation loss."
            + MIXTURE_NOTE
            * isinstance(run.model, Mixture),
            lambda theme: plots.loss_curves(steps, evaluations, theme),
        )
    if (test := LRRange.load(run.path)) is not None:
        yield Plot(
            "lr-range",
            "Learning-rate range test",
            "The test that chose the learning rate of this run: one training step of a new model "
            "at each rate.",
            lambda theme: plots.lr_range(
                test.rates, test.losses, test.smoothed, test.valley, test.suggested, theme
            ),
        )
    label, size = run.tokenizer.label, run.tokenizer.vocab_size
    ids_N = run.split("train").ids_N
    by_frequency_V = tokens_by_frequency(context_counts(ids_N, size))
    shown_M = np.sort(by_frequency_V[: plots.MAX_TABLE_SIZE])
    names = [label(int(token)) for token in shown_M]
    counts_MM = bigram_counts(ids_N, shown_M, size)
    yield Plot(
        "pairs-counted",
        "Token pairs in the training data",
        "Row: a token; column: the token after it."
        + " The first row shows how items begin, the first column how they end."
        * (run.kind == "lines"),
        lambda theme: plots.pair_table(counts_MM, names, theme, counts=True, vocab_size=size),
    )
    p_MM = bigram_probabilities(run.model, shown_M)
    yield Plot(
        "pairs-expected",
        "Token pairs that the model predicts",
        "The model's probability of the next token after a single token, in percent. Differences "
        "from the counts come from smoothing, or from a model that relies on longer contexts.",
        lambda theme: plots.pair_table(p_MM, names, theme, counts=False, vocab_size=size),
    )
    if (weight_VC := token_embedding(run.model, size)) is not None:
        embedded = np.sort(by_frequency_V[:120])
        labels = [label(int(token)) for token in embedded]
        yield Plot(
            "embeddings",
            "Token embeddings",
            "Tokens that are close together are used alike. Vowels have another color.",
            lambda theme: plots.embeddings(weight_VC[embedded], labels, theme),
        )
    ids = _text_ids(run, text)
    if (network := find_transformer(run.model)) is not None:
        attended = ids[: min(MAX_ATTENTION_TOKENS, network.context)]
        if run.kind == "lines":  # every item is read from a fresh start, so one is enough
            starts = np.flatnonzero(attended == run.tokenizer.boundary_id)
            attended = max(np.split(attended, starts), key=len)
        maps = [maps_HTT.numpy() for maps_HTT in attention_maps(run.model, attended)]
        attended_labels = [label(int(token)) for token in attended]
        yield Plot(
            "attention",
            "Attention",
            "One square per head: the row is the token that attends, and strong cells are the "
            f"earlier tokens that it attends to. {plots.omitted_maps(maps)}The text is cut to "
            f"{MAX_ATTENTION_TOKENS} tokens.",
            lambda theme: plots.attention(maps, attended_labels, theme),
        )
    surprisals = _surprisals(run, ids)
    yield Plot(
        "surprisal",
        "Surprisal",
        "Tokens of a text that was not trained on. The stronger the color, the lower the "
        "probability that the model gave the token.",
        lambda theme: plots.surprisal(surprisals, theme),
    )
    if layers := layer_statistics(run):
        yield Plot(
            "layers",
            "Layer statistics",
            "From the input to the output: the standard deviation of each layer's output; the "
            "units of a tanh or sigmoid that are saturated, or of a ReLU or GELU that are inactive "
            "for a whole batch; the standard deviation of the gradient; and the size of one update "
            "at the peak learning rate relative to the weights, which should be about 0.001 "
            "(makemore, part 3).",
            lambda theme: plots.layer_statistics(layers, theme),
        )


def _text_ids(run: Run, text: str | None) -> np.ndarray:
    """Returns the tokens of the given text, or of the start of the validation split: whole items,
    or 400 tokens of running text."""
    if text is not None:
        ids = run.tokenizer.encode(run.handle_unknown(text, "error"))
        if len(ids) < 2:
            raise MoreishError(f"--text {text!r}: give at least two characters")
        edge = [run.tokenizer.boundary_id]
        return np.concatenate([edge, ids, edge]) if run.kind == "lines" else ids
    tokens = run.split("val")
    if run.kind == "text":
        return tokens.ids_N[:400].astype(np.int64)
    ends = tokens.boundaries[1:]
    first_end, short_ends = int(ends[0]), ends[ends < 160]
    last = max(first_end, int(short_ends[-1]) if len(short_ends) else 0)
    return tokens.ids_N[: last + 1].astype(np.int64)


@torch.inference_mode()
def _surprisals(run: Run, ids: np.ndarray) -> list[tuple[str, float]]:
    losses = evaluate_losses(run.model, replace(run.split("val"), ids_N=ids.astype(np.uint32)))
    labels = [run.tokenizer.label(int(token)) for token in ids[1:]]
    return [(label, float(loss)) for label, loss in zip(labels, losses, strict=True)]


def make_ladder_figure(rungs: list[dict[str, Any]], folder: Path) -> None:
    """Draws the losses and costs of a ladder to ladder.svg and ladder-dark.svg in `folder`."""
    paths = (folder / f"ladder{suffix}.svg" for _, suffix in THEMES)
    save_themed(lambda theme: ladder(rungs, theme), *paths)


def make_lr_range_figure(test: LRRange, path: Path) -> None:
    """Draws a learning-rate range test, in the light theme, to `path`."""
    save_themed(
        lambda theme: plots.lr_range(
            test.rates, test.losses, test.smoothed, test.valley, test.suggested, theme
        ),
        path,
    )
