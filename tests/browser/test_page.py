"""The web page in a real browser."""

import itertools
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import matplotlib.image
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from moreish.runs.run import Run
from moreish.serve.app import PAGE
from moreish.serve.http.errors import ApiError
from moreish.serve.jobs.schemas import (
    DoctorResponse,
    PlanRequest,
    RunInfo,
    TrainingStatus,
    TrainRequest,
)
from moreish.serve.jobs.uploads import is_valid_name
from moreish.serve.native.schemas import HistoryResponse, LoggedSample
from moreish.serve.server import Service
from support.browser import Watched, accessibility_violations, chromium, launched
from support.hostile_strings import HOSTILE, UNSEEN
from support.layout_checks import flaws
from support.serving import NAMES, STORY, make_runs, serving, wait_until

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too

VIEWS = {
    "write/story": ".next .bars li",
    "list/words": ".list .sampling",
    "inside/story/attention": ".chips [role=option]",
    "inside/story/embedding": ".point",
    "inside/story/pairs": ".pairs .bars li",
    "inside/story/history": ".history tbody tr",
}
"""For each view, an element that appears when it is complete."""

MODULES = sorted(PAGE.glob("*.js"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, small_run: Run) -> Iterator[Service]:
    chromium()
    runs = make_runs(tmp_path_factory.mktemp("runs"))
    with serving([*runs.values(), small_run.path]) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium()
    with launched() as browser:
        yield browser


Open = Callable[..., Watched]

GENEROUS_DEADLINE_S = 60


@pytest.fixture
def opened(browser: Browser, service: Service) -> Iterator[Open]:
    """Returns a function that opens a page of a server; its errors fail the test."""
    pages: list[Watched] = []

    def opened(url: str | None = None, **options: Any) -> Watched:
        pages.append(Watched(browser, url or service.url, **options))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


@pytest.fixture
def watched(opened: Open) -> Watched:
    return opened()


def tokens(page: Page) -> Locator:
    return page.locator(".write .strip [role=option]")


def texts(page: Page) -> str:
    return "".join(tokens(page).all_text_contents())


def with_control_pictures(text: str) -> str:
    """Return the text with its control characters as the page shows them."""
    return re.sub("[\0-\x08\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), text).replace(
        "\x7f", "␡"
    )


IN_ONE_LINE = str.maketrans("\n", "↵") | {
    code: 0x2400 + code for code in (*range(9), *range(11, 32))
}
"""Line breaks and control characters as the page shows them in one line."""


def generate(page: Page, prompt: str, max_tokens: int = 40, seed: int = 3) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Max tokens").fill(str(max_tokens))
    page.get_by_label("Seed", exact=True).fill(str(seed))
    generate_button(page).click()
    expect(page.locator(".write .status")).to_contain_text("Generated")


def generate_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Generate", exact=True)


def generate_long(page: Page) -> None:
    """Start a generation that does not end during a test."""
    page.get_by_label("Max tokens").fill("4000")
    generate_button(page).click()


def bodies(page: Page, path: str) -> list[dict[str, Any]]:
    """Return a list that collects the bodies of later POST requests to a path."""
    found: list[dict[str, Any]] = []
    page.on(
        "request",
        lambda request: urlsplit(request.url).path == path and found.append(request.post_data_json),
    )
    return found


# --- Generate ---


def test_generated_tokens_match_the_api_and_are_tinted(watched: Watched, service: Service) -> None:
    page = watched.open("write/story")
    generate(page, "The cat ", max_tokens=40, seed=3)
    asked = {"model": "story", "prompt": "The cat ", "max_tokens": 40, "seed": 3, "logprobs": 0}
    answer = httpx.post(f"{service.url}/v1/completions", json=asked).json()["choices"][0]
    shown = "The cat " + answer["text"]
    assert texts(page) == with_control_pictures(shown)
    whole_text = page.locator("section[aria-label='The text as a whole']")
    assert whole_text.text_content() == texts(page)
    sampled = tokens(page).evaluate_all(
        "all => all.slice(8).map(one => [one.textContent, Number(one.dataset.level)])"
    )
    for (text, level), log in zip(sampled, answer["logprobs"]["token_logprobs"], strict=True):
        assert level == min(7, math.floor(-log / math.log(2))), text
    assert len({level for _, level in sampled}) > 2, "the levels differ"
    # The title has the probability in words.
    tokens(page).nth(8).hover()
    expect(tokens(page).nth(8)).to_have_attribute("title", re.compile(r"%, \d.* bits, sampled"))


def test_a_character_of_several_tokens(watched: Watched) -> None:
    page = watched.open("write/story")
    generate(page, "Ünï € 😀", max_tokens=1)
    assert texts(page).startswith("Ünï € 😀")
    # Each byte is a token; the last byte shows the character.
    assert tokens(page).all_text_contents()[:2] == ["", "Ü"]


def test_choosing_another_token_continues_from_there(watched: Watched) -> None:
    page = watched.open("write/story")
    generate(page, "A dog ", max_tokens=30)
    before = tokens(page).all_text_contents()
    tokens(page).nth(12).click()
    bars = page.locator(".next .bars button")
    expect(page.locator(".next [aria-current=true] .token")).to_have_text(
        before[12].replace(" ", "␣")
    )
    expect(page.locator(".where .here")).to_contain_text("sampled")
    other = bars.locator(":scope:not([aria-current])").first
    label = other.locator(".token").inner_text()
    asked = bodies(page, "/api/write")
    other.click()
    expect(page.locator(".write .status")).to_contain_text("Generated 36 tokens")
    after = tokens(page).all_text_contents()
    assert after[:12] == before[:12] and after[12] == label.replace("␣", " ")
    assert len(after) == 13 + 30
    (body,) = asked
    assert bytes(body["prompt"]).decode("utf-8", "replace") == "".join(after[:13])
    expect(tokens(page).nth(12)).to_have_class("chosen")


def test_choosing_a_token_stops_the_current_generation(watched: Watched, service: Service) -> None:
    page = watched.open("write/story")
    page.get_by_label("Seed", exact=True).fill("5")
    generate_long(page)
    expect(tokens(page).nth(20)).to_be_attached()
    tokens(page).nth(10).click()
    page.get_by_label("Max tokens").fill("30")
    asked = bodies(page, "/api/write")
    expect(page.locator(".next [aria-current=true]")).to_be_visible()
    page.locator(".next .bars button:not([aria-current])").first.click()
    expect(page.locator(".write .status")).to_contain_text("Generated")
    expect(tokens(page)).to_have_count(41)
    answer = httpx.post(f"{service.url}/v1/completions", json={**asked[0], "echo": True}).json()
    assert texts(page) == with_control_pictures(answer["choices"][0]["text"])


def test_an_alternative_is_inserted_at_its_place(watched: Watched) -> None:
    page = watched.open("write/story")
    page.get_by_label("Prompt").fill("The cat ")
    generate_long(page)
    expect(tokens(page).nth(30)).to_be_attached()
    where, bars = page.locator(".write .where"), page.locator(".next .bars button")
    expect(where).to_have_text("After The cat ")
    page.get_by_label("Max tokens").fill("5")
    bars.nth(1).click()
    expect(page.locator(".write .status")).to_contain_text("Generated 5 tokens")
    expect(tokens(page)).to_have_count(8 + 1 + 5)
    expect(tokens(page).nth(8)).to_have_class("chosen")
    # The rows of the previous place still belong to it.
    expect(where).to_have_text(f"After the text: {texts(page).translate(IN_ONE_LINE)}")
    page.route("**/api/next", lambda route: None)
    tokens(page).nth(3).click()
    page.wait_for_timeout(200)
    expect(where).to_contain_text("After the text")
    bars.first.click()
    expect(page.locator(".write .status")).to_contain_text("Generated 10 tokens")
    expect(tokens(page).nth(14)).to_have_class("chosen")


def test_invalid_numbers_are_rejected(watched: Watched) -> None:
    page = watched.open("write/story")
    asked = bodies(page, "/api/write")
    start = generate_button(page)
    max_tokens, seed = page.get_by_label("Max tokens"), page.get_by_label("Seed", exact=True)
    error = page.locator(".write .main-column .error")
    seed.fill("1" * 20)
    start.click()
    expect(error).to_have_text("Seed must be a whole number of at most 9,007,199,254,740,991.")
    seed.fill("7")
    max_tokens.fill("0")
    start.click()
    expect(error).to_have_text("Max tokens must be a whole number of at least 1.")
    assert asked == []
    max_tokens.fill("99999")
    start.click()
    expect(error).to_have_text("Max tokens: 99,999 exceeds the limit of 4,096.")
    # An empty seed field then shows the seed that was used.
    seed.fill("")
    max_tokens.fill("3")
    start.click()
    expect(page.locator(".write .status")).to_contain_text("Generated 3 tokens")
    assert asked[-1]["seed"] == int(seed.input_value())


def test_switching_models_stops_the_generation(watched: Watched) -> None:
    page = watched.open("write/story")
    generate_long(page)
    expect(tokens(page).nth(5)).to_be_attached()
    page.locator("#model").select_option("words")
    expect(page.locator("#facts")).to_contain_text("ngram")
    page.wait_for_timeout(200)
    expect(page.locator(".write .status")).to_be_empty()
    expect(tokens(page)).to_have_count(0)
    expect(generate_button(page)).to_be_visible()


def test_copying(opened: Open, service: Service) -> None:
    watched = opened(permissions=["clipboard-read", "clipboard-write"])
    page = watched.open("write/story")
    generate(page, "Ünï\n€ 😀\t", max_tokens=5)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    expect(page.locator("#announcer")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("Ünï\n€ 😀\t") and with_control_pictures(copied) == texts(page)
    # Without the clipboard API, the page copies a selection.
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('no') } }")
    page.evaluate("localStorage.setItem('moreish.favorites.words', JSON.stringify(['a', 'b']))")
    page.locator("#model").select_option("words")
    page.get_by_role("tab", name="List").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "a\nb\n"


def test_a_hidden_page_gets_no_animation_frames(watched: Watched) -> None:
    page = watched.open("write/story")
    page.get_by_label("Max tokens").fill("4000")
    page.evaluate("window.requestAnimationFrame = () => 0")
    with page.expect_response("**/api/write"):
        page.get_by_label("Prompt").press("Control+Enter")
    page.wait_for_timeout(200)
    assert tokens(page).count() == 0
    # Tokens that have arrived and were not shown are not part of the next text.
    page.get_by_label("Max tokens").fill("3")
    page.get_by_label("Prompt").press("Control+Enter")
    expect(page.locator(".write .status")).to_contain_text("Generated")
    assert tokens(page).count() == 3


def test_an_item_ends_and_can_be_continued(watched: Watched) -> None:
    page = watched.open("write/words")
    generate(page, "an", max_tokens=40)
    expect(page.get_by_text("End of the text (the model generated its end token).")).to_be_visible()
    expect(page.get_by_role("button", name="Continue")).to_be_hidden()
    expect(page.locator(".next [aria-current=true] .token")).to_have_text("end")
    page.locator(".next .bars button").filter(has_not_text="end").first.click()
    expect(tokens(page).locator(":scope.chosen")).to_have_count(1)


