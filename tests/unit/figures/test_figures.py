"""Figures and reports: every model has some, both themes are readable, pages are self-contained."""

import html
import itertools
import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn
from torch.nn import functional as F

from conftest import STORY, Moreish
from moreish import api
from moreish.data import catalog
from moreish.figures import make_figures, plots
from moreish.figures.ladder_plot import ladder
from moreish.figures.layer_statistics import LayerRecorder, layer_statistics
from moreish.figures.style import DARK, LIGHT, save, use_theme
from moreish.models import REGISTRY, CountBasedModel, model_class
from moreish.reports.html import MAX_FITTED_POINTS, tinted
from moreish.reports.run import run_report_html
from moreish.runs.run import Run
from moreish.training.events import ignore

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the pairs of 27 letters takes seconds."""
    monkeypatch.setattr(plots, "MAX_TABLE_SIZE", 8)


DRAWN = ("gpt", "kneser-ney")
OTHERS = sorted({n for n in REGISTRY if not REGISTRY[n].needs_examples} - set(DRAWN))


@pytest.mark.parametrize(
    "model", [*DRAWN, *(pytest.param(name, marks=pytest.mark.soak) for name in OTHERS)]
)
def test_every_model_has_figures(model: str, tmp_path: Path) -> None:
    source = tmp_path / "names.txt"
    source.write_text("\n".join(a + b + c for a in "abe" for b in "abc" for c in "cde"))
    counted = issubclass(model_class(model), CountBasedModel)
    budget = {} if counted else {"steps": 3}
    run = api.train(source, model=model, out=tmp_path / "run", report=ignore, **budget)
    names = {figure.name for figure in api.figures(run)}
    assert {"pairs-counted", "pairs-expected", "surprisal"} <= names
    assert ("loss" in names) == ("layers" in names) == (not counted)
    assert ("attention" in names) == (model in ("gpt", "hybrid", "lecture-gpt"))
    for path in (run.path / "figures").iterdir():
        ET.parse(path)  # noqa: S314 (our own file)
    if model in ACTIVATIONS:
        check_layer_statistics(layer_statistics(run), ACTIVATIONS[model])


ACTIVATIONS = {"rnn": "tanh", "lstm": "sigmoid", "wavenet": "tanh", "mlp": "tanh", "gpt": "gelu"}


def check_layer_statistics(layers: list[dict[str, Any]], activation: str) -> None:
    """The activation function is measured, and the matrices are updated."""
    activations = [layer for layer in layers if layer["name"].split(".")[-1] == activation]
    assert activations
    assert all(0 <= layer["inactive"] <= 1 for layer in activations)
    matrices = [layer for layer in layers if layer["update"] is not None]
    assert any(layer["update"] > 0 and layer["gradient"] > 0 for layer in matrices)
    assert layers[0]["name"].endswith("embedding")  # in order of execution


def test_the_table_is_a_heat_map_of_the_counts(tmp_path: Path) -> None:
    counts = np.array([[0, 3], [12, 1500]])
    draw = partial(plots.pair_table, counts, ["a", "b"], counts=True, vocab_size=2)
    for theme in (LIGHT, DARK):
        with use_theme(theme):
            axes, bar = draw(theme).axes
        shown = axes.get_images()[0]
        assert shown.get_array().tolist() == [[0.5, 3], [12, 1500]]  # on a logarithmic scale
        assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
        assert bar.get_xlabel() == "count"
        save(draw, theme, tmp_path / "t.svg")
        assert theme.paper in (tmp_path / "t.svg").read_text()


@pytest.mark.parametrize("name", ["small_run", "text_run"])
def test_no_letter_of_a_figure_is_tiny(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a phone (358 pixels for a figure that shrinks) no text is smaller than 7 pixels, and no
    label is cut."""
    monkeypatch.setattr(plots, "MAX_TABLE_SIZE", 30)
    run = request.getfixturevalue(name)
    for figure in make_figures(run, tmp_path):
        if figure.tokens:  # shown as text
            continue
        text = figure.light.read_text("utf-8")
        points = float(re.search(r'width="([\d.]+)pt"', text).group(1))
        shrunk = min(1.0, 358 / (points * 4 / 3)) if points <= MAX_FITTED_POINTS else 1.0
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)]
        assert sizes and min(sizes) * 4 / 3 * shrunk >= 7, figure.name
        assert "…" not in text


