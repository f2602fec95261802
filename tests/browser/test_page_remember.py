"""The text to remember in the Generate view of the page, in a real browser."""

import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from moreish import api
from moreish.runs.run import Run
from moreish.serve.http.limits import Limits
from moreish.serve.server import Service
from moreish.settings import Tree
from moreish.training.events import ignore
from support.browser import Watched, accessibility_violations, chromium, launched
from support.layout_checks import flaws
from support.serving import NAMES, STORY, serving

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too

WORDS = random.Random(0).choices(STORY.split(), k=3000)
BEFORE = " ".join(WORDS[:2] * 100)
PROMPT = WORDS[0] + " "
REACH = 300
LIMIT = REACH + 20
"""The memory reaches so many characters; the context of the earliest occurrence has 20."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A hybrid of running text with a memory."""
    folder = tmp_path_factory.mktemp("remember")
    lines = (" ".join(WORDS[at : at + 10]) for at in range(0, len(WORDS), 10))
    (folder / "story.txt").write_text("\n".join(lines), encoding="utf-8")
    network: Tree = {"layers": 1, "heads": 2, "width": 16, "context": 16, "positions": "rotary"}
    settings: Tree = {"model": {**network, "memory": REACH}}
    return api.train(
        folder / "story.txt",
        model="hybrid",
        steps=60,
        kind="text",
        settings=settings,
        out=folder / "memory",
        report=ignore,
    )


@pytest.fixture(scope="module")
def service(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    chromium()
    folder = tmp_path_factory.mktemp("words")
    (folder / "words.txt").write_text("\n".join(NAMES), "utf-8")
    words = api.train(folder / "words.txt", model="ngram", out=folder / "words", report=ignore)
    with serving([run.path, words.path], limits=Limits(prompt_characters=4000)) as service:
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


def bodies(page: Page) -> dict[str, list[dict[str, Any]]]:
    """Return the bodies of later POST requests by path."""
    found: dict[str, list[dict[str, Any]]] = {}

    def collect(request: Any) -> None:
        if request.method == "POST":
            found.setdefault(urlsplit(request.url).path, []).append(request.post_data_json)

    page.on("request", collect)
    return found


def control(page: Page) -> Locator:
    return page.locator("details.remember")


def open_control(page: Page) -> Locator:
    """Open the control and return its text field."""
    control(page).locator("summary").click()
    return page.get_by_label("Text to remember", exact=True)


def choose_file(page: Page, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    page.locator("#remember-file").set_input_files(file)


def generate(page: Page, prompt: str, max_tokens: int = 30) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Max tokens").fill(str(max_tokens))
    page.get_by_label("Seed", exact=True).fill("3")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".write .status")).to_contain_text("Generated")


def text_of(page: Page) -> str:
    return "".join(page.locator(".write .strip [role=option]").all_text_contents())


def expect_next(page: Page, run: Run, prompt: str, remember: str) -> None:
    """Wait until the first bars are those of the tokens after a text to remember and a prompt."""
    figures = page.locator(".next .figure")
    for at, token in enumerate(run.next(prompt, 3, remember=remember)):
        number = f"{float(f'{100 * token.probability:.2g}'):g}"
        if 0.01 < token.probability < 0.99:
            expect(figures.nth(at)).to_have_text(re.compile(rf"^{re.escape(number)}"))


def test_only_models_with_a_memory_have_the_control(watched: Watched) -> None:
    page = watched.open("write/words")
    asked = bodies(page)
    expect(control(page)).to_be_hidden()
    generate(page, "an")
    assert not any("remember" in body for sent in asked.values() for body in sent)
    page.locator("#model").select_option("memory")
    expect(control(page)).to_be_visible()
    expect(page.get_by_label("Text to remember", exact=True)).to_be_hidden()  # it is closed
    page.locator("#facts summary").click()
    expect(page.locator("#facts dl")).to_contain_text(f"{REACH} tokens of recent text")
    page.locator("#model").select_option("words")
    expect(control(page)).to_be_hidden()


