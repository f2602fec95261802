"""The figures of a run: each in a light and a dark version.

V vocabulary, M tokens shown, C width, T time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from moreish import evaluate
from moreish.errors import MoreishError
from moreish.figures import plots
from moreish.figures.example_plots import example_plots
from moreish.figures.ladder_plot import ladder
from moreish.figures.layer_statistics import layer_statistics
from moreish.figures.style import DARK, LIGHT, Theme, save, use_theme
from moreish.models import Mixture
from moreish.reports import RunFigure
from moreish.runs import Run
from moreish.training import LRRange

MAX_ATTENTION_TOKENS = 16
"""The length to which the text of the attention figure is cut."""

PAIRS_IN_WORDS = 10
"""How many of the strongest pairs are described in words."""

BOUNDARY_LABEL = "·"

MIXTURE_NOTE = (
    " The training loss is that of the network alone. For validation, network and counts have "
    "equal weight until the weight is fitted at the end."
)


Draw = Callable[[Theme], Figure]


class Plot(NamedTuple):
    """What a figure shows, before it is drawn."""

    name: str
    title: str
    caption: str
    draw: Draw
    notes: Sequence[str] = ()
    tokens: Sequence[tuple[str, float]] = ()


def make_figures(run: Run, folder: Path, text: str | None = None) -> list[RunFigure]:
    """Draw all figures that the model of a run has.

    Args:
        run: the run.
        folder: receives NAME.svg and NAME-dark.svg.
        text: the text of the attention and surprisal figures; None: the start of the validation
            split.
    """
    figures = []
    for plot in _plots(run, text):
        light, dark = save_themes(plot.draw, folder, plot.name)
        facts = {key: value for key, value in plot._asdict().items() if key != "draw"}
        figures.append(RunFigure(**facts, light=light, dark=dark))
    return figures


def save_themes(draw: Draw, folder: Path, name: str) -> tuple[Path, Path]:
    """Draw a figure in the light and in the dark theme and return their paths."""
    paths = folder / f"{name}.svg", folder / f"{name}-dark.svg"
    for theme, path in zip((LIGHT, DARK), paths, strict=True):
        save(draw, theme, path)
    return paths


def _plots(run: Run, text: str | None) -> Iterator[Plot]:
    steps, evaluations = _logged_losses(run)
    if steps and evaluations:
        caption = (
            "Pale: every logged step. If the validation loss rises while the training loss falls, "
            "the model is overfitting; the run keeps the weights of the lowest validation loss."
            + (MIXTURE_NOTE if isinstance(run.model, Mixture) else "")
        )
        draw = partial(plots.loss_curves, steps, evaluations, guess=run.guessing_loss)
        yield Plot("loss", "Loss", caption, draw)
        yield Plot("loss-log", "Loss, logarithmic axes", caption, partial(draw, log=True))
    if (test := LRRange.load(run.path)) is not None:
        yield Plot(
            "lr-range",
            "Learning-rate range test",
            "The test that chose the learning rate of this run: one training step of a new model "
            "at each rate.",
            partial(plots.lr_range, test),
        )
    if run.kind == "examples":
        yield from (Plot(*drawing) for drawing in example_plots(run))
        return
    label, size = run.tokenizer.label, run.tokenizer.vocab_size
    ids_N = run.split("train").ids_N
    by_frequency_V = evaluate.tokens_by_frequency(evaluate.context_counts(ids_N, size))
    shown_M = np.sort(by_frequency_V[: plots.MAX_TABLE_SIZE])
    names = [label(int(token)) for token in shown_M]
    counts_MM = evaluate.bigram_counts(ids_N, shown_M, size)
    totals_M1 = evaluate.context_counts(ids_N, size)[shown_M, None]
    shares_MM = counts_MM / np.maximum(totals_M1, 1)
    p_MM = evaluate.bigram_probabilities(run.model, shown_M)
    yield Plot(
        "pairs-counted",
        "Token pairs in the training data",
        "Row: a token; column: the token after it."
        + " The first row shows how items begin, the first column how they end."
        * (run.kind == "lines"),
        partial(plots.pair_table, counts_MM, names, counts=True, vocab_size=size),
        _pairs_in_words(counts_MM, names, lambda a, b: (
            f"{counts_MM[a, b]:,} times, {shares_MM[a, b]:.0%} "
            + ("of items" if names[a] == BOUNDARY_LABEL else f"of what follows “{names[a]}”")
        )),
    )  # fmt: skip
    yield Plot(
        "pairs-expected",
        "Token pairs that the model predicts",
        "The model's probability of the next token after a single token, in percent. Differences "
        "from the counts come from smoothing, or from a model that relies on longer contexts.",
        partial(plots.pair_table, p_MM, names, counts=False, vocab_size=size),
        _pairs_in_words(p_MM, names, lambda a, b: (
            f"{p_MM[a, b]:.0%} (in the data {shares_MM[a, b]:.0%})"
        )),
    )  # fmt: skip
    if (weight_VC := evaluate.token_embedding(run.model, size)) is not None:
        embedded = np.sort(by_frequency_V[:120])
        labels = [label(int(token)) for token in embedded]
        yield Plot(
            "embeddings",
            "Token embeddings",
            "Tokens that are close together occur in similar contexts. Vowels have another color.",
            partial(plots.embeddings, weight_VC[embedded], labels),
        )
    ids = _text_ids(run, text)
    if (network := evaluate.find_transformer(run.model)) is not None:
        attended = ids[: min(MAX_ATTENTION_TOKENS, network.context)]
        if run.kind == "lines":  # every item is read from a fresh start, so one is enough
            starts = np.flatnonzero(attended == run.tokenizer.boundary_id)
            attended = max(np.split(attended, starts), key=len)
        maps = [maps_HTT.numpy() for maps_HTT in evaluate.attention_maps(run.model, attended)]
        attended_labels = [label(int(token)) for token in attended]
        yield Plot(
            "attention",
            "Attention",
            "One square per head: the row is the token that attends, and strong cells are the "
            f"earlier tokens that it attends to. {plots.omitted_maps(maps)}The text is cut to "
            f"{MAX_ATTENTION_TOKENS} tokens.",
            partial(plots.attention, maps, attended_labels),
        )
    surprisals = _surprisals(run, ids)
    yield Plot(
        "surprisal",
        "Surprisal",
        "Tokens of a text that was not trained on. The stronger the color, the lower the "
        "probability that the model gave the token.",
        partial(plots.surprisal, surprisals),
        tokens=surprisals,
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
            partial(plots.layer_statistics, layers),
        )


def _pairs_in_words(
    table_MM: np.ndarray, names: Sequence[str], describe: Callable[[int, int], str]
) -> list[str]:
    """Return a sentence about each of the strongest pairs, the strongest first."""
    order = np.argsort(-table_MM, axis=None, kind="stable")[:PAIRS_IN_WORDS]
    pairs = [divmod(int(place), len(names)) for place in order if table_MM.flat[place] > 0]
    return [f"{_pair_in_words(names[a], names[b])}: {describe(a, b)}" for a, b in pairs]


def _pair_in_words(before: str, after: str) -> str:
    """
    >>> _pair_in_words("q", "u"), _pair_in_words("·", "a"), _pair_in_words("n", "·")
    ('“q”, then “u”', 'begins with “a”', 'ends with “n”')
    """
    if before == BOUNDARY_LABEL:
        return f"begins with “{after}”" if after != BOUNDARY_LABEL else "is empty"
    return f"ends with “{before}”" if after == BOUNDARY_LABEL else f"“{before}”, then “{after}”"


def _text_ids(run: Run, text: str | None) -> np.ndarray:
    """Return the tokens of a text, or of the start of the validation split: whole items, or 400
    tokens of running text."""
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
    tokens = replace(run.split("val"), ids_N=ids.astype(np.uint32))
    losses = evaluate.evaluate_losses(run.model, tokens)
    labels = [run.tokenizer.label(int(token)) for token in ids[1:]]
    return [(label, float(loss)) for label, loss in zip(labels, losses, strict=True)]


class NotebookFigure(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_svg_(self) -> str:
        file = StringIO()
        self.savefig(file, format="svg")
        return file.getvalue()


def plot_losses(run: Run) -> Figure:
    """Draw the training and validation losses of a run, in the light theme.

    Raises:
        MoreishError: the run has no log of losses.
    """
    steps, evaluations = _logged_losses(run)
    if not steps or not evaluations:
        raise MoreishError(f"{run.path} has no log of losses to plot; its scores are in run.scores")
    with use_theme(LIGHT):
        return plots.loss_curves(
            steps,
            evaluations,
            LIGHT,
            guess=run.guessing_loss,
            figure_type=NotebookFigure,
        )


def _logged_losses(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the logged training steps and evaluations with finite losses."""
    log = list(run.read_metrics())
    evaluations = [e for e in log if "val" in e and e["val"]["loss"] is not None]
    return [e for e in log if e.get("loss") is not None], evaluations


def make_ladder_figure(rungs: list[dict[str, Any]], folder: Path) -> None:
    """Draw the losses and costs of a ladder to ladder.svg and ladder-dark.svg in `folder`."""
    save_themes(partial(ladder, rungs), folder, "ladder")


def make_lr_range_figure(test: LRRange, path: Path) -> None:
    """Draw a learning-rate range test, in the light theme, to `path`."""
    save(partial(plots.lr_range, test), LIGHT, path)