def test_the_page_opens_with_items_or_a_passage(opened: Open, service: Service) -> None:
    watched = opened(reduced_motion="no-preference")
    page = watched.page
    page.goto(service.url)
    expect(page.locator(".item")).to_have_count(20)
    assert page.url.endswith("#/list/words"), "a list opens with its items"
    held: list[Any] = []
    page.route("**/api/write", lambda route: held.append(route))
    page.locator("#model").select_option("story")
    status = page.locator(".write .status")
    expect(status).to_have_text("Generating …")
    while not held:
        page.wait_for_timeout(25)
    page.get_by_label("Prompt").fill("The")  # typing stops the passage that began by itself
    expect(status).to_contain_text("Stopped after 0 tokens")
    expect(generate_button(page)).to_be_visible()
    page.unroute_all()
    page.get_by_label("Prompt").fill("")
    page.reload()
    expect(status).to_contain_text("Generated")
    beginnings = page.get_by_role("group", name="Begin with").get_by_role("button")
    expect(beginnings).to_have_text(["The cat sat"])
    page.get_by_label("Max tokens").fill("5")
    beginnings.click()
    expect(status).to_contain_text("Generated 5 tokens")
    expect(page.get_by_label("Prompt")).to_have_value("The cat sat ")
    assert texts(page).startswith("The cat sat ")


def test_no_passage_begins_by_itself_with_reduced_motion(watched: Watched) -> None:
    page = watched.page
    asked = bodies(page, "/api/write")
    watched.open("write/story")
    expect(page.get_by_role("group", name="Begin with")).to_be_visible()
    expect(page.locator(".next .bars li").first).to_be_visible()
    assert asked == []
    expect(generate_button(page)).to_be_visible()


def test_a_server_that_loads_models(watched: Watched, service: Service) -> None:
    page = watched.page
    models = httpx.get(f"{service.url}/api/models").json()
    watched.answer("/api/models", {**models, "models": [], "loading": 3})
    page.goto(f"{service.url}/#/write/story")
    expect(page.locator("#loading")).to_have_text("Loading 3 models …")
    words = [card for card in models["models"] if card["name"] == "words"]
    watched.answer("/api/models", {**models, "models": words, "loading": 2})
    expect(page.locator("#loading")).to_have_text("Loading 2 models …")
    watched.answer("/api/models", models)
    expect(page.locator("#facts")).to_contain_text("of story")
    expect(page.locator("#loading")).to_be_hidden()
    assert page.url.endswith("#/write/story"), "it waits for the model of the address"


def test_models_that_another_tab_deleted_or_renamed(watched: Watched, service: Service) -> None:
    models = httpx.get(f"{service.url}/api/models").json()
    songs = {**models["models"][0], "name": "songs", "kind": "text"}
    watched.answer("/api/models", {**models, "models": [*models["models"], songs]})
    page = watched.open("write/words")
    watched.answer("/api/models", models)
    page.locator("#model").select_option("songs")  # the menu of a tab that does not know
    names = [card["name"] for card in models["models"]]
    expect(page.locator("#model option")).to_have_text(names)
    expect(page.locator("#model")).to_have_value(names[0])
    expect(page.locator("main > .error")).to_have_text("There is no model “songs” any more.")
    generate(page, "a", max_tokens=4)
    expect(page.locator(".write .error")).to_have_text([""] * 2)
    page.locator("#model").select_option("story")
    expect(page.locator("main > .error")).to_be_empty()
    others = [card for card in models["models"] if card["name"] != "story"]
    watched.answer("/api/models", {**models, "models": others})
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#model")).not_to_have_value("story")


def test_the_facts_of_a_model(watched: Watched) -> None:
    page = watched.open("list/words")
    line, details = page.locator("#facts summary"), page.locator("#facts dl")
    expect(line.locator("span").first).to_have_text(f"Learned from {len(NAMES)} words")
    expect(line.locator("span").last).to_have_text(re.compile(r"^[\d.]+k? parameters$"))
    expect(details).to_be_hidden()
    line.press("Enter")
    expect(details).to_be_visible()
    expect(details).to_contain_text("Uniform guess")
    assert not accessibility_violations(page)
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    line.click()
    page.locator(".list .items").click(position={"x": 2, "y": 2})
    expect(details).to_be_hidden()
    page.locator("#model").select_option("story")
    expect(line).to_contain_text("Learned from 3.2k characters of story")


def test_a_second_bar_appears_with_other_settings(watched: Watched) -> None:
    page = watched.open("write/story")
    second, key = page.locator(".next .bar .model").first, page.locator(".next .key")
    expect(page.locator(".next .bars li").first).to_be_visible()
    expect(second).to_be_hidden()
    expect(key).to_be_hidden()
    settings = page.locator(".write .sampling").bounding_box()
    bars = page.locator(".next .bars").bounding_box()
    assert settings and bars and settings["y"] + settings["height"] <= bars["y"]
    slider = page.locator(".write .sampling").get_by_label("Temperature")
    slider.press("ArrowLeft")
    expect(second).to_be_visible()
    expect(key).to_be_visible()
    expect(page.locator(".next > .hint").last).to_contain_text("after sampling settings")
    slider.press("ArrowRight")
    expect(second).to_be_hidden()


def test_a_token_has_one_probability(watched: Watched, service: Service) -> None:
    page = watched.open("write/story")
    generate(page, "A dog ", max_tokens=10)
    body = {"model": "story", "prompt": "A dog ", "top": 40}
    found = httpx.post(f"{service.url}/api/next", json=body).json()
    for token in found["tokens"]:  # another computation, with other last digits
        token["p"] = token["q"] = token["p"] + 0.004
    found["tokens"][-1] |= {"p": 0.0, "q": 0.0}
    watched.answer("/api/next", found)
    tokens(page).nth(6).click()
    row = page.locator(".next .bars [aria-current=true]")
    name = tokens(page).nth(6).text_content()
    here = page.locator(".where .here")
    expect(here).to_contain_text(f"“{(name or '').replace(' ', '␣')}”: ")
    share = (here.text_content() or "").split(": ")[1].split(",")[0]
    expect(row.locator(".figure")).to_have_text(share)
    page.get_by_role("button", name="Show 40").click()
    last = page.locator(".next .bars li").last
    expect(last.locator(".figure")).to_have_text("0 %")
    assert last.locator(".bar .sampled").evaluate("one => one.getBoundingClientRect().width") == 0
    percent = "async all => all.map((await import('/text.js')).percent)"
    shares = [0, 1e-6, 0.00047, 0.055, 0.994, 0.99953, 0.999999, 1]
    assert page.evaluate(percent, shares) == [
        "0 %", "<0.01 %", "0.047 %", "5.5 %", "99.4 %", ">99.9 %", ">99.9 %", "100 %",
    ]  # fmt: skip


def test_a_chosen_token_stays_in_sight(opened: Open) -> None:
    page = opened(viewport={"width": 1280, "height": 500}).open("write/story")
    generate(page, "A dog ", max_tokens=900)
    tokens(page).nth(30).click()
    page.wait_for_selector(".next[aria-busy=false] .bars button")
    page.locator(".next .bars button:not([aria-current])").first.click()
    expect(page.locator(".write .status")).to_contain_text("Generated 924")
    expect(tokens(page).nth(30)).to_have_class("chosen")
    expect(tokens(page).nth(30)).to_be_in_viewport()


def test_blank_lines_at_the_start_leave_no_hole(watched: Watched) -> None:
    page = watched.open("write/story")
    generate(page, "\n\n\nA dog\n", max_tokens=5)
    expect(tokens(page).nth(1)).to_have_text("↵")
    expect(tokens(page).nth(8)).to_have_text("\n")
    top = "one => one.getBoundingClientRect().top"
    assert tokens(page).nth(0).evaluate(top) == tokens(page).nth(3).evaluate(top)
    expect(page.locator(".write .status")).to_have_text("Generated 5 tokens, 5 characters")


def test_a_reload_brings_the_passage_back(watched: Watched) -> None:
    page = watched.open("write/story")
    seed = page.get_by_label("Seed", exact=True)
    generate_button(page).click()
    expect(page.locator(".write .status")).to_contain_text("Generated")
    first, used = texts(page), seed.input_value()
    page.reload()
    generate_button(page).click()
    expect(page.locator(".write .status")).to_contain_text("Generated")
    assert (texts(page), seed.input_value()) == (first, used)
    generate_button(page).click()
    expect(seed).not_to_have_value(used)


def test_a_tapped_token_opens_a_sheet(opened: Open) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True).open("write/story")
    generate(page, "The cat ", max_tokens=60)
    sheet = page.get_by_role("region", name="Next token")
    expect(sheet).to_be_hidden()
    tokens(page).nth(60).tap()
    expect(sheet).to_be_visible()
    expect(sheet.get_by_role("heading")).to_be_focused()
    expect(sheet.locator(".here")).to_contain_text("sampled")
    expect(sheet.locator("[aria-current=true] .figure")).to_have_text(re.compile("%$"))
    token, box = tokens(page).nth(60).bounding_box(), sheet.bounding_box()
    assert token and box and token["y"] + token["height"] <= box["y"], "the sheet does not hide it"
    assert box["y"] + box["height"] == 844
    assert flaws(page) == []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert not accessibility_violations(page), scheme
    tokens(page).nth(50).tap()  # another token replaces its content
    expect(sheet).to_be_visible()
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(tokens(page).nth(50)).to_be_focused()
    tokens(page).nth(20).tap()
    page.get_by_role("button", name="Close: Next token").click()
    expect(sheet).to_be_hidden()
    tokens(page).nth(20).tap()
    page.get_by_label("Max tokens").fill("5")
    page.get_by_label("Prompt").tap()  # touching anything else closes it
    expect(sheet).to_be_hidden()
    tokens(page).nth(20).tap()
    expect(sheet.locator("[aria-current=true]")).to_be_visible()
    sheet.locator(".bars button:not([aria-current])").first.click()
    expect(sheet).to_be_hidden()
    expect(page.locator(".write .status")).to_contain_text("Generated")
    expect(tokens(page).nth(20)).to_have_class("chosen")


def test_a_text_is_saved_as_a_picture(opened: Open, tmp_path: Path) -> None:
    page = opened(color_scheme="light").open("write/story")
    save = page.get_by_role("button", name="Save as picture")
    expect(save).to_be_hidden()
    generate(page, "The cat sat on the mat.\n" * 3, max_tokens=40)
    with page.expect_download() as download:
        save.click()
    assert download.value.suggested_filename == "story.png"
    download.value.save_as(tmp_path / "story.png")
    pixels = matplotlib.image.imread(tmp_path / "story.png")[..., :3]
    height, width, _ = pixels.shape
    assert width == 1360 and height > 400
    colors = {tuple(color) for color in pixels[::2, ::2].reshape(-1, 3).tolist()}
    assert (1.0, 1.0, 1.0) in colors, "the ground of the text"
    tints = {color for color in colors if color[0] > 0.9 and color[2] < color[0] - 0.03}
    assert len(tints) >= 5, "the tints of the text"
    # The lines are where they are in the text: the third line is not empty, and all have a margin.
    ink = (pixels.sum(axis=2) < 1.0).any(axis=1)
    assert ink[80 + 2 * 68 : 80 + 3 * 68].any() and not ink[:80].any()


