"""A server for the tests, in a thread of its own, on a free port."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from moreish import api
from moreish.serve.server import Service
from moreish.training.events import ignore

GENEROUS_DEADLINE_S = 60.0
"""How long a test waits on a busy machine for what takes moments on an idle one."""

STORY = "The cat sat on the mat. A dog ran to the sea, and the cat ran too. Ünïcode € 😀!\n" * 40
NAMES = [
    a + b + c
    for a in ("an", "be", "ca", "do", "el")
    for b in "aeiou"
    for c in ("na", "ra", "lo", "")
]


def make_runs(folder: Path) -> dict[str, Path]:
    """Train an n-gram model of a list and, for a few steps, a GPT of running text."""
    (folder / "words.txt").write_text("\n".join(NAMES), "utf-8")
    (folder / "story.txt").write_text(STORY, "utf-8")
    found = {"words": folder / "words", "story": folder / "story"}
    api.train(folder / "words.txt", model="ngram", out=found["words"], report=ignore)
    api.train(
        folder / "story.txt",
        kind="text",
        tokenizer="byte",
        steps=30,
        settings={
            "model": {"name": "gpt", "layers": 2, "heads": 2, "width": 32, "context": 64},
            "train": {"batch_tokens": 512},
        },
        out=found["story"],
        report=ignore,
    )
    return found


@contextmanager
def serving(paths: list[Path], **options: Any) -> Iterator[Service]:
    """Run a server during the context."""
    service = Service(paths, port=0, **options)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        wait_until(lambda: service._server.started)
        yield service
    finally:
        service.stop()
        thread.join(GENEROUS_DEADLINE_S)
        assert not thread.is_alive()


def is_idle(service: Service) -> bool:
    return not any(
        served.engine.num_running or served.engine.num_waiting or served.engine.num_requests
        for served in service.registry
    )


def num_connections(service: Service) -> int:
    return len(service._server.server_state.connections)


def read_metrics(url: str) -> dict[str, float]:
    """The values of /metrics by name and labels."""
    text = httpx.get(f"{url}/metrics").text
    assert list(text_string_to_metric_families(text))
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def num_tasks(service: Service) -> float:
    """Tasks of the server's event loop."""
    return read_metrics(service.url)["moreish_tasks"]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + GENEROUS_DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.005)


def start(*arguments: object) -> tuple["subprocess.Popen[str]", str]:
    """Start the command and return the process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moreish", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    while not (found := re.search(r"http://\S+", process.stdout.readline())):
        assert process.poll() is None
    return process, found[0]
