"""The Predict view of the page, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from moreish import api
from moreish.runs.run import Run
from moreish.serve.server import Service
from moreish.training.events import ignore
from support.browser import Watched, accessibility_violations, chromium, launched
from support.example_data import TINY_ENCODER_DECODER, WORDS, write_labels, write_pairs
from support.layout_checks import flaws
from support.serving import serving

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def labels(folder: Path) -> Run:
    return api.train(write_labels(folder / "labels.csv"), out=folder / "labels", report=ignore)


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Run:
    return api.train(
        write_pairs(folder / "pairs.jsonl"),
        model="encoder-decoder",
        steps=60,
        settings={"model": TINY_ENCODER_DECODER},
        out=folder / "pairs",
        report=ignore,
    )


@pytest.fixture(scope="module")
def service(labels: Run, pairs: Run, folder: Path) -> Iterator[Service]:
    chromium()
    (folder / "words.txt").write_text("\n".join(WORDS * 10))
    words = api.train(folder / "words.txt", model="ngram", out=folder / "words", report=ignore)
    with serving([labels.path, pairs.path, words.path]) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium()
    with launched() as browser:
        yield browser


@pytest.fixture
def watched(browser: Browser, service: Service) -> Iterator[Watched]:
    watched = Watched(browser, service.url)
    yield watched
    watched.close()


def test_models_of_examples_have_their_own_view(watched: Watched) -> None:
    page = watched.open("write/labels")
    expect(page.get_by_role("tab", name="Predict")).to_have_attribute("aria-selected", "true")
    for name in ("Generate", "List"):
        expect(page.get_by_role("tab", name=name)).to_be_hidden()
    page.locator("#model").select_option("words")
    expect(page.get_by_role("tab", name="Predict")).to_be_hidden()


def test_labels_with_probabilities_and_mistakes(watched: Watched, labels: Run) -> None:
    page = watched.open("predict/labels")
    expect(page.locator(".confusion th[scope=col]")).to_have_text(["bad", "good"])
    page.get_by_label("Inputs, one on each line").fill("black white gold\nwhite black gold")
    page.get_by_role("button", name="Predict", exact=True).click()
    expected = labels.predict(["black white gold", "white black gold"])
    expect(page.locator(".predictions > li")).to_have_count(2)
    targets = page.locator(".predictions .mapping .target")
    expect(targets).to_have_text([p.target for p in expected])
    expect(page.get_by_label("Search")).to_be_hidden()


def test_targets_of_text_show_what_they_attend_to(watched: Watched, pairs: Run) -> None:
    page = watched.open("predict/pairs")
    page.get_by_label("Inputs, one on each line").fill("redblue")
    page.get_by_label("Search").select_option("4")
    page.get_by_role("button", name="Predict", exact=True).click()
    (expected,) = pairs.predict("redblue", beams=4)
    expect(page.locator(".predictions .mapping .target").first).to_have_text(expected.target)
    page.get_by_text("Attention to the input").first.click()
    tokens = page.get_by_role("listbox", name="Tokens of the target")
    tokens.first.locator("[role=option]").first.hover()
    expect(page.locator(".predictions .readout").first).to_contain_text("attends to")


def test_errors_are_shown(watched: Watched) -> None:
    page = watched.open("predict/pairs")
    page.get_by_label("Inputs, one on each line").fill("xyz!")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".predict .main-column .error")).to_contain_text("vocabulary")
    watched.statuses.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 900, 390])
@pytest.mark.parametrize("model", ["labels", "pairs"])
def test_layout(browser: Browser, service: Service, model: str, width: int, theme: str) -> None:
    watched = Watched(
        browser, service.url, viewport={"width": width, "height": 900}, color_scheme=theme
    )
    page = watched.open(f"predict/{model}")
    expect(page.locator(".predictions > li").first).to_be_visible()
    expect(page.locator(".predict .lead")).to_contain_text("right")
    assert not flaws(page)
    assert not accessibility_violations(page)
    watched.close()