def test_sliders_change_the_probabilities(watched: Watched, service: Service) -> None:
    page = watched.open("write/story")
    page.get_by_label("Prompt").fill("The ")
    figures = page.locator(".next .figure")
    sliders = page.locator(".write .sampling")
    expect(page.locator(".write .where")).to_contain_text("The")

    def probabilities(**sampling: Any) -> list[float]:
        asked = {"model": "story", "prompt": "The ", "top": 12, **sampling}
        answer = httpx.post(f"{service.url}/api/next", json=asked).json()
        return [token["q"] for token in answer["tokens"]]

    def is_shown(shares: list[float]) -> None:
        for at, share in enumerate(shares[:3]):
            expected = f"{100 * share:.2g}".rstrip(".") if share >= 0.0001 else ""
            number = re.escape(f"{float(expected or 0):g}")
            expect(figures.nth(at)).to_have_text(re.compile(rf"^<?{number}"))

    is_shown(probabilities())
    sliders.get_by_label("Temperature").press("Home")
    expect(figures.first).to_have_text("100 %")
    sliders.get_by_label("Temperature").press("End")
    is_shown(probabilities(temperature=2.0))
    sliders.get_by_label("Top-k").press("Home")
    expect(figures.first).to_have_text("100 %")
    expect(sliders.get_by_label("Top-k")).to_have_attribute("aria-valuetext", "top 1")
    sliders.get_by_label("Top-k").press("End")
    for _ in range(10):
        sliders.get_by_label("Top-p").press("ArrowLeft")
    is_shown(probabilities(temperature=2.0, top_p=0.5))


def test_stop_frees_the_slot(watched: Watched, service: Service) -> None:
    page = watched.open("write/story")
    generate_long(page)
    expect(tokens(page).nth(5)).to_be_attached()
    engine = service.registry.find("story").engine
    assert engine.num_running == 1
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".write .status")).to_contain_text("Stopped after")
    wait_until(lambda: not engine.num_running)
    page.get_by_label("Max tokens").fill("3")
    count = tokens(page).count()
    page.get_by_role("button", name="Continue").click()
    expect(tokens(page)).to_have_count(count + 3)


def test_errors_appear_next_to_their_controls(watched: Watched) -> None:
    page = watched.open("write/words")
    page.get_by_label("Prompt").fill("Q!")
    generate_button(page).click()
    expect(page.locator(".write .main-column .error")).to_have_text(
        "Not in the model's vocabulary: 'Q' '!'."
    )
    expect(page.locator(".next .error")).to_have_text("Not in the model's vocabulary: 'Q' '!'.")
    assert set(watched.statuses) == {400}
    generate(page, "an")
    expect(page.locator(".write .main-column .error")).to_be_empty()


# --- List ---


def test_lists_are_labeled_filtered_and_starred(
    watched: Watched, service: Service, tmp_path: Path
) -> None:
    page = watched.open("list/words")
    known = set(NAMES)
    make = page.get_by_role("button", name=re.compile("^Generate 20"))
    items = page.locator(".item")
    expect(items).to_have_count(20)  # the view opens with items
    for item in items.all():
        text = item.locator(".text").inner_text()
        assert item.locator(".badge").inner_text() == ("known" if text in known else "new")
    page.get_by_label("Starts with").fill("b")
    page.get_by_label("Contains").fill("e")
    page.get_by_label("Ends with").fill("a")
    page.get_by_label("Length").fill("3..6")
    page.get_by_label("Matches (regex)").fill("b[a-z]+")
    page.get_by_label("New items only").check()
    page.get_by_label("No duplicates").uncheck()  # few items match: to find others would take long
    page.get_by_role("button", name="Clear").click()
    expect(items).to_have_count(0)
    make.click()
    expect(items.first).to_be_visible()
    for text in page.locator(".item .text").all_inner_texts():
        assert re.fullmatch("b[a-z]{1,4}a", text) and "e" in text and text not in known
    page.get_by_label("Matches (regex)").fill("[")
    make.click()
    expect(page.locator(".list .error").first).to_contain_text("regex")

    kept = page.locator(".item .text").first.inner_text()
    star = page.get_by_role("button", name=f"Keep {kept}", exact=True).first
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.locator(".favorites .text")).to_have_text([kept])
    assert page.url.endswith("#/list/words"), "a reload stays in the view"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as file").click()
    download.value.save_as(tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text("utf-8") == f"{kept}\n"
    assert download.value.suggested_filename == "words-favorites.txt"
    page.locator("#model").select_option("run")
    expect(page.locator(".favorites .text")).to_have_count(0)
    page.locator("#model").select_option("words")
    page.get_by_role("button", name=f"Remove {kept}", exact=True).click()
    expect(page.locator(".favorites .text")).to_have_count(0)


def test_a_list_has_no_duplicates(watched: Watched) -> None:
    page = watched.open("list/words")
    items = page.locator(".item")
    expect(items).to_have_count(20)
    for count in (40, 60):
        page.get_by_role("button", name="Generate 20 more").click()
        expect(items).to_have_count(count)
    assert len(set(page.locator(".item .text").all_inner_texts())) == 60
    page.get_by_role("button", name="Clear").click()
    expect(items).to_have_count(0)
    page.get_by_label("Starts with").fill("anana")
    page.get_by_label("Length").fill("5")
    for _ in range(2):  # only one item matches
        page.get_by_role("button", name=re.compile("^Generate 20")).click()
        expect(page.locator(".list .hint", has_text="were duplicates")).to_be_visible()
        expect(items).to_have_count(1)
    page.get_by_label("No duplicates").uncheck()
    page.get_by_role("button", name=re.compile("^Generate 20")).click()
    expect(items).to_have_count(21)


def test_two_tabs_share_favorites(watched: Watched) -> None:
    one = watched.open("list/words")
    two = watched.context.new_page()
    two.goto(one.url)
    wanted: list[str] = []
    for page in (one, two):
        expect(page.locator(".items")).to_have_attribute("aria-busy", "false")
        expect(page.locator(".item")).to_have_count(20)  # until then, new items replace the list
        texts = page.locator(".item .text").all_inner_texts()
        at = next(at for at, text in enumerate(texts) if text not in wanted)
        page.locator(".star").nth(at).dispatch_event("click")
        wanted.insert(0, texts[at])
    for page in (one, two):
        expect(page.locator(".favorites .text")).to_have_text(wanted)
    # A tab reads the stored favorites first; it gets no event for its own changes.
    one.evaluate("localStorage.setItem('moreish.favorites.words', JSON.stringify(['other']))")
    one.locator(".star").nth(1).dispatch_event("click")
    third = one.locator(".item .text").nth(1).inner_text()
    for page in (one, two):
        expect(page.locator(".favorites .text")).to_have_text([third, "other"])


def test_a_model_of_running_text_has_no_list(watched: Watched) -> None:
    page = watched.open("list/story")
    expect(page.get_by_role("tab", name="List")).to_be_hidden()
    expect(page.get_by_role("tab", name="Generate")).to_have_attribute("aria-selected", "true")


# --- Inspect ---


CELLS = """wanted => {
    const canvas = document.querySelector(".attention .matrix canvas");
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const at = (place, size) => Math.floor((place + 1.3) * size / 12);
    return wanted.map(([row, column]) => data[4 * (at(row, height) * width + at(column, width))]);
}"""
"""Returns the red channel of cells of a matrix of eleven tokens with a margin of one cell."""


def test_attention(watched: Watched, service: Service) -> None:
    page = watched.open("inside/story/attention")
    expect(page.locator(".chips [role=option]").first).to_be_visible()
    page.get_by_label("Text", exact=True).fill("The cat sat")
    chips = page.locator(".chips [role=option]")
    expect(chips).to_have_count(11)
    asked = {"model": "story", "text": "The cat sat", "layer": 1}
    maps = httpx.post(f"{service.url}/api/attention", json=asked).json()["maps"]
    page.get_by_role("group", name="Layer").get_by_role("button", name="2").click()
    page.get_by_role("button", name="Head 2").click()
    chips.nth(6).hover()
    strongest = max(range(7), key=lambda at: maps[1][6][at])
    readout = page.locator(".attention .readout")
    expect(readout).to_contain_text(
        f"“t” (7) attends to “{'The␣cat␣sat'[strongest]}” ({strongest + 1})"
    )
    strengths = chips.evaluate_all(
        "all => all.map(one => one.style.getPropertyValue('--strength'))"
    )
    for at in range(7):
        assert float(strengths[at]) == pytest.approx(math.sqrt(maps[1][6][at]), abs=0.01)
    expect(page.locator(".chips .painted")).to_have_count(7)
    # The matrix has the same strengths: 1 in the first cell, 0 above the diagonal.
    full, cell, none = page.evaluate(CELLS, [[0, 0], [6, 2], [2, 6]])
    share = (cell - none) / (full - none)
    assert share == pytest.approx(math.sqrt(maps[1][6][2]), abs=0.05)
    # The keyboard does the same.
    chips.nth(6).focus()
    page.keyboard.press("ArrowLeft")
    expect(readout).to_contain_text("“a” (6) attends to")
    matrix = page.locator(".attention .matrix")
    matrix.focus()
    page.keyboard.press("ArrowUp")
    expect(readout).to_contain_text("“c” (5) attends to")
    expect(matrix.locator("[role=status]")).to_contain_text("“c” (5) attends to “a” (6): 0 %")
    # A generated text is requested by its token ids, not by its characters.
    looked = bodies(page, "/api/attention")
    page.get_by_role("button", name="Generate a text").click()
    expect(page.get_by_label("Text", exact=True)).not_to_have_value("The cat sat")
    expect(chips).not_to_have_count(11)
    assert len(looked[0]["text"]) == chips.count() and set(map(type, looked[0]["text"])) == {int}


def test_attention_shows_the_generated_text(watched: Watched) -> None:
    page = watched.open("write/story")
    chips, field = page.locator(".chips [role=option]"), page.get_by_label("Text", exact=True)
    inside, back = (page.get_by_role("tab", name=name) for name in ("Inspect", "Generate"))
    for count in (3, 6):
        generate(page, "A dog\n", max_tokens=count)
        inside.click()
        expect(chips).to_have_count(6 + count)
        back.click()
    # A typed text stays until the generated text changes.
    inside.click()
    field.fill("The sea")
    expect(chips).to_have_count(7)
    back.click()
    inside.click()
    expect(field).to_have_value("The sea")
    back.click()
    generate_long(page)
    expect(tokens(page).nth(100)).to_be_attached()
    inside.click()
    expect(chips).to_have_count(64)
    expect(field).to_have_value(re.compile("^A dog\n"))
    part = page.locator(".attention .part").inner_text()
    found = re.fullmatch(r"Showing the last 64 of ([\d,]+) tokens\.", part)
    assert found and int(found[1].replace(",", "")) > 100
    back.click()
    page.get_by_role("button", name="Stop").click()
    inside.click()
    expect(page.locator(".attention .part")).to_contain_text("the last 64 of")
    back.click()
    shown = tokens(page).all_text_contents()[-64:]
    inside.click()
    labels = [text[-1:].replace(" ", "␣").replace("\n", "↵") for text in shown]
    seen = [text if "‹" not in text else None for text in chips.all_text_contents()]
    assert [text and label for label, text in zip(labels, seen, strict=True)] == seen


def test_embedding(watched: Watched, service: Service) -> None:
    page = watched.open("inside/story/attention")
    page.get_by_role("tab", name="Embedding").click()
    page.reload()  # stays in the part of the view
    expect(page.get_by_role("tab", name="Embedding")).to_have_attribute("aria-selected", "true")
    points = page.locator(".scatter .point")
    expect(points).to_have_count(256)
    box = points.filter(has_text=re.compile("^e$")).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".embedding [role=status]")).to_contain_text("occurs")
    # Bytes are marked, and the key explains them.
    names = page.locator(".embedding option").all_text_contents()
    assert len(set(names)) == 256 and {"‹c3›", "‹00›", "a", "␣"} <= set(names)
    key = page.locator(".inside > .hint").last
    expect(key).to_contain_text("‹e2› a byte that is part of a character")
    page.locator(".embedding select").select_option("a")
    expect(page.locator(".point.marked")).to_have_text("a")
    # The nearest neighbors are those of the whole vectors.
    found = httpx.get(f"{service.url}/api/embedding", params={"model": "story"}).json()["tokens"]
    a = next(token for token in found if token["label"] == "a")
    labels = [found[one["index"]]["label"].replace(" ", "␣") for one in a["neighbors"]]
    neighbors = page.locator(".neighbors .bars .token")
    expect(neighbors).to_have_text([label.replace("\n", "↵") for label in labels])
    figures = [f"{one['similarity']:.2f}" for one in a["neighbors"]]
    expect(page.locator(".neighbors .figure")).to_have_text(figures)
    page.locator(".neighbors .bars button").first.press("Enter")
    expect(page.locator(".point.marked")).to_have_text(labels[0].replace("\n", "↵"))
    expect(page.locator(".neighbors .bars button").first).to_be_focused()