def test_the_strongest_pairs_are_in_words(small_run: Run, tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in make_figures(small_run, tmp_path)}
    counted, expected = figures["pairs-counted"].notes, figures["pairs-expected"].notes
    assert len(counted) == len(expected) == 10
    ids = small_run.split("train").ids_N[:].astype(int)
    label = small_run.tokenizer.label
    pairs = Counter(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    frequent = Counter(ids[:-1].tolist())
    shown = [token for token, _ in frequent.most_common(8)]
    (a, b), count = max(
        ((p, n) for p, n in pairs.items() if p[0] in shown and p[1] in shown), key=lambda x: x[1]
    )
    words = (
        f"begins with “{label(b)}”" if label(a) == "·" else
        f"ends with “{label(a)}”" if label(b) == "·" else f"“{label(a)}”, then “{label(b)}”"
    )  # fmt: skip
    assert counted[0].startswith(f"{words}: {count:,} times, {count / frequent[a]:.0%} of ")
    shares = [int(re.search(r": (\d+)%", note).group(1)) for note in expected]
    assert shares == sorted(shares, reverse=True)


def test_the_loss_is_one_panel(small_run: Run) -> None:
    history = [record for record in small_run.history() if "loss" in record]
    steps = [{"step": r["step"], "loss": r["loss"]} for r in history]
    evaluations = [e for e in small_run.read_metrics() if "val" in e]
    with use_theme(LIGHT):
        (axes,) = plots.loss_curves(steps, evaluations, LIGHT, guess=3.3).axes
        (log,) = plots.loss_curves(steps, evaluations, LIGHT, log=True).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    assert (log.get_xscale(), log.get_yscale()) == ("log", "log")
    best = min(e["val"]["loss"] for e in evaluations)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["training (smoothed)", f"validation (lowest: {best:.3f})"]


@pytest.mark.soak
def test_large_vocabularies_show_their_most_frequent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "MAX_TABLE_SIZE", 40)  # of 300
    source = tmp_path / "wide.txt"
    letters = [chr(0x4E00 + place) for place in range(300)]
    # The first letters are the most frequent; of these, each is followed by itself once more.
    source.write_text("".join(c * (400 - i) for i, c in enumerate(letters)), encoding="utf-8")
    run = api.train(source, model="ngram", kind="text", out=tmp_path / "r", report=ignore)
    figures = {figure.name: figure for figure in api.figures(run)}
    shown = figures["pairs-counted"].light.read_text("utf-8")
    assert f"(40 most frequent of {run.tokenizer.vocab_size})" in shown
    assert f">{letters[0]}<" in shown and f">{letters[39]}<" in shown
    assert "399 times" in figures["pairs-counted"].notes[0]  # how often the first follows itself
    assert f">{letters[40]}<" not in shown


def test_two_dimensional_embeddings_are_shown_as_they_are() -> None:
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -1.0]])
    with use_theme(LIGHT):
        axes = plots.embeddings(points, ["a", "b", "c"], LIGHT).axes[0]
        assert axes.get_xlabel() == "dimension 1"
        assert np.array_equal(axes.collections[0].get_offsets(), points)
        wide = np.random.default_rng(0).normal(size=(20, 8)) * [5, 1, 1, 1, 1, 1, 1, 1]
        label = plots.embeddings(wide, list("abcdefghijklmnopqrst"), LIGHT).axes[0].get_xlabel()
    share = int(re.search(r"(\d+)% of the variance", label).group(1))
    centered = wide - wide.mean(0)
    values = np.linalg.eigvalsh(centered.T @ centered)
    assert share == round(100 * values[-1] / values.sum())


@pytest.mark.parametrize("costs", [(0.7, 5.9, 6.2), (100.0, 2e4, 1e6), (3.0, 3.1, 3.2)])
def test_points_of_a_ladder_are_labeled_beside_them(costs: tuple[float, ...]) -> None:
    rungs = [
        {"rung": name, "splits": {"val": {"loss": loss, "stderr": 0.01}}, "counted": False,
         "stated": None, "parameters": cost, "seconds": cost}
        for name, loss, cost in zip(("mlp", "bigram", "kneser-ney"), (2.0, 2.1, 0.9), costs,
                                    strict=True)
    ]  # fmt: skip
    with use_theme(LIGHT):
        figure = ladder(rungs, LIGHT)
        FigureCanvasAgg(figure).draw()
        for axes in figure.axes[1:]:
            assert {text.get_text() for text in axes.texts} == {"mlp", "bigram", "kneser-ney"}
            points = axes.transData.transform(axes.collections[0].get_offsets())
            for text in axes.texts:
                box = text.get_window_extent()
                assert not any(box.contains(*point) for point in points), text
            ticks = [t for t in axes.get_xticklabels() if t.get_text() and t.get_visible()]
            low, high = axes.get_xlim()
            boxes = [t.get_window_extent() for t in ticks if low <= t.get_position()[0] <= high]
            assert boxes
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("label", "is_vowel"),
    [("a", True), ("Ü", True), ("é", True), ("u\u0308", True), ("ø", True), ("ñ", False),
     ("ß", False), ("", False), ("·", False), ("ae", False)],
)  # fmt: skip
def test_vowels_have_accents(label: str, is_vowel: bool) -> None:
    assert plots.is_vowel(label) == is_vowel