def test_the_text_is_used_for_all_that_is_shown(watched: Watched, run: Run) -> None:
    page = watched.open("write/memory")
    area = open_control(page)
    page.get_by_label("Prompt").fill(PROMPT)
    expect_next(page, run, PROMPT, "")
    asked = bodies(page)
    end = BEFORE[-LIMIT:]
    area.fill(BEFORE)
    expect_next(page, run, PROMPT, end)
    expect(control(page).locator("summary")).to_have_text(f"Text to remember: {LIMIT} characters")
    generate(page, PROMPT)
    options: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 30, "seed": 3}
    (expected,) = run.sample(**options, remember=end)
    assert text_of(page) == expected != run.sample(**options)[0]
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".write .status")).to_contain_text("Generated 60 tokens")
    expect_next(page, run, text_of(page), end)
    first = page.locator(".write .strip [role=option]").first
    first.hover()
    share = float(f"{100 * run.surprisal(PROMPT, remember=end)[0].probability:.2g}")
    expect(first).to_have_attribute("title", re.compile(rf": (<0.01|{share:g}) %"))
    assert {"/api/next", "/api/surprisal", "/api/write"} <= set(asked)
    for sent in asked.values():
        assert all(body["remember"] == end for body in sent)
    with page.expect_request("**/api/next") as request:
        page.get_by_role("button", name="Clear").click()
    assert "remember" not in request.value.post_data_json
    expect(area).to_be_focused()
    expect_next(page, run, text_of(page), "")


def test_a_file_is_read_as_far_as_the_memory_reaches(watched: Watched, run: Run) -> None:
    page = watched.open("write/memory")
    area = open_control(page)
    # The part of the file that is read begins within a character.
    end = f"\n{BEFORE}"[-LIMIT:].replace("A", "€")
    content = "😀" * 2000 + end.replace(" ", "\r\n", 1)
    choose_file(page, "pages.txt", content.encode())
    expect(area).to_have_value(end.replace(" ", "\n", 1))
    choose_file(page, "long.txt", ("😀" * 500 + "b").encode())
    expect(area).to_have_value("😀" * ((LIMIT - 1) // 2) + "b")
    choose_file(page, "latin.txt", "Zoë".encode("latin-1"))
    error = page.locator(".write .main-column .error")
    expect(error).to_have_text("“latin.txt” is not text in UTF-8.")
    expect(area).to_have_value(re.compile("b$"))
    choose_file(page, "empty.txt", b"")
    expect(area).to_have_value("")
    expect(error).to_be_empty()


def test_unknown_characters(watched: Watched, run: Run) -> None:
    page = watched.open("write/memory")
    area = open_control(page)
    area.fill("«the cat»\n")
    expect_next(page, run, "", "the cat\n")
    generate(page, PROMPT)
    (expected,) = run.sample(prompt=PROMPT, max_tokens=30, seed=3, remember="the cat\n")
    assert text_of(page) == expected
    area.fill("«»")
    nothing = "Text to remember: nothing of the text to remember is in the model's vocabulary."
    expect(page.locator(".next .error")).to_have_text(nothing)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".write .main-column .error")).to_have_text(nothing)


def test_the_text_is_kept_for_each_model(watched: Watched) -> None:
    page = watched.open("write/memory")
    area = open_control(page)
    area.fill("the cat")
    page.reload()  # at once, before the request for the next token
    summary = control(page).locator("summary")
    expect(summary).to_have_text("Text to remember: 7 characters")
    expect(area).to_be_hidden()
    asked = bodies(page)
    generate(page, "A")
    assert asked["/api/write"][0]["remember"] == "the cat"
    page.locator("#model").select_option("words")
    expect(control(page)).to_be_hidden()
    generate(page, "an")
    assert "remember" not in asked["/api/write"][-1]
    page.locator("#model").select_option("memory")
    expect(summary).to_have_text("Text to remember: 7 characters")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 900, 390])
def test_layout_and_accessibility(watched: Watched, width: int, scheme: Any) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    watched.open("write/memory")
    generate(page, PROMPT)
    assert flaws(page) == accessibility_violations(page) == []
    open_control(page).fill(BEFORE)
    expect(page.get_by_role("button", name="Clear")).to_be_visible()
    assert flaws(page) == accessibility_violations(page) == []


def test_the_keyboard(watched: Watched) -> None:
    page = watched.open("write/memory")
    control(page).locator("summary").press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text to remember", exact=True)).to_be_focused()
    page.keyboard.type("the cat")
    page.keyboard.press("Tab")
    expect(page.locator("#remember-file")).to_be_focused()
    label = control(page).locator(".button")
    assert label.evaluate("one => getComputedStyle(one).outlineStyle") == "solid", "visible focus"
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Clear")).to_be_focused()