def test_pairs(watched: Watched, service: Service) -> None:
    page = watched.open("inside/words/pairs")
    found = httpx.get(f"{service.url}/api/pairs", params={"model": "words"}).json()
    matrix = page.locator(".pairs .matrix").first
    expect(page.locator(".pairs .bars li").first).to_be_visible()
    most = max(itertools.chain(*found["counts"]))
    expect(page.locator(".pairs .readout")).to_contain_text(f"”: {most:,} times")
    matrix.focus()
    for key in ("ArrowUp", "ArrowLeft"):  # to the first pair
        for _ in found["labels"]:
            page.keyboard.press(key)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    pair = "".join(found["labels"][1]) * 2
    times = found["counts"][1][1]
    expect(page.locator(".pairs .readout")).to_contain_text(f"“{pair}”: {times} times")
    expect(page.locator(".pairs h2")).to_have_text(f"After {found['labels'][1]}")
    shares = [count / found["totals"][1] for count in found["counts"][1]]
    first = page.locator(".pairs .bars .figure").first
    expect(first).to_have_text(re.compile(f"^{float(f'{100 * max(shares):.2g}'):g} %"))


def test_comparing_two_runs(watched: Watched) -> None:
    page = watched.open("inside/story/history")
    curves = page.locator(".history .curve")
    expect(curves).to_have_count(2)
    page.get_by_label("run", exact=True).check()
    expect(page.locator(".history thead th")).to_have_text(["story", "run"])
    expect(page.locator(".history .curve.c1")).to_have_count(2)
    chart = page.get_by_label("Loss during training")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".history .readout")).to_contain_text("tokens")
    page.get_by_role("button", name="Settings that differ").click()
    expect(page.get_by_role("rowheader", name="model.width")).to_be_visible()
    page.get_by_label("run", exact=True).uncheck()
    expect(page.locator(".history thead th")).to_have_text(["story"])


def clones(watched: Watched, service: Service, **changes: dict[str, Any]) -> None:
    """Add copies of the story model with changes to their cards and logs."""
    models = httpx.get(f"{service.url}/api/models").json()
    story = next(card for card in models["models"] if card["name"] == "story")
    log = httpx.get(f"{service.url}/api/history", params={"model": "story"}).json()
    cards = [{**story, "name": name, **change.pop("card", {})} for name, change in changes.items()]
    watched.answer("/api/models", {**models, "models": [story, *cards]})
    for name, change in changes.items():
        watched.answer(f"/api/history?model={name}", {**log, **change})


def test_runs_with_other_lengths_and_tokenizers(watched: Watched, service: Service) -> None:
    clones(watched, service,
           large={"tokens_per_step": 2_000_000, "bits_per_byte": 0.5, "card": {"tokenizer": "bpe"}},
           old={"bits_per_byte": None, "card": {"tokenizer": "bpe"}})  # fmt: skip
    page = watched.open("inside/story/history")
    expect(page.locator(".history .axis")).to_have_text(["nats per token", "tokens"])
    page.get_by_label("large", exact=True).check()
    expect(page.locator(".history .axis")).to_have_text(["bits per byte", "tokens, logarithmic"])
    wide = page.locator(".history .curve.faint").evaluate_all(
        "all => all.map(one => one.getBBox().width)"
    )
    assert len(wide) == 2 and min(wide) > 100, wide
    log = httpx.get(f"{service.url}/api/history", params={"model": "story"}).json()
    last = log["evaluations"][-1]["val"]
    page.get_by_label("Loss during training").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    readout = page.locator(".history .readout.values")
    expect(readout).to_contain_text(f"large, validation {last * 0.5:.3f}")
    for _ in range(50):  # to the start, where the short run has values
        page.keyboard.press("ArrowLeft")
    first = log["evaluations"][0]["val"] * log["bits_per_byte"]
    expect(readout).to_contain_text(f"story, validation {first:.3f}")
    page.get_by_label("large", exact=True).uncheck()
    page.get_by_label("old", exact=True).check()
    unlike = "nats per token (different tokenizers: not comparable)"
    expect(page.locator(".history .axis")).to_have_text([unlike, "tokens"])


def test_many_runs_on_a_phone(opened: Open, service: Service) -> None:
    watched = opened(viewport={"width": 375, "height": 740})
    names = [f"story-number-{number}" for number in range(4)]
    clones(watched, service, **{name: {} for name in names})
    page = watched.open("inside/story/history")
    for name in names:
        page.get_by_label(name, exact=True).check()
    page.get_by_role("button", name="Settings that differ").click()
    expect(page.locator(".history thead th")).to_have_count(5)
    assert flaws(page) == []
    table = page.locator(".history .scroll")
    wide, seen = table.evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert wide > seen and page.evaluate("document.documentElement.scrollWidth") <= 375
    heading = page.get_by_role("rowheader", name="architecture")
    left = heading.bounding_box()
    table.evaluate("one => one.scrollLeft = 1000")
    assert heading.bounding_box() == left, "row headers stay visible"


# --- access and connection ---


def test_the_access_token(opened: Open, service: Service) -> None:
    paths = [service.registry.find("words").run.path]
    with serving(paths, token="sesame") as closed:
        watched = opened(closed.url)
        page = watched.page
        page.goto(closed.url)
        field = page.locator("#token-field")
        field.fill("open")
        page.keyboard.press("Enter")
        expect(page.locator("#token-error")).to_have_text("The token is not valid.")
        for _ in range(3):  # browsers let a second Escape close any dialog
            page.keyboard.press("Escape")
            expect(page.locator("#token")).to_be_visible()
        field.fill("ключ")  # not allowed in a header
        page.keyboard.press("Enter")
        expect(page.locator("#token-error")).to_have_text("The token is not valid.")
        expect(page.locator("#offline")).to_be_hidden()
        page.evaluate("sessionStorage.setItem('moreish.token', JSON.stringify('ключ'))")
        page.reload()
        field.fill("sesame")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#facts")).to_contain_text("ngram")
        page.get_by_role("tab", name="Generate").click()
        generate(page, "an")
        page.reload()
        expect(page.locator("#facts")).to_contain_text("ngram")
        assert set(watched.statuses) == {401}
        watched.context.close()  # so that the server does not wait for it


def test_reconnecting_to_the_server(watched: Watched) -> None:
    page = watched.open("write/words")
    page.route("**/api/**", lambda route: route.abort())
    page.route("**/healthz", lambda route: route.abort())
    generate_button(page).click()
    expect(page.locator(".write .main-column .error")).to_have_text("The server does not respond.")
    expect(page.locator("#offline")).to_be_visible()
    page.reload()
    expect(page.locator("#offline")).to_be_visible()
    expect(page.locator("#facts")).to_be_hidden()
    page.unroute_all()
    expect(page.locator("#offline")).to_be_hidden()
    expect(page.locator("#announcer")).to_have_text("The server is back.")
    expect(page.locator("#facts")).to_contain_text("ngram")
    generate(page, "an")


# --- hostile texts ---

BIDI = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

ALLOWED = set(
    re.findall(
        r"\w+",
        """a article aside bdi body button canvas circle code dd details dialog div dl dt fieldset
        figcaption figure footer form g h1 h2 h3 head header html input label legend li line link
        main meta noscript ol option output p path pre script section select small span strong
        summary svg symbol table tbody td text textarea th thead title tr ul use""",
    )
)


def assert_harmless(page: Page) -> None:
    """Check that no text became markup, and that nothing is wider than the page."""
    found = page.evaluate(
        """() => ({
            tags: [...new Set([...document.querySelectorAll("*")].map(one => one.localName))],
            scripts: [...document.scripts].map(one => one.getAttribute("src")),
            listeners: [...document.querySelectorAll("*")].flatMap(one => one.getAttributeNames()
                .filter(name => name.startsWith("on"))),
            links: [...document.querySelectorAll("a, [href]")].map(one => one.getAttribute("href")),
            pwned: window.pwned ?? null,
            globals: Object.keys(window).length - window.before - 1,
            polluted: Object.keys(Object.prototype).length,
            wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            title: document.querySelector("h1").textContent,
            text: document.body.innerText + document.title,
        })"""
    )
    assert set(found["tags"]) <= ALLOWED
    assert found["scripts"] == ["theme.js", "main.js"]
    assert found["listeners"] == [] and found["pwned"] is None and found["polluted"] == 0
    assert set(found["links"]) <= {"#panels", "favicon.svg", "base.css", "views.css", "#bite"}
    assert found["globals"] == 0 and found["title"] == "Moreish"
    assert found["wide"] <= 0, "the page is as wide as the window"
    assert not BIDI.search(found["text"])


has_surrogate = re.compile("[\ud800-\udfff]").search

NARROW = {"width": 360, "height": 740}


def test_hostile_texts_in_lists(opened: Open) -> None:
    assert len(HOSTILE) >= 300
    watched = opened(viewport=NARROW)
    page = watched.open("list/words")
    page.evaluate(
        "all => localStorage.setItem('moreish.favorites.words', JSON.stringify(all))", HOSTILE
    )
    items = [
        {"text": text, "known": at % 2 == 0, "nearest": HOSTILE[-at], "distance": at}
        for at, text in enumerate(HOSTILE)
    ]
    watched.answer("/api/list", {"items": items, "seed": 1})
    page.reload()
    kept = page.locator(".favorites .text")
    expect(kept).to_have_count(len(HOSTILE))
    expect(page.locator(".item")).to_have_count(20)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("No duplicates").uncheck()
    page.get_by_role("button", name="Generate 20").click()
    expect(page.locator(".item")).to_have_count(len(HOSTILE))
    assert_harmless(page)
    # Only invisible characters are replaced.
    for seen in (kept.all_text_contents(), page.locator(".item .text").all_text_contents()):
        for text, shown in zip(HOSTILE, seen, strict=True):
            if not has_surrogate(text) and not any(mark in text for mark in UNSEEN):
                assert shown == text
    # Stacked combining marks do not paint over other items.
    assert page.locator(".item").first.evaluate("one => getComputedStyle(one).contain") == "paint"


