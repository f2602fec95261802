"""Load test of the server: streams of many clients for minutes, and clients that disconnect.

    python benchmarks/serve.py [--seconds 300] [--streams 64] [--slots 64] [--disconnects 1000]
                               [--out benchmarks/results/serve.json]

The server runs in a process of its own, with an untrained GPT of ten million parameters. Each
client requests a text, reads all of it, checks that no token is lost or repeated, and starts again.
Then some clients disconnect during a stream or while they wait for a slot, and others stay idle:
they read nothing of their stream or send half of a request. Afterwards the open files, threads and
memory of the server (from /proc) and its tasks (from /metrics) show what was left behind.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from result_files import write_results

from moreish import api
from moreish.runs.record import library_versions, machine_info
from moreish.training.events import ignore

MODEL = {
    "name": "gpt", "layers": 6, "heads": 6, "width": 384, "context": 256, "positions": "rotary",
    "norm": "rms", "feedforward": "relu2", "bias": False,
}  # fmt: skip

KINDS = ("stream", "whole", "stalled", "half", "stream that waits", "whole that waits")
"""Kinds of clients that disconnect or stay idle."""

STALL = 5
"""Seconds after which the server drops an idle client."""

EVERY = 5.0
"""Seconds between two measurements of the server's memory."""


def make_run(folder: Path) -> Path:
    """Train a GPT of ten million parameters for one step."""
    text = folder / "text.txt"
    letters = "abcdefghijklmnopqrstuvwxyz ,.\n"
    draw = random.Random(1)
    text.write_text("".join(draw.choice(letters) for _ in range(200_000)))
    settings = {"model": MODEL, "train": {"batch_tokens": 256, "lr": 1e-6}}
    api.train(text, kind="text", steps=1, settings=settings, out=folder / "gpt-10m", report=ignore)
    return folder / "gpt-10m"


