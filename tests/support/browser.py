"""Chromium for the tests of the page."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import Browser, Page, expect, sync_playwright

from conftest import skip_or_fail

expect.set_options(timeout=20_000)

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def chromium() -> str:
    """Return the path of Chromium, or end the test if there is none."""
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if found is None:
        skip_or_fail("the page needs a browser: apt-get install chromium-headless-shell")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


class Watched:
    """A page that records errors, dialogs and requests to other servers."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        # Without animations, Chromium draws far fewer frames.
        defaults = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**defaults, **options})
        self.context.add_init_script("window.before = Object.keys(window).length")
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.url = url
        self.errors: list[str] = []
        self.statuses: list[int] = []
        """The status codes of failed requests."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.errors.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._request)
        self.page.on(
            "response", lambda answer: answer.status >= 400 and self.statuses.append(answer.status)
        )

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"//{parts.netloc}" not in self.url:
            self.errors.append(f"request: {request.url}")

    def open(self, place: str) -> Page:
        """Open a view by its route."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/#/{place}")
        self.page.wait_for_selector("#facts span")
        return self.page

    def answer(self, path: str, body: Any, status: int = 200) -> None:
        """Answer requests to a path, with its query if it has one; a list is an event stream."""
        if isinstance(body, list):
            text, kind = "".join(f"data: {json.dumps(one)}\n\n" for one in body), "event-stream"
            headers = {"Content-Type": f"text/{kind}"}
        else:
            text, headers = json.dumps(body), {"Content-Type": "application/json"}
        self.page.route(
            lambda url: path in (urlsplit(url).path, url.removeprefix(self.url)),
            lambda route: route.fulfill(status=status, body=text, headers=headers),
        )

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True, animations="disabled")

    def close(self) -> None:
        self.context.close()
        assert not self.errors, self.errors


def accessibility_violations(page: Page) -> list[tuple[str, str]]:
    """Return the rules that axe finds violated, and their elements."""
    if not page.evaluate("'axe' in window"):
        axe = Path(axe_playwright_python.__file__).parent / "axe.min.js"
        page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [(one["id"], str(node["target"])) for one in found for node in one["nodes"]]