def test_hostile_tokens(opened: Open, service: Service) -> None:
    watched = opened(viewport=NARROW)
    models = httpx.get(f"{service.url}/api/models").json()
    story = next(card for card in models["models"] if card["name"] == "story")
    story |= {"data": HOSTILE[0], "architecture": HOSTILE[1], "tokenizer": HOSTILE[-1]}
    hostile = [{**story, "name": name} for name in HOSTILE[:40] if not BIDI.search(name)]
    watched.answer("/api/models", {**models, "version": HOSTILE[3], "models": [story, *hostile]})
    drawn = [
        {"id": at, "text": text if at % 3 else None, "label": text, "p": 0.1, "q": 0.1, "offset": 0,
         "top": []}
        for at, text in enumerate(HOSTILE)
    ]  # fmt: skip
    events = [{"place": 0, "text": one["text"], "tokens": [one], "finish": None} for one in drawn]
    watched.answer("/api/write", [*events, {"done": True, "usage": {}}])
    watched.answer("/api/next", {"tokens": drawn[:40], "rest": {"p": 0, "q": 0}, "vocabulary": 300})
    watched.answer("/api/beginnings", {"texts": HOSTILE[:3]})
    page = watched.open("write/story")
    expect(page.get_by_role("group", name="Begin with").get_by_role("button")).to_have_count(3)
    generate_button(page).click()
    expect(tokens(page)).to_have_count(len(HOSTILE))
    tokens(page).first.evaluate("one => one.click()")  # opens the sheet
    page.get_by_role("button", name="Show 40").click()
    assert_harmless(page)
    for at in range(0, len(HOSTILE), 30):
        tokens(page).nth(at).evaluate("one => one.click()")
        assert_harmless(page)
    for text in (HOSTILE[0], "\u202e", "x" * 500):
        watched.answer("/api/surprisal", {"error": {"message": text}}, status=400)
        page.get_by_label("Prompt").fill(text)
        generate_button(page).click()
        expect(page.locator(".write .main-column .error")).not_to_be_empty()
        assert_harmless(page)


