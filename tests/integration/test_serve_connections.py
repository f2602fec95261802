"""Connections: stalled and disconnecting clients, timeouts, and shutdown."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from moreish.serve.http.connections import affordable_connections
from moreish.serve.http.limits import Limits
from moreish.serve.server import DRAIN_SECONDS, Service
from support.serving import (
    GENEROUS_DEADLINE_S,
    is_idle,
    num_connections,
    num_tasks,
    serving,
    wait_until,
)

LONG = {"model": "story", "max_tokens": 10**6, "temperature": 3}
LIMITS = Limits(max_tokens=10**6, total_tokens=10**6, stall=0.5, connections=30)


@contextmanager
def connected(service: Service, count: int = 1) -> Iterator[list[socket.socket]]:
    """Connect clients with small receive buffers."""
    host, port = service.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect((host, int(port)))
            made.append(client)
        yield made


def request(body: dict[str, Any], path: str = "/v1/completions") -> bytes:
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def answer(client: socket.socket) -> tuple[int, bytes]:
    """Read until the connection ends and return status and body."""
    got = b""
    while piece := client.recv(1 << 16):
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


# --- clients that do not read ---


def test_clients_that_read_nothing_are_disconnected(
    served_runs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """During a stream and during a complete response."""
    with ExitStack() as staying:
        with serving([served_runs["story"]], slots=8, limits=LIMITS) as service:
            clients = staying.enter_context(connected(service, 4))
            body = {**LONG, "max_tokens": 200, "logprobs": 20}
            for number, client in enumerate(clients):
                client.sendall(request({**body, "stream": number < 2}))
            wait_until(lambda: num_connections(service) == 4)
            wait_until(lambda: num_connections(service) == 0)
            assert is_idle(service)
            start_of_shutdown = time.monotonic()
        assert time.monotonic() - start_of_shutdown < DRAIN_SECONDS  # there is nothing to drain
    assert capfd.readouterr().err == ""


@pytest.mark.soak
@pytest.mark.long
def test_a_client_that_reads_slowly_stays_connected(served_runs: dict[str, Path]) -> None:
    with serving([served_runs["story"]], slots=2, limits=LIMITS) as service:
        with connected(service) as (client,):
            body = {**LONG, "max_tokens": 400, "logprobs": 20}
            client.sendall(request(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            got = b""
            began = time.monotonic()
            while piece := client.recv(8192):
                got += piece
                time.sleep(0.05)
        assert time.monotonic() - began > 2 * LIMITS.stall
        assert json.loads(got.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] > 0


# --- clients that do not send ---


def test_incomplete_requests_are_dropped(
    served_runs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """There are many, and other clients are served meanwhile."""
    with ExitStack() as stack:
        service = stack.enter_context(serving([served_runs["words"]], slots=2, limits=LIMITS))
        clients = stack.enter_context(connected(service, 100))
        for client in clients:
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        url = f"{service.url}/healthz"
        assert httpx.get(url, timeout=GENEROUS_DEADLINE_S).status_code == 200
        assert num_connections(service) <= LIMITS.connections
        assert clients[-1].recv(10) == b""
        wait_until(lambda: num_connections(service) == 0)
    assert capfd.readouterr().err == ""


@pytest.mark.soak
@pytest.mark.long
def test_keep_alive_connections_may_be_idle(served_runs: dict[str, Path]) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(serving([served_runs["words"]], slots=2, limits=LIMITS))
        (client,) = stack.enter_context(connected(service))
        for _ in range(2):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            got = b""
            while not got.endswith(b"}"):
                piece = client.recv(4096)
                assert piece
                got += piece
            time.sleep(2 * LIMITS.stall)
        client.sendall(b"GET /heal")
        assert client.recv(4096) == b""


@pytest.mark.parametrize(
    ("head", "every", "status"),
    [
        ("POST /v1/completions", None, 408),
        ("POST /v1/completions", 0.2, 408),  # it arrives too slowly
        ("POST /api/texts?name=a", None, 408),
        ("POST /api/texts?name=a", 0.2, None),  # an upload may be slow
        ("GET /healthz", None, 200),  # the route does not read it
    ],
)
def test_incomplete_bodies(
    served_runs: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    head: str,
    every: float | None,
    status: int | None,
) -> None:
    limits = Limits(stall=1, seconds=1.5)
    kind = "octet-stream" if "texts" in head else "json"
    with serving([served_runs["words"]], slots=2, limits=limits, home=tmp_path) as service:
        with connected(service) as (client,):
            client.sendall(
                f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n"
                "Content-Length: 900\r\n\r\n{".encode()
            )
            if every is not None:
                wait_until(lambda: num_connections(service) == 1)
            end = time.monotonic() + (2 if status is None else GENEROUS_DEADLINE_S)
            while every is not None and num_connections(service) and time.monotonic() < end:
                client.sendall(b" ")
                time.sleep(every)
            if status is None:
                assert num_connections(service) == 1
                return
            found, body = answer(client)
            assert found == status
            if status == 408:
                message = json.loads(body)["error"]["message"]
                assert message == "the request body did not arrive in time"
        wait_until(lambda: num_connections(service) == 0)
    assert list(tmp_path.glob("texts/.*")) == []
    assert capfd.readouterr().err == ""


def test_open_files_limit_the_connections() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert affordable_connections(512) == 64
        assert affordable_connections(20) == 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- leaks ---


def test_disconnecting_clients_leave_nothing_behind(served_runs: dict[str, Path]) -> None:
    """Nor do idle ones. See benchmarks/serve.py for a thousand clients."""
    with serving([served_runs["story"]], slots=2, limits=LIMITS) as service:
        before = num_tasks(service)
        story = service.registry.find("story").engine

        async def come_and_go() -> None:
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
                bodies = [{**LONG, "stream": number % 2 == 0} for number in range(8)]
                going = [http.post("/v1/completions", json=body) for body in bodies]
                coming = [asyncio.create_task(request) for request in going]
                await asyncio.to_thread(wait_until, lambda: story.num_requests == 11)
                assert story.num_running == 2
                assert num_tasks(service) > before
                for task in coming:
                    task.cancel()
                await asyncio.gather(*coming, return_exceptions=True)

        with connected(service, 6) as idle_ones:
            complete = request({**LONG, "logprobs": 20, "stream": True})
            for client, sent in zip(
                idle_ones, [complete] * 3 + [complete[:40], complete[:-5]], strict=False
            ):
                client.sendall(sent)
            asyncio.run(come_and_go())
            wait_until(lambda: is_idle(service) and num_connections(service) == 0)
        assert num_tasks(service) == before


# --- shutdown ---


def test_open_requests_get_an_error_at_shutdown(
    served_runs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Running and waiting requests, and one whose body is incomplete."""
    limits = LIMITS.model_copy(update={"stall": 20.0})
    answers: dict[int, httpx.Response] = {}
    with serving([served_runs["story"]], slots=1, limits=limits, drain=0.5) as service:
        bodies = [{**LONG, "stream": stream} for stream in (True, False, True, False)]

        def ask(number: int) -> None:
            url = f"{service.url}/v1/completions"
            answers[number] = httpx.post(url, json=bodies[number], timeout=GENEROUS_DEADLINE_S)

        asking = [threading.Thread(target=ask, args=[number]) for number in range(4)]
        with connected(service) as (half,):
            half.sendall(request({"model": "story"})[:-5])
            for thread in asking:
                thread.start()
            story = service.registry.find("story").engine
            wait_until(lambda: story.num_requests == 4 and num_connections(service) == 5)
            stopped_at = time.monotonic()
            service.stop()
            for thread in asking:
                thread.join()
            assert 0.5 <= time.monotonic() - stopped_at < DRAIN_SECONDS
            status, body = answer(half)
            assert (status, json.loads(body)["error"]["code"]) == (503, "closing")
    for number, response in answers.items():
        if bodies[number]["stream"]:
            assert response.status_code == 200
            error = response.text.strip().split("\n")[-1].removeprefix("data: ")
        else:
            assert response.status_code == 503
            assert response.headers["retry-after"] == "5"
            error = response.text
        assert json.loads(error)["error"]["code"] == "closing"
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert "ASGI" not in err


def test_a_second_signal_stops_immediately(served_runs: dict[str, Path]) -> None:
    with serving([served_runs["story"]], slots=2, limits=LIMITS) as service:
        url = f"{service.url}/v1/completions"
        with httpx.stream("POST", url, json={**LONG, "stream": True}) as streamed:
            lines = streamed.iter_lines()
            service._server.handle_exit(signal.SIGTERM, None)
            for _ in range(10):
                assert next(lines) is not None
            stopped_at = time.monotonic()
            service._server.handle_exit(signal.SIGTERM, None)
            with suppress(httpx.TransportError):
                list(lines)
    assert time.monotonic() - stopped_at < DRAIN_SECONDS