class Server:
    """The server command and measurements of its process."""

    def __init__(self, run: Path, slots: int) -> None:
        command = [sys.executable, "-m", "moreish", "serve", str(run), "--port", "0"]
        limits = {"queue": 1000, "seconds": 600, "stall": STALL}
        command += ["--slots", str(slots), "--no-training"]
        for name, value in limits.items():
            command += ["--limit", f"{name}={value}"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self.url = ""
        while not self.url:
            if found := re.search(r"http://\S+", self.process.stdout.readline()):
                self.url = found[0]
        self.name = run.name

    def memory(self) -> float:
        """Return the resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def left(self) -> dict[str, int]:
        """Count open files, threads and tasks."""
        tasks = int(self.gauge("tasks"))
        place = Path(f"/proc/{self.process.pid}")
        files, threads = (len(list(place.glob(what))) for what in ("fd/*", "task/*"))
        return {"files": files, "threads": threads, "tasks": tasks}

    def gauge(self, name: str) -> float:
        """Read one of the metrics."""
        text = httpx.get(f"{self.url}/metrics").text
        return float(re.search(rf"^moreish_{name}(?:{{[^}}]*}})? (\S+)", text, re.M)[1])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


async def stream(http: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, list[float], Any]:
    """Return the text, the arrival time of each chunk, and the usage."""
    text, times, usage, ended = "", [], None, False
    began = time.perf_counter()
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not line:
                continue
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                ended = True
                continue
            event = json.loads(data)
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["text"]
                times.append(time.perf_counter() - began)
    assert ended
    return text, times, usage


async def load(server: Server, streams: int, seconds: float) -> dict[str, Any]:
    """Run all clients at once; every text must equal the one of its seed alone."""
    draw = random.Random(2)
    bodies = [
        {
            "model": server.name,
            "prompt": "the " * draw.randrange(1, 20),
            "max_tokens": draw.randrange(20, 200),
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for seed in range(40)
    ]
    limits = httpx.Limits(max_connections=streams + 10)
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as http:
        expected = [(await stream(http, body))[0] for body in bodies]
        lonely = [(await stream(http, bodies[0]))[1] for _ in range(5)]
        firsts: list[float] = []
        gaps: list[float] = []
        requests = wrong = tokens = 0
        memory = []
        end = time.perf_counter() + seconds

        async def client(number: int) -> None:
            nonlocal requests, wrong, tokens
            own = random.Random(number)
            while time.perf_counter() < end:
                which = own.randrange(len(bodies))
                text, times, usage = await stream(http, bodies[which])
                requests += 1
                tokens += usage["completion_tokens"]
                wrong += text != expected[which] or len(text) != usage["completion_tokens"]
                firsts.append(times[0])
                gaps.extend(np.diff(times))

        async def watch() -> None:
            while time.perf_counter() < end:
                memory.append(server.memory())
                await asyncio.sleep(EVERY)

        began = time.perf_counter()
        await asyncio.gather(watch(), *(client(number) for number in range(streams)))
        lasted = time.perf_counter() - began
    third = len(memory) // 3
    return {
        "streams": streams,
        "seconds": round(lasted),
        "requests": requests,
        "lost_or_doubled": wrong,
        "tokens": tokens,
        "tokens_per_second": tokens / lasted,
        "tokens_per_second_alone": float(np.median([len(t) / t[-1] for t in lonely])),
        "first_token_seconds": percentiles(firsts),
        "between_tokens_seconds": percentiles(gaps),
        "memory_mb": {
            "after_a_third": float(np.median(memory[third : 2 * third])),
            "at_the_end": float(np.median(memory[2 * third :])),
            "most": max(memory),
        },
    }


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{at}": float(np.percentile(values, at)) for at in (50, 90, 99)}


async def disconnect(server: Server, count: int, slots: int) -> dict[str, Any]:
    """Run rounds of 1.5 times as many clients as slots, so that some wait."""
    await asyncio.sleep(1)
    before, memory = server.left(), server.memory()
    gone: list[float] = []
    given_up: list[float] = []
    size = slots + slots // 2
    for first in range(0, count, size):
        numbers = range(first, min(count, first + size))
        await leave(server, numbers, slots, before["files"], gone, given_up)
    await asyncio.sleep(1)
    return {
        "disconnects": {kind: len(range(at, count, len(KINDS))) for at, kind in enumerate(KINDS)},
        "before": before,
        "after": server.left(),
        "memory_mb": {"before": memory, "after": server.memory()},
        "seconds_until_who_went_was_forgotten": percentiles(gone),
        "seconds_until_who_did_nothing_was_cut_off": percentiles(given_up),
    }


async def leave(
    server: Server,
    numbers: range,
    slots: int,
    files: int,
    gone: list[float],
    given_up: list[float],
) -> None:
    """Run a round of clients of all kinds, and measure how long the server takes to drop them."""
    by_kind = {kind: [n for n in numbers if KINDS[n % len(KINDS)] == kind] for kind in KINDS}
    writing = sum(len(by_kind[kind]) for kind in KINDS[:3])
    texts = -(-slots // max(1, writing))
    body = {"model": server.name, "prompt": "a", "max_tokens": 2000, "n": min(8, texts)}

    async def stream(number: int) -> None:
        http = httpx.AsyncClient(base_url=server.url, timeout=600)
        asked = {**body, "stream": True}
        async with http, http.stream("POST", "/v1/completions", json=asked) as answer:
            lines = answer.aiter_lines()
            for _ in range(number % 7):
                await anext(lines)
            await asyncio.Event().wait()  # until it is canceled

    async def whole(number: int) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as http:
            await http.post("/v1/completions", json=body)

    async def come(kinds: tuple[str, str], there: int) -> list[asyncio.Task[None]]:
        """Start clients and wait until the server has this many requests."""
        tasks = [asyncio.create_task(stream(number)) for number in by_kind[kinds[0]]]
        tasks += [asyncio.create_task(whole(number)) for number in by_kind[kinds[1]]]
        await wait_until(lambda: server.gauge("requests_open") >= there)
        return tasks

    async def go(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    content = json.dumps({**body, "stream": True, "logprobs": 20}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode()
    idle = [await connect(server, head + content) for _ in by_kind["stalled"]]
    idle += [
        await connect(server, (head + content)[: 40 if n % 4 else -10]) for n in by_kind["half"]
    ]
    began = time.perf_counter()
    some = await come(("stream", "whole"), writing)
    await wait_until(lambda: server.gauge("texts_writing") == slots)
    waiting = sum(len(by_kind[kind]) for kind in KINDS[4:])
    others = await come(("stream that waits", "whole that waits"), writing + waiting)
    for tasks in (others, some):
        left = time.perf_counter()
        there = server.gauge("requests_open") - len(tasks)
        await go(tasks)
        await wait_until(lambda there=there: server.gauge("requests_open") <= there)
        gone.append(time.perf_counter() - left)
    await wait_until(lambda: server.gauge("requests_open") + server.gauge("texts_writing") == 0)
    await wait_until(lambda: server.left()["files"] <= files)
    given_up.append(time.perf_counter() - began)
    for client in idle:
        client.close()


async def connect(server: Server, sent: bytes) -> socket.socket:
    """Connect a client that sends these bytes and stays idle."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    host, port = server.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, sent)
    return client


async def wait_until(condition: Callable[[], bool]) -> None:
    began = time.perf_counter()
    while not condition():
        await asyncio.sleep(0.02)
        assert time.perf_counter() - began < 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serve.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = make_run(Path(temporary))
        server = Server(run, options.slots)
        try:
            loaded = asyncio.run(load(server, options.streams, options.seconds))
            print(json.dumps(loaded, indent=2), flush=True)
            left = asyncio.run(disconnect(server, options.disconnects, options.slots))
            print(json.dumps(left, indent=2))
        finally:
            status = server.stop()
        parameters = api.load(run).record.parameters
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python " + " ".join(sys.argv),
        "machine": machine_info(),
        "versions": library_versions(),
        "model": {**MODEL, "parameters": parameters},
        "slots": options.slots,
        "load": loaded,
        "disconnects": left,
        "exit_status": status,
    }
    write_results(options.out, found)


if __name__ == "__main__":
    main()