def test_hostile_texts_in_the_inspect_view(opened: Open) -> None:
    watched = opened(viewport=NARROW)
    some = HOSTILE[:: len(HOSTILE) // 29][:30]
    table = [[1] * len(some)] * len(some)
    maps = [[[0.1] * len(some)] * len(some)] * 2
    watched.answer("/api/attention", {"tokens": some, "layers": 2, "heads": 2, "maps": maps})
    pairs = {"labels": some, "totals": [9] * len(some), "counts": table, "expected": table}
    watched.answer("/api/pairs", pairs)
    near = [{"index": at, "similarity": 0.5} for at in range(8)]
    points = [
        {"id": i, "label": t, "x": i, "y": -i, "count": 1, "neighbors": near}
        for i, t in enumerate(HOSTILE)
    ]
    watched.answer("/api/embedding", {"tokens": points, "explained_variance_ratio": [0.5, 0.1]})
    samples = [{"step": at, "text": text} for at, text in enumerate(HOSTILE)]
    watched.answer(
        "/api/history",
        {
            "steps": [{"step": 1, "loss": 1e9}, {"step": 2, "loss": None}],
            "evaluations": [{"step": 1, "train": None, "val": 0.5}],
            "samples": samples,
            "settings": {"model": {text[:99]: text for text in some}, "train": {}},
            "tokens_per_step": 10,
        },
    )
    for view, there in list(VIEWS.items())[2:]:
        page = watched.open(view)
        page.wait_for_selector(there, state="attached")
        if view.endswith("history"):
            page.get_by_role("button", name="All settings").click()
            page.get_by_label("Sample", exact=True).first.press("Home")
        assert_harmless(page)


# --- Train ---


COPIES = {"summary": "3 lines occur twice", "fix": "--dedup", "severity": "warning",
          "location": "line 2", "example": "<b>anna"}  # fmt: skip

HALF = TrainingStatus(
    name="words", step=50, steps=100, share=0.5, seconds_left=75, loss=2.5, val=2.6, val_step=50,
    model="gpt", parameters=12345, samples=[LoggedSample(step=50, text="anna")],
)  # fmt: skip

LOGGED = {
    "steps": [{"step": step, "loss": 3 - step / 100} for step in range(1, 50)],
    "evaluations": [{"step": 25, "train": None, "val": 2.8}],
    "samples": [{"step": 25, "text": "bob"}],
}


def stopped_runs(*names: str) -> list[RunInfo]:
    facts = {"model": "gpt", "data": "words", "created": "2026-01-01"}
    return [RunInfo(name=name, status="interrupted", can_resume=True, **facts) for name in names]


class Trains:
    """A page with simulated answers of a server that trains. The soak test has a real server."""

    def __init__(self, watched: Watched, service: Service) -> None:
        self.watched, self.page = watched, watched.page
        self.texts: list[dict[str, Any]] = []
        self.asked: list[TrainRequest] = []
        self.taken: set[str] = set()
        self.now = TrainingStatus()
        self.models = {**httpx.get(f"{service.url}/api/models").json(), "training": True}
        watched.answer("/api/models", self.models)
        self.examined([COPIES])
        watched.answer("/api/plan", {"lines": ["A hybrid of 300,000 parameters."]})
        history = {**LOGGED, "settings": {}, "tokens_per_step": 1}
        watched.answer("/api/training/history", HistoryResponse(**history).model_dump())
        self.route("/api/texts", self._upload)
        self.route("/api/training", self._train)
        self.route("/api/training/name", self._name)

    def route(self, path: str, answer: Callable[[Any], None]) -> None:
        self.page.route(lambda url: urlsplit(url).path == path, lambda route: answer(route))

    def examined(self, findings: list[Any], *notes: str) -> None:
        lines = ["words: a list of 2 lines", *notes, "", "ignored"]
        found = DoctorResponse(facts={}, findings=findings, lines=lines)
        self.watched.answer("/api/doctor", found.model_dump())

    def _upload(self, route: Any) -> None:
        if route.request.method == "POST":
            name = parse_qs(urlsplit(route.request.url).query)["name"][0]
            self.texts.append({"name": name, "bytes": len(route.request.post_data_buffer)})
            assert route.request.headers["content-type"] == "application/octet-stream"
            route.fulfill(json=self.texts[-1])
        else:
            route.fulfill(json={"texts": self.texts})

    def _name(self, route: Any) -> None:
        name = parse_qs(urlsplit(route.request.url).query)["name"][0]
        route.fulfill(json={"name": f"{name}-2" if name in self.taken else name})

    def _train(self, route: Any) -> None:
        if route.request.method == "POST":
            asked = TrainRequest(**route.request.post_data_json)
            if error := self._refusal(asked):
                return route.fulfill(status=error.status, json=error.body())
            self.asked.append(asked)
            self.taken.add(asked.name)
            self.now = HALF.model_copy(update={"status": "starting"})
        route.fulfill(json=self.now.model_dump())

    def _refusal(self, asked: TrainRequest) -> ApiError | None:
        if self.now.status == "training":
            return ApiError(409, f"{self.now.name!r} is being trained: stop it first", code="busy")
        if asked.name in self.taken:
            return ApiError(400, f"there is a {asked.name!r} already", param="name")
        return None

    def ends(self, status: str, **more: Any) -> TrainingStatus:
        """Simulate events that end with a status."""
        half = HALF.model_copy(update={"status": "training"})
        on = half.model_copy(update={"step": 60, "share": 0.6, "loss": 2.4})
        last = on.model_copy(update={"status": status, "seconds_left": None, **more})
        events = [state.model_dump(mode="json") for state in (half, on, last)]
        self.watched.answer("/api/training/events", events)
        return last

    def orders(self, verb: str, answer: str, *events: TrainingStatus) -> None:
        """Simulate the server's state from the moment training is stopped or resumed.

        The page asks for the state on its own every two seconds: it must never get one that
        contradicts the last answer.
        """

        def obey(route: Any) -> None:
            begun = HALF.model_copy(update={"status": answer})
            self.now = events[-1] if events else begun
            self.watched.answer("/api/training/events", [one.model_dump() for one in events])
            route.fulfill(json=begun.model_dump())

        self.route(f"/api/training/{verb}", obey)

    def open(self, text: str = "words.txt") -> Page:
        """Open the view and choose a text that was uploaded before."""
        self.texts.append({"name": text, "bytes": 9})
        page = self.watched.open("train")
        page.get_by_label("Or an earlier text").select_option(text)
        return page


@pytest.fixture
def trains(watched: Watched, service: Service) -> Trains:
    return Trains(watched, service)


def upload(page: Page, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    page.locator("#file").set_input_files(file)


def training_status(page: Page) -> Locator:
    return page.locator(".training .readout").first


def return_to_window(page: Page) -> None:
    """Simulate a user who returns to the window."""
    with page.expect_response(lambda answer: urlsplit(answer.url).path == "/api/training"):
        page.evaluate("window.dispatchEvent(new Event('focus'))")


def test_training_from_an_upload_to_generating(trains: Trains) -> None:
    watched, page = trains.watched, trains.page
    stopped = trains.ends("stopped", runs=stopped_runs("words"))
    watched.open("train")
    upload(page, "words.txt", b"anna\nbob\n")
    expect(page.locator(".findings li")).to_contain_text("3 lines occur twice")
    expect(page.locator(".findings .where")).to_have_text("line 2: <b>anna")
    expect(page.locator(".plan li")).to_have_text("A hybrid of 300,000 parameters.")
    assert trains.texts == [{"name": "words.txt", "bytes": 9}]
    plans = bodies(page, "/api/plan")
    page.get_by_label("Remove duplicates").check()
    page.get_by_label("Minutes").fill("0.5")
    page.locator(".train .plan-fields select").select_option("gpt")
    expect(page.get_by_label("Run name")).to_have_value("words")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(training_status(page)).to_have_text(
        "Stopped · gpt, 12,345 parameters · step 60 of 100 · loss 2.400 · validation 2.600"
    )
    choices = {"text": "words.txt", "minutes": 0.5, "model": "gpt", "dedup": True}
    assert trains.asked == [TrainRequest(**choices, name="words")]
    assert PlanRequest(**plans[-1]) == PlanRequest(**choices)
    samples = page.locator(".live li .sample")
    expect(samples).to_have_text(["anna", "bob"])
    trains.now = stopped
    page.reload()  # everything is restored
    expect(training_status(page)).to_contain_text(
        "Stopped · gpt, 12,345 parameters · step 60 of 100"
    )
    expect(page.locator(".findings li")).to_contain_text("3 lines occur twice")
    expect(samples).to_have_text(["anna", "bob"])
    # So is the curve, except for values that were reported and never logged.
    expect(page.locator(".training .dot")).to_have_count(2)
    way = page.locator(".training .curve.faint").get_attribute("d")
    assert way.count("L") == 49, way
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert not accessibility_violations(page), scheme
    # A resumed run reports new samples only; the earlier ones stay.
    new = [LoggedSample(step=55, text="carla")]
    trains.now = trains.ends("finished", step=95, early=True, best=1.958, best_step=55, samples=new)
    begun = HALF.model_copy(update={"status": "starting", "samples": []}).model_dump()
    watched.answer("/api/training/resume", begun)
    page.get_by_role("button", name="Resume words").click()
    expect(training_status(page)).to_contain_text("Stopped early")
    expect(page.locator(".training > .hint")).to_have_text(
        "Training stopped early because the validation loss did not improve after step 55. "
        "The weights of that step were saved: validation 1.958."
    )
    expect(samples).to_have_text(["carla", "anna", "bob"])
    page.get_by_role("button", name="Play with it").click()
    expect(page.get_by_role("tab", name="List")).to_have_attribute("aria-selected", "true")
    assert page.url.endswith("#/list/words")
    expect(page.locator(".item")).to_have_count(20)


def test_columns_of_a_table_are_chosen(trains: Trains) -> None:
    columns = ["english", "french", "<b>note"]
    trains.texts.append({"name": "pairs.csv", "bytes": 9, "columns": columns})
    page = trains.open()
    asked = bodies(page, "/api/plan")
    column, inputs, targets = (page.get_by_label(name, exact=True) for name in COLUMN_FIELDS)
    expect(column).to_be_hidden()
    text = page.get_by_label("Or an earlier text")
    text.select_option("pairs.csv")
    expect(column.locator("option")).to_have_text(["automatic", *columns])
    inputs.select_option("french")
    targets.select_option("english")
    expect_plan(page, asked, text="pairs.csv", input="french", target="english")
    page.reload()
    expect(inputs).to_have_value("french")
    expect(targets).to_have_value("english")
    column.select_option("<b>note")
    expect(inputs).to_have_value("")
    expect_plan(page, asked, text="pairs.csv", column="<b>note")
    text.select_option("words.txt")
    expect(column).to_be_hidden()
    expect_plan(page, asked, text="words.txt")


def expect_plan(page: Page, asked: list[dict[str, Any]], **fields: str) -> None:
    """Wait until the latest request for a plan has these fields and no others."""
    body = {"minutes": 1, "model": None, **fields}
    for _ in range(200):
        if asked[-1:] == [body]:
            return
        page.wait_for_timeout(50)
    assert asked[-1] == body


COLUMN_FIELDS = ["Column to learn", "Or inputs of examples", "Targets of examples"]


def test_new_requests_abort_old_ones_and_choices_survive_a_reload(trains: Trains) -> None:
    page, waiting = trains.page, []
    aborted: list[str] = []

    def until_waiting(count: int) -> None:
        for _ in range(400):
            if len(waiting) >= count:
                break
            page.wait_for_timeout(25)
        assert len(waiting) == count

    page.on("requestfailed", lambda request: aborted.append(urlsplit(request.url).path))
    trains.route("/api/plan", waiting.append)  # never answered
    trains.open()
    expect(page.locator(".working", has_text="Planning …")).to_be_visible()
    until_waiting(1)
    page.get_by_label("Minutes").fill("7")
    until_waiting(2)
    trains.watched.answer("/api/plan", {"lines": ["A small one."]})
    page.get_by_label("Read as").select_option("text")
    expect(page.locator(".plan li")).to_have_text("A small one.")
    assert aborted == ["/api/plan"] * 2
    expect(page.locator(".train .working")).to_have_text(["", "", ""])
    expect(page.locator(".train .error")).to_have_text([""] * 7)
    page.locator(".train .plan-fields select").select_option("mlp")
    page.get_by_label("Remove duplicates").check()
    page.get_by_label("Run name").fill("mine")
    trains.route("/api/doctor", waiting.append)
    page.reload()
    expect(page.locator(".working", has_text="Reading words.txt …")).to_be_visible()
    until_waiting(3)
    trains.examined([COPIES])
    plans = bodies(page, "/api/plan")
    page.reload()
    expect(page.get_by_label("Remove duplicates")).to_be_checked()
    expect(page.get_by_label("Run name")).to_have_value("mine")
    expect(page.locator(".plan li")).to_be_visible()
    choices = {"text": "words.txt", "minutes": 7, "model": "mlp", "kind": "text", "dedup": True}
    assert plans == [choices]
    # A new text resets the choices for the old one and aborts its reading.
    trains.route("/api/doctor", waiting.append)
    page.get_by_label("Read as").select_option("lines")
    until_waiting(4)
    trains.examined([])
    upload(page, "other.txt", b"anna")
    expect(page.locator(".plan li")).to_be_visible()
    assert plans[-1] == {"text": "other.txt", "minutes": 7, "model": "mlp"}
    expect(page.get_by_label("Run name")).to_have_value("other")
    assert aborted[-1] == "/api/doctor"
    page.get_by_label("Read as").select_option("lines")
    expect(page.locator(".plan li")).to_be_visible()
    upload(page, "other.txt", b"another")
    expect(page.get_by_label("Read as")).to_have_value("")


def test_runs_are_renamed_and_deleted(trains: Trains) -> None:
    page = trains.page
    done = RunInfo(name="words", status="finished", model="hybrid", data="words", loss=1.5,
                   parameters=2000, created="2026-01-02")  # fmt: skip
    longer = done.model_copy(update={"name": "longer", "can_resume": True})
    damaged = RunInfo(name="broken")
    asked: list[Any] = []

    def obey(action: str, runs: list[RunInfo]) -> None:
        def answer(route: Any) -> None:
            asked.append((action, route.request.post_data_json))
            trains.now = TrainingStatus(runs=runs)
            route.fulfill(json=trains.now.model_dump())

        trains.route(f"/api/training/{action}", answer)

    trains.now = TrainingStatus(runs=[done, longer, damaged])
    trains.watched.open("train")
    rows = page.locator(".run-list > li")
    expect(rows).to_have_count(3)
    facts = "hybrid · 2,000 parameters · trained on words · validation loss 1.500 nats per token"
    expect(rows.first.locator(".hint")).to_have_text(f"{facts} · finished")
    expect(rows.nth(1).get_by_role("button", name="Train 2 minutes longer longer")).to_be_visible()
    expect(rows.nth(2).locator(".hint")).to_have_text("damaged")
    assert not accessibility_violations(page)

    obey("resume", [done, longer, damaged])
    rows.nth(1).get_by_role("button", name="Train 2 minutes longer longer").click()
    expect(rows).to_have_count(3)
    wait_until(lambda: asked == [("resume", {"name": "longer", "minutes": 2})])

    # Renaming: an error is shown, and the name can be changed again.
    error = {"message": "new_name: a name may have letters", "param": "new_name"}
    trains.watched.answer("/api/training/rename", {"error": error}, status=400)
    page.get_by_role("button", name="Rename words").click()
    field = page.get_by_label("New name of words")
    expect(field).to_be_focused()
    expect(field).to_have_value("words")
    field.fill("a/b")
    field.press("Enter")
    expect(page.locator(".runs-section .error")).to_have_text("New name: a name may have letters.")
    field.press("b")
    expect(page.locator(".runs-section .error")).to_be_empty()
    field.press("Enter")
    expect(page.locator(".runs-section .error")).not_to_be_empty()
    field.press("Escape")
    expect(field).to_be_hidden()
    expect(page.get_by_role("button", name="Rename words")).to_be_focused()
    expect(page.locator(".runs-section .error")).to_be_empty()
    expect(rows.first.locator(".name")).to_have_text("words")
    renamed = done.model_copy(update={"name": "new"})
    obey("rename", [renamed, longer, damaged])
    page.get_by_role("button", name="Rename words").click()
    page.get_by_label("New name of words").fill("new")
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(rows.first.locator(".name")).to_have_text("new")
    expect(page.get_by_role("heading", name="Runs")).to_be_focused()
    expect(page.locator(".runs-section .error")).to_be_empty()

    # Deleting needs a confirmation, and nothing is deleted without one.
    obey("delete", [longer, damaged])
    page.get_by_role("button", name="Delete new").click()
    expect(rows.first).to_contain_text("Delete new and its model? This cannot be undone.")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(rows).to_have_count(3)
    expect(page.get_by_role("button", name="Delete new")).to_be_focused()
    page.get_by_role("button", name="Delete new").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(rows).to_have_count(2)
    expect(page.get_by_role("heading", name="Runs")).to_be_focused()
    assert asked == [
        ("resume", {"name": "longer", "minutes": 2}),
        ("rename", {"name": "words", "new_name": "new"}),
        ("delete", {"name": "new"}),
    ]


def test_favorites_and_the_selected_model_follow_a_new_name(trains: Trains) -> None:
    page = trains.page
    done = RunInfo(name="words", status="finished", model="ngram", data="words")
    trains.now = TrainingStatus(runs=[done])
    trains.watched.open("list/words")
    for at in (1, 4):
        page.locator(".star").nth(at).click()
    starred = page.locator(".favorites .text").all_text_contents()
    page.get_by_role("tab", name="Generate").click()
    page.get_by_label("Prompt").fill("an")
    expect(page.locator(".write .where")).to_have_text("After the text: an")  # it is stored
    page.get_by_role("tab", name="Train").click()

    def rename(route: Any) -> None:
        cards = trains.models["models"]
        models = [{**card, "name": card["name"].replace("words", "new words")} for card in cards]
        trains.watched.answer("/api/models", {**trains.models, "models": models[::-1]})
        trains.now = TrainingStatus(runs=[done.model_copy(update={"name": "new words"})])
        route.fulfill(json=trains.now.model_dump())

    trains.route("/api/training/rename", rename)
    items = [{"text": "anna", "known": None, "nearest": None, "distance": None}]
    trains.watched.answer("/api/list", {"items": items, "seed": 1})
    page.get_by_role("button", name="Rename words").click()
    page.get_by_label("New name of words").fill("new words")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_value("new words")
    assert page.url.endswith("#/train/new%20words")
    expect(page.locator("main > .error")).to_be_empty()
    page.get_by_role("tab", name="List").click()
    expect(page.locator(".favorites .text")).to_have_text(starred)
    page.get_by_role("tab", name="Generate").click()
    expect(page.get_by_label("Prompt")).to_have_value("an")

    def delete(route: Any) -> None:
        cards = [card for card in trains.models["models"] if card["name"] != "words"]
        trains.watched.answer("/api/models", {**trains.models, "models": cards})
        trains.now = TrainingStatus()
        route.fulfill(json=trains.now.model_dump())

    trains.route("/api/training/delete", delete)
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("button", name="Delete new words").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#model")).to_have_value("story")
    expect(page.locator("main > .error")).to_be_empty()


def test_pasted_texts_and_built_in_data_sets(trains: Trains) -> None:
    page = trains.watched.open("train")
    expect(page.get_by_role("heading", name="Give it a text.")).to_be_visible()
    field, use = page.get_by_label("Text to train on"), page.get_by_role("button", name="Use this")
    expect(use).to_be_hidden()
    expect(page.get_by_label("Or an earlier text")).to_be_hidden()
    plans = bodies(page, "/api/plan")
    for name in ("anna maria.txt", "anna maria-2.txt"):
        field.fill("anna maria\nbob\n")
        use.click()
        expect(page.get_by_label("Or an earlier text")).to_have_value(name)
        expect(field).to_have_value("")
        expect(use).to_be_hidden()
        expect(field).to_be_focused()
    assert trains.texts[0] == {"name": "anna maria.txt", "bytes": 15}
    expect(page.locator(".plan li")).to_be_visible()
    expect(page.get_by_label("Run name")).to_have_value("anna maria-2")
    with page.expect_request("**/api/plan"):
        page.get_by_role("button", name="Shakespeare", exact=True).click()
    assert plans[-1] == {"text": "shakespeare", "minutes": 1, "model": None}
    expect(page.get_by_label("Run name")).to_have_value("shakespeare")
    page.reload()
    expect(page.locator(".plan li")).to_be_visible()
    terms = "await import('/terms.js')"
    rename = f"async all => {{ const t = {terms}; return all.map(one => t.pastedName(one, [])); }}"
    odd = ["😀", "", "a/b\\c", " \n x", "x" * 99, "a.b c.", "字" * 50]
    for name in page.evaluate(rename, odd):
        assert is_valid_name(name), name


STORED_NAMES = {
    "Bob's poems.txt": "Bob_s poems.txt",
    "songs, 2024.txt": "songs_ 2024.txt",
    "[draft] lyrics.txt": "draft_ lyrics.txt",
    "Rock & Roll.txt": "Rock _ Roll.txt",
    "_notes.txt": "notes.txt",
    "what?.txt": "what_.txt",
    f"{'x' * 90}.txt": f"{'x' * 56}.txt",
    "字" * 90 + ".csv": "字" * 56 + ".csv",
    "😀.txt": "text.txt",
    "x.part": "x_part",
    "Beyonce\u0301.txt": "Beyoncé.txt",
    "हिन्दी गीत.txt": "हिन्दी गीत.txt",
    "plain.txt": "plain.txt",
}

DROP = """async ([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name));
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    const drop = document.querySelector(".drop");
    drop.dispatchEvent(new DragEvent("dragover", options));
    const over = drop.classList.contains("over");
    const event = new DragEvent("drop", options);
    drop.dispatchEvent(event);
    return [over, event.defaultPrevented, drop.classList.contains("over")];
}"""


def test_dropped_files_get_valid_names(trains: Trains) -> None:
    page = trains.watched.open("train")
    renamed = page.locator(".source .hint bdi")
    dropped = ["Bob's poems.txt", "Beyonce\u0301.txt", "plain.txt"]
    for file in dropped:
        assert page.evaluate(DROP, [file, STORY]) == [True, True, False]
        name = STORED_NAMES[file]
        expect(page.get_by_label("Or an earlier text")).to_have_value(name)
        is_renamed = name != unicodedata.normalize("NFC", file)
        expect(renamed).to_have_text([name] if is_renamed else [])
    assert [text["name"] for text in trains.texts] == [STORED_NAMES[file] for file in dropped]
    expect(page.locator(".plan li")).to_be_visible()
    expect(page.get_by_label("Remove duplicates")).to_be_visible()
    expect(page.get_by_label("Run name")).to_have_value("plain")
    expect(page.get_by_label("Encoding")).to_be_hidden()
    expect(page.locator(".train .error")).to_have_text([""] * 7)
    plain = "async all => all.map((await import('/terms.js')).plainName)"
    assert page.evaluate(plain, list(STORED_NAMES)) == list(STORED_NAMES.values())
    texts = [text for text in HOSTILE if not has_surrogate(text)]
    names = page.evaluate(plain, [*texts, *(f"{text}.txt" for text in texts)])
    for name in (*STORED_NAMES.values(), *names):
        assert is_valid_name(name), name


def test_an_available_run_name_is_suggested(trains: Trains) -> None:
    trains.taken = {"words"}
    trains.now = trains.ends("finished")
    page = trains.open()
    name = page.get_by_label("Run name")
    expect(name).to_have_value("words-2")
    name.fill("words")
    page.get_by_role("button", name="Train", exact=True).click()
    error = page.locator(".row", has=page.get_by_role("button", name="Train", exact=True))
    expect(error.locator(".error")).to_have_text("There is a 'words' already.")
    expect(error.locator(".error")).to_be_in_viewport()
    name.fill("mine")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(training_status(page)).to_contain_text("Finished")
    expect(error.locator(".error")).to_be_empty()
    expect(name).to_have_value("words-2")


def test_training_that_another_tab_started(trains: Trains) -> None:
    page = trains.open()
    train = page.get_by_role("button", name="Train", exact=True)
    train.wait_for()
    trains.now = HALF.model_copy(update={"status": "training", "name": "others"})
    trains.ends("finished", name="others")
    return_to_window(page)
    expect(page.get_by_role("heading", name="Training of others")).to_be_visible()
    trains.now = TrainingStatus()
    page.reload()
    train.wait_for()
    trains.now = HALF.model_copy(update={"status": "training", "name": "others"})
    held: list[Any] = []
    trains.route("/api/training/events", held.append)
    train.click()
    expect(page.get_by_role("heading", name="Training of others")).to_be_visible()
    error = page.locator(".row .error").last
    expect(error).to_have_text("'others' is being trained: stop it first.")
    expect(train).to_be_hidden()
    trains.now = trains.now.model_copy(update={"status": "finished"})
    while not held:
        page.wait_for_timeout(25)
    held[0].fulfill(
        body=f"data: {trains.now.model_dump_json()}\n\n", content_type="text/event-stream"
    )
    expect(train).to_be_enabled()
    expect(error).to_be_empty()


def test_validation_losses_are_drawn_at_their_steps(trains: Trains) -> None:
    def state(step: int, loss: float, **more: Any) -> TrainingStatus:
        half = {"status": "training", "step": step, "loss": loss, "steps": 400, "val": None}
        return HALF.model_copy(update={**half, "val_step": None, **more})

    first = {"val": 2.9, "val_step": 15}
    second = {"val": 2.9, "val_step": 54}
    events = [state(14, 3.0), state(15, 2.99, **first), state(50, 2.9, **first),
              state(54, 2.8, **second), state(60, 2.7, **second)]  # fmt: skip
    trains.now = events[0]
    held: list[Any] = []
    trains.route("/api/training/events", held.append)
    logged = {"steps": [], "evaluations": [], "samples": [], "settings": {}, "tokens_per_step": 1}
    trains.watched.answer("/api/training/history", HistoryResponse(**logged).model_dump())
    page = trains.watched.open("train")
    while not held:
        page.wait_for_timeout(25)
    body = "".join(f"data: {event.model_dump_json()}\n\n" for event in events)
    held[0].fulfill(body=body, content_type="text/event-stream")
    dots = page.locator(".training .dot")
    expect(dots).to_have_count(2)
    left, right = dots.evaluate_all("all => all.map(one => Number(one.getAttribute('cx')))")
    assert (left - 44) / (right - 44) == pytest.approx(15 / 54, abs=1e-3)
    expect(page.get_by_text("Thin line: training batches.")).to_be_visible()
    # When training has ended, the chart has what came too fast to be reported.
    evaluations = [{"step": step, "train": None, "val": 2.5} for step in (15, 54, 243, 324)]
    logged["evaluations"] = evaluations
    trains.watched.answer("/api/training/history", HistoryResponse(**logged).model_dump())
    trains.now = state(324, 2.6, status="finished", val=2.9, val_step=324, best=2.4, best_step=243)
    expect(training_status(page)).to_contain_text("step 324 of 400 · loss 2.600 · validation 2.400")
    expect(dots).to_have_count(4)


def test_the_plan_of_a_run_replaces_the_estimate(trains: Trains) -> None:
    page = trains.open()
    expect(page.locator(".plan .hint")).to_contain_text("This is an estimate")
    plan = ["At 500 tokens/s this machine reads the text once in 1 min.", "Plan: a GPT."]
    trains.now = trains.ends("finished", plan=plan, message=plan[1])
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator(".training .plan li")).to_have_text(plan)
    expect(page.locator(".training > .hint")).to_be_empty()


def test_nothing_of_the_previous_text_stays(trains: Trains) -> None:
    page, waiting = trains.page, []
    error = {"error": {"message": "the text is too short"}}
    trains.watched.answer("/api/plan", error, status=400)
    trains.texts.append({"name": "byte.txt", "bytes": 1})
    trains.open()
    trains.now = HALF.model_copy(update={"status": "failed", "message": "the loss is not finite"})
    return_to_window(page)
    expect(page.get_by_label("Or an earlier text").locator("option").nth(1)).to_have_text(
        "byte.txt (1 byte)"
    )
    train = page.get_by_role("button", name="Train", exact=True)
    expect(page.locator(".audit-and-plan .error").first).to_have_text("The text is too short.")
    expect(train).to_be_disabled()
    failure = page.get_by_role("heading", name="Training of words")
    expect(failure).to_be_visible()
    trains.route("/api/doctor", waiting.append)
    trains.texts.append({"name": "other.txt", "bytes": 9})
    upload(page, "other.txt", b"anna")
    expect(page.locator(".working", has_text="Reading other.txt …")).to_be_visible()
    expect(page.locator(".audit-and-plan")).to_be_hidden()
    expect(failure).to_be_hidden()
    return_to_window(page)
    expect(failure).to_be_hidden()
    trains.examined([])
    trains.route("/api/plan", waiting.append)
    page.get_by_label("Or an earlier text").select_option("words.txt")
    expect(page.locator(".working", has_text="Planning …")).to_be_visible()
    expect(page.locator(".train .error")).to_have_text([""] * 7)
    expect(train).to_be_enabled()
    trains.watched.answer("/api/plan", {"lines": ["A small one."]})
    page.get_by_label("Minutes").fill("2")
    expect(page.locator(".plan li")).to_have_text("A small one.")
    trains.route("/api/plan", waiting.append)
    page.get_by_label("Or an earlier text").select_option("byte.txt")
    expect(page.locator(".working", has_text="Planning …")).to_be_visible()
    expect(page.locator(".plan li")).to_have_count(0)


def test_new_samples_keep_the_selection(trains: Trains) -> None:
    stopped = {"status": "stopped", "runs": stopped_runs("aside", "words")}
    trains.now = HALF.model_copy(update=stopped)
    page = trains.open()
    sample = page.locator(".live .sample").first
    sample.evaluate("one => getSelection().selectAllChildren(one)")
    page.get_by_role("button", name="Resume aside").focus()
    trains.now = trains.now.model_copy(
        update={"samples": [*HALF.samples, LoggedSample(step=51, text="new")]}
    )
    return_to_window(page)
    expect(page.locator(".live .sample")).to_have_text(["new", "anna", "bob"])
    assert page.evaluate("getSelection().toString()").strip() == "anna"
    expect(page.get_by_role("button", name="Resume aside")).to_be_focused()


def test_messages_use_the_terms_of_the_page(trains: Trains) -> None:
    note = "it looks like a list, one item a line (if not: --as text)"
    trains.examined(
        [{**COPIES, "fix": "", "summary": "odd ones; --clean would delete them: 3"}], note
    )
    page = trains.open("photo.png")
    expect(page.locator(".train .hint p").last).to_have_text(
        "It looks like a list, one item a line (if not, read it as running text)"
    )
    expect(page.locator(".findings li")).to_contain_text("removing control characters would")
    encoding = page.get_by_label("Encoding")
    expect(encoding).to_be_hidden()
    what = "photo.png is not utf-8: byte 0x89 at offset 0;"  # no capital letter
    message = f"{what} name its encoding, which is hard to guess"
    error = {"message": message, "param": "encoding"}
    trains.watched.answer("/api/doctor", {"error": error}, status=400)
    page.get_by_label("Read as").select_option("lines")
    expect(page.locator(".source .error").last).to_have_text(
        f"{what} choose its encoding, which is hard to guess."
    )
    asked = bodies(page, "/api/doctor")
    trains.examined([])
    encoding.select_option("cp1252")
    expect(page.locator(".plan li")).to_be_visible()
    assert asked == [{"text": "photo.png", "kind": "lines", "encoding": "cp1252"}]
    # A suggested encoding is chosen at once.
    trains.examined([{**COPIES, "fix": "--encoding utf-16-le"}])
    encoding.select_option("")
    plans = bodies(page, "/api/plan")
    expect(encoding).to_have_value("utf-16-le")
    expect(page.locator(".plan li")).to_be_visible()
    assert plans[-1]["encoding"] == "utf-16-le"


def test_training_with_the_keyboard(trains: Trains) -> None:
    others = [card for card in trains.models["models"] if card["name"] != "words"]
    trains.watched.answer("/api/models", {**trains.models, "models": others})
    trains.ends("training")
    page = trains.open()
    expect(page.locator(".plan li")).to_be_visible()
    page.locator("#file").focus()
    for name in ("names", "Shakespeare"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    for label in (
        "Or an earlier text",
        "Remove duplicates",
        "Read as",
        "Minutes",
        "Model",
        "Run name",
    ):
        page.keyboard.press("Tab")
        expect(page.locator(".train").get_by_label(label)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_focused()
    expect(training_status(page)).to_contain_text("Training")
    stopped = {"status": "stopped", "runs": stopped_runs("aside", "words")}
    trains.orders("stop", "stopping", HALF.model_copy(update=stopped))
    page.keyboard.press("Enter")
    go_on = page.get_by_role("button", name="Resume words")
    expect(go_on).to_be_focused()
    trains.orders("resume", "starting")  # no event: the connection was cut
    page.keyboard.press("Enter")
    expect(stop).to_be_focused()
    # After the end, it takes a moment until the page knows the new model.
    trains.watched.answer("/api/models", trains.models)
    trains.ends("finished")
    trains.now = HALF.model_copy(update={"status": "training"})
    return_to_window(page)
    expect(training_status(page)).to_contain_text("Finished")
    trains.now = HALF.model_copy(update={"status": "finished"})
    expect(page.get_by_role("button", name="Play with it")).to_be_focused()


def test_after_training_the_focus_is_on_the_model(trains: Trains) -> None:
    others = [card for card in trains.models["models"] if card["name"] != "words"]
    trains.watched.answer("/api/models", {**trains.models, "models": others})
    done = stopped_runs("words")[0].model_copy(update={"status": "finished"})
    held: list[Any] = []
    trains.route("/api/training/events", held.append)
    trains.now = HALF.model_copy(update={"status": "training"})
    page = trains.watched.open("train")
    page.get_by_role("button", name="Stop").focus()
    while not held:
        page.wait_for_timeout(25)
    trains.now = HALF.model_copy(update={"status": "finished", "runs": [done]})
    trains.watched.answer("/api/models", trains.models)
    body = f"data: {trains.now.model_dump_json()}\n\n"
    held[0].fulfill(body=body, content_type="text/event-stream")
    expect(page.get_by_role("button", name="Play with it", exact=True)).to_be_focused()


def test_training_on_a_phone(opened: Open, service: Service) -> None:
    trains = Trains(opened(viewport=NARROW, has_touch=True), service)
    long = "anna" * 40
    finding = {**COPIES, "summary": long, "location": long, "example": f"{long} {long}"}
    trains.examined([finding, {**finding, "fix": "--clean"}], long)
    trains.watched.answer("/api/plan", {"lines": [f"model        {long}", "", "x  y"]})
    samples = [LoggedSample(step=50, text=f"{long}\n{long}")]
    trains.now = trains.ends("stopped", samples=samples, runs=stopped_runs("x" * 80), name="x" * 80)
    page = trains.open(f"{'x' * 76}.txt")
    page.locator(".plan .terms").first.wait_for()
    page.locator(".live li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert not accessibility_violations(page), scheme


@pytest.mark.soak
@pytest.mark.long
def test_training_on_a_real_server(opened: Open, tmp_path: Path) -> None:
    (text := tmp_path / "story.txt").write_text(STORY * 10, "utf-8")
    with serving([], home=tmp_path / "runs") as empty:
        watched = opened(empty.url)
        page = watched.page
        page.goto(empty.url)
        expect(page.get_by_role("tab", name="Train")).to_have_attribute("aria-selected", "true")
        page.locator("#file").set_input_files(text)
        expect(page.locator(".plan li").first).to_be_visible(timeout=60_000)
        page.get_by_label("Read as").select_option("text")
        page.locator(".train .plan-fields select").select_option("mlp")
        page.get_by_label("Minutes").fill("5")
        page.get_by_label("Run name").fill("my story")
        expect(page.locator(".plan .terms").first).to_contain_text("mlp", timeout=60_000)
        page.get_by_role("button", name="Train", exact=True).click()
        status = page.locator(".training .readout").first
        expect(status).to_contain_text("loss", timeout=60_000)
        page.reload()
        expect(status).to_contain_text("loss")
        page.get_by_role("button", name="Stop").click()
        expect(status).to_contain_text("Stopped", timeout=60_000)
        page.get_by_role("button", name="Resume my story").click()
        expect(status).to_contain_text("Training", timeout=60_000)
        page.get_by_role("button", name="Stop").click()
        expect(status).to_contain_text("Stopped", timeout=60_000)
        page.get_by_label("Run name").fill("counts")
        page.locator(".train .plan-fields select").select_option("kneser-ney")
        page.get_by_role("button", name="Train", exact=True).click()
        expect(status).to_contain_text("Finished", timeout=60_000)
        page.get_by_role("button", name="Play with it").click()
        generate(page, "The cat ")
        assert page.locator("#model").input_value() == "counts"
        watched.context.close()


def test_a_server_without_training(watched: Watched) -> None:
    page = watched.open("train")
    expect(page.get_by_role("tab", name="Train")).to_be_hidden()
    expect(page.get_by_role("tab", name="List")).to_have_attribute("aria-selected", "true")


# --- accessibility and navigation ---


def test_the_keyboard(watched: Watched) -> None:
    page = watched.open("write/words")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the view")).to_be_focused()
    for place in ("#model", "#facts summary", "#theme", "[role=tab][aria-selected=true]"):
        page.keyboard.press("Tab")
        expect(page.locator(place).first).to_be_focused()
    tab = page.get_by_role("tab", name="List")
    page.keyboard.press("ArrowLeft")
    expect(tab).to_be_focused()
    expect(tab).to_have_attribute("aria-selected", "true")
    panel = page.locator(f"#{tab.get_attribute('aria-controls')}")
    expect(panel).to_be_visible()
    assert tab.evaluate("one => getComputedStyle(one).outlineStyle") == "solid", "visible focus"
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Inspect")).to_be_focused()
    page.keyboard.press("ArrowRight")  # wraps around
    expect(tab).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Generate")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tabpanel", name="Generate")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("ca")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".write .status")).to_contain_text("Generated")
    while not page.evaluate("document.activeElement.role === 'option'"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(tokens(page).nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.locator(".next [aria-current=true] .token")).to_have_text("a")
    while not page.evaluate("document.activeElement.closest('.next') !== null"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(tokens(page).locator(":scope.chosen")).to_have_count(1)


def test_the_focus_moves_to_the_next_possible_action(watched: Watched) -> None:
    page = watched.open("write/story")
    start, on = (
        page.get_by_role("button", name=name, exact=True) for name in ("Generate", "Continue")
    )
    generate(page, "A dog ", max_tokens=4)
    on.press("Enter")
    expect(page.locator(".write .status")).to_contain_text("Generated 8 tokens")
    expect(on).to_be_focused()
    tokens(page).nth(9).click()
    end = page.get_by_role("button", name="End of text", exact=True)
    end.press("Enter")
    expect(end).to_be_disabled()
    expect(page.get_by_role("button", name="Previous token")).to_be_focused()
    expect(page.locator(".write .where")).to_contain_text("After the text")
    third = page.locator(".next .bars button").nth(2)
    third.press("Enter")
    expect(page.locator(".write .status")).to_contain_text("Generated 12 tokens")
    expect(page.locator(".write .where")).to_contain_text("After the text")
    expect(third).to_be_focused()
    page.get_by_label("Max tokens").fill("4000")
    start.press("Enter")
    expect(tokens(page).nth(9)).to_be_attached()
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_focused()
    stop.press("Enter")
    expect(start).to_be_focused()
    page.locator("#model").select_option("words")
    page.get_by_role("tab", name="List").click()
    make = page.get_by_role("button", name=re.compile("^Generate 20"))
    expect(page.locator(".item")).to_have_count(20)
    make.press("Enter")
    expect(page.locator(".item")).to_have_count(40)
    expect(make).to_be_focused()
    page.get_by_role("button", name="Clear").press("Enter")
    expect(make).to_be_focused()
    make.press("Enter")
    expect(page.locator(".item")).to_have_count(20)
    page.locator(".star").first.press("Enter")
    page.get_by_role("button", name=re.compile("^Remove")).press("Enter")
    expect(page.get_by_role("heading", name="Favorites")).to_be_focused()


def test_the_back_button_changes_views(watched: Watched) -> None:
    page = watched.open("write/story")
    generate(page, "A dog ", max_tokens=4)
    page.get_by_role("tab", name="Inspect").click()
    page.get_by_role("tab", name="Embedding").click()
    page.locator("#model").select_option("run")
    for place in ("inside/story/embedding", "inside/story/attention", "write/story"):
        page.go_back()
        expect(page.locator("#facts")).to_contain_text("byte")
        assert page.url.endswith(f"#/{place}")
    expect(page.get_by_role("tab", name="Generate")).to_have_attribute("aria-selected", "true")
    expect(tokens(page)).to_have_count(10)
    page.go_forward()
    expect(page.get_by_role("tab", name="Attention")).to_have_attribute("aria-selected", "true")


def test_colors_and_motion(opened: Open) -> None:
    watched = opened(color_scheme="light")
    page = watched.open("list/words")

    def dark() -> bool:
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(int, re.findall(r"\d+", ground)[:3])) < 300

    assert not dark()
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert dark()
    page.get_by_label("Color theme").select_option("light")
    assert not dark()
    page.reload()
    page.wait_for_selector("#facts span")
    assert not dark(), "the choice is stored"
    moving = page.locator(".item").first.evaluate("one => getComputedStyle(one).animationName")
    assert moving == "none"


# --- layout ---


def fill_view(page: Page, view: str, there: str) -> None:
    """Make a view show everything."""
    if view.startswith("write"):
        generate(page, "The cat ", max_tokens=120)
        tokens(page).nth(12).click()
        page.wait_for_selector(".next[aria-busy=false] [aria-current=true]")
    elif view.startswith("list"):
        for at in (1, 4):
            page.locator(".star").nth(at).click()
    elif view.endswith("history"):
        page.get_by_label("run", exact=True).check()
        page.get_by_role("button", name="Settings that differ").click()
        page.wait_for_selector(".history thead th:nth-child(3)")
    elif view == "train":
        upload(page, "a story.txt", STORY.encode())
    page.wait_for_selector(there)


@pytest.mark.soak
def test_the_layout_of_every_view(trains: Trains) -> None:
    """Check layout and accessibility: in light colors on a wide screen, in dark colors on a phone.
    `make screenshots` stores pictures of all combinations."""
    pictures = os.environ.get("MOREISH_SCREENSHOTS")
    found: list[str] = []
    for view, there in {**VIEWS, "train": ".plan li"}.items():
        page = trains.watched.open(view)
        fill_view(page, view, there)
        for width, scheme in itertools.product((1440, 375), ("light", "dark")):
            is_checked = (width, scheme) in ((1440, "light"), (375, "dark"))
            if not (is_checked or pictures):
                continue
            page.set_viewport_size({"width": width, "height": 900})
            page.mouse.move(0, 0)
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            name = f"{view.replace('/', '-')}-{scheme}-{width}"
            if pictures:
                trains.watched.screenshot(Path(pictures, f"{name}.png"))
            if is_checked:
                found += [f"{name}: {flaw}" for flaw in flaws(page)]
                violations = accessibility_violations(page)
                found += [f"{name}: {rule} at {at}" for rule, at in violations]
    assert not found, "\n".join(found)


# --- source files ---


def test_modules_are_short_and_create_no_markup_from_text() -> None:
    banned = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(",
              "parseFromString", "srcdoc", "http:", "https:")  # fmt: skip
    for path in (*MODULES, PAGE / "index.html"):
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not [word for word in banned if word in text], path
        assert len(text.splitlines()) <= 250, path
    assert "style=" not in (PAGE / "index.html").read_text("utf-8")


def test_every_file_is_used() -> None:
    everything = "".join(path.read_text("utf-8") for path in PAGE.iterdir())
    for path in PAGE.iterdir():
        assert path.name == "index.html" or f'{path.name}"' in everything, path