def test_text_on_cells_can_be_read() -> None:
    """Contrast of at least 4.5 to 1 on every shade of both themes (WCAG AA)."""

    def luminance(color: tuple[float, ...]) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for theme in (LIGHT, DARK):
        for share in np.linspace(0, 1, 60):
            ground = theme.colormap(share)
            ink = plots.readable_on(ground)
            rgb = tuple(int(ink[i : i + 2], 16) / 255 for i in (1, 3, 5))
            low, high = sorted((luminance(ground), luminance(rgb)))
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_smoothing() -> None:
    assert plots.smoothed(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    noisy = np.random.default_rng(0).normal(2, 1, 4000)
    assert plots.smoothed(noisy)[2000:].std() < 0.2


@pytest.mark.parametrize("name", ["text_run", pytest.param("small_run", marks=pytest.mark.soak)])
def test_reports_are_self_contained(
    moreish: Moreish, name: str, request: pytest.FixtureRequest
) -> None:
    original = request.getfixturevalue(name)
    run = Run.open(shutil.copytree(original.path, original.kind))
    result = moreish("report", run.path)
    assert result.status == 0, result.err
    page = (run.path / "report.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', page)
    assert "<script" not in page
    assert f"{run.scores['val'].loss:.4f}" in page
    for title in ("Loss", "Attention", "Settings", "Samples", "Logarithmic axes"):
        assert title in page
    # It begins with a sentence, samples and what the loss means.
    first = html.escape(run.sample(1, seed=0)[0].strip("\n"))
    sentence = f"{run.record.parameters:,} parameters learned from {run.record.data.name}"
    places = [page.index(part) for part in (sentence, first, "How good it is", "<h2>Loss")]
    assert places == sorted(places)
    loss = run.scores["val"].loss
    guess, pairs = run.baselines.values()
    assert f"a probability of {math.exp(-loss):.1%} on average" in page
    assert f"(guessing: {math.exp(-guess):.1%}, letter pairs: {math.exp(-pairs):.1%})" in page
    for number in (guess, pairs, loss):
        assert f">{number:.2f}<" in page


def test_the_loss_of_pairs_is_that_of_a_pair_model(small_run: Run, tmp_path: Path) -> None:
    source = small_run.path.parent / "names.txt"
    settings = {"model": {"name": "ngram", "order": 2, "add_k": 1}}
    counts = api.train(source, settings=settings, out=tmp_path / "run", report=ignore)
    assert small_run.baselines["letter pairs"] == pytest.approx(counts.scores["val"].loss, abs=1e-6)


@pytest.mark.parametrize(
    ("train", "val", "verdict"),
    [(1.0, 2.0, "1.00 lower than on validation: the model knows"),
     (1.8, 2.0, "0.20 lower than on validation, which is usual"),
     (2.0, 2.0, "about the same"), (2.2, 2.0, "0.20 higher than on validation"),
     (3.9, 2.0, "Warning: the training loss is above"), (1.0, 3.9, "worse than no model")],
)  # fmt: skip
def test_the_verdict_compares_training_and_validation(
    small_run: Run, tmp_path: Path, train: float, val: float, verdict: str
) -> None:
    run = Run.open(shutil.copytree(small_run.path, tmp_path / "copy"))
    facts = {"stderr": 0.01, "bits_per_char": 1, "bits_per_byte": 1, "perplexity": 1, "tokens": 9}
    run.update(splits={"train": {"loss": train, **facts}, "val": {"loss": val, **facts}})
    run.__dict__["model"] = small_run.model
    page = run_report_html(run, [])
    assert verdict in page


def test_the_verdict_names_the_row_it_compares_with(small_run: Run, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(small_run.path, tmp_path / "copy"))
    facts = {"stderr": 0.01, "bits_per_char": 1, "bits_per_byte": 1, "perplexity": 1, "tokens": 9}
    new = {"unseen_loss": 2.5, "unseen_stderr": 0.01, "unseen_tokens": 5}
    run.update(splits={"train": {"loss": 1.9, **facts}, "val": {"loss": 2.0, **facts, **new}})
    run.__dict__["model"] = small_run.model
    page = run_report_html(run, [])
    assert "The training loss is 0.60 lower than on new items" in page
    assert f"{math.exp(-2.0):.1%} on average" in page
    assert f", and on its new items {math.exp(-2.5):.1%}." in page


def test_a_text_is_tinted_by_surprisal_and_escaped() -> None:
    page = tinted([("<b>", 0.0), ("␣", 2.0), ("·", math.inf)])
    assert page == (
        '<div class=text><span style="--t:0">&lt;b&gt;</span><span style="--t:24"> </span>'
        '<span style="--t:70"> · </span></div>'
    )


@pytest.mark.soak
def test_figures_of_a_text(moreish: Moreish, small_run: Run) -> None:
    shutil.copytree(small_run.path, "lines")
    listed = moreish("figures", "lines", "--text", "emma", "--json").json["figures"]
    assert all(Path(path).exists() for path in listed)


@pytest.mark.soak
def test_equal_runs_have_equal_figures(small_run: Run, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(small_run.path, tmp_path / "copy"))
    first = {p.name: p.light.read_bytes() for p in api.figures(run)}
    assert {p.name: p.light.read_bytes() for p in api.figures(run)} == first


def test_the_ladder_has_a_report(moreish: Moreish, tmp_path: Path) -> None:
    Path("n.txt").write_text(
        "\n".join(catalog.load_dataset("names").split("\n")[:200]), encoding="utf-8"
    )
    result = moreish("ladder", "n.txt", "--minutes", "0.002", "--rungs", "counts,kneser-ney,head")
    assert "ladders/n/report.html" in result.out
    saved = json.loads(Path("ladders/n/ladder.json").read_text())
    saved_losses = {rung["rung"]: rung["splits"]["val"]["loss"] for rung in saved["rungs"]}
    page = Path("ladders/n/report.html").read_text()
    for word in ("kneser-ney", "head", "95 % intervals", "prefers-color-scheme"):
        assert word in page
    rows = re.findall(r"<tr><td>([a-z-]+)</td>", page)
    assert rows == sorted(saved_losses, key=saved_losses.__getitem__)  # the best first
    assert ">stated<" not in page  # nothing is, on these data
    ET.parse("ladders/n/ladder.svg")  # noqa: S314 (our own file)


def test_a_range_test_can_be_drawn(moreish: Moreish) -> None:
    result = moreish("lr-range", "names", "--model", "bow", "--steps", 30, "--out", "r.svg")
    assert result.status == 0, result.err
    assert "suggested" in Path("r.svg").read_text()


@pytest.mark.soak
def test_items_as_long_as_paragraphs_have_a_report(moreish: Moreish) -> None:
    Path("p.txt").write_text("\n".join(f"{i} " + STORY.replace("\n", " ") for i in range(12)))
    moreish("train", "p.txt", "--as", "lines", "--model", "ngram", "--out", "p")
    assert moreish("report", "p").status == 0
    for text in ("", "a"):
        refused = moreish("figures", "p", "--text", text)
        assert refused.status == 2
        assert "at least two characters" in refused.err


def test_a_model_that_only_copies_has_a_report(moreish: Moreish) -> None:
    Path("l.txt").write_text("\n".join(f"item number {i}" for i in range(40)))
    settings = ("--set", "model.order=12", "--set", "model.add_k=0")
    moreish("train", "l.txt", "--model", "ngram", "--out", "l", *settings)
    assert moreish("report", "l").status == 0


def test_thresholds_of_saturated_and_dead_units() -> None:
    class Three(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.tanh() + F.relu(x) + torch.sigmoid(x)

    model = Three()
    x = torch.tensor([[[5.0, 0.1, -5.0, -0.1], [0.1, 0.1, -1.0, -0.1]]])
    with LayerRecorder(model) as recorder:
        model(x)
    assert recorder.layers["tanh"]["inactive"] == 2 / 8
    assert recorder.layers["relu"]["inactive"] == 2 / 4
    assert recorder.layers["sigmoid"]["inactive"] == 2 / 8
