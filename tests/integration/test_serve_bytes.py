"""No bytes that a client sends make the server fail."""

import asyncio
import socket
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from conftest import Proved
from support.serving import serving, start, wait_until
from support.wire import fuzz

SOAK_TRIES = 100_000


def send_bytes(
    runs: dict[str, Path], home: Path, tries: int, seed: int, *more: str
) -> Counter[str]:
    """Send odd requests to a server in a process of its own; return the counts of the statuses."""
    options = ("--port", "0", "--home", home, "--limit", "stall=1", *more)
    process, url = start(*runs.values(), *options)
    assert process.stdout is not None
    log: list[str] = []
    reading = threading.Thread(target=lambda: log.extend(process.stdout or []))
    reading.start()  # a server blocks when nobody reads its log
    host, _, port = url.removeprefix("http://").partition(":")

    def is_listening() -> bool:
        with socket.socket() as client:
            return client.connect_ex((host, int(port))) == 0

    try:
        wait_until(is_listening)
        statuses, failed = asyncio.run(fuzz(host, int(port), tries, seed))
        with httpx.Client(base_url=url) as http:
            assert http.get("/healthz").status_code == 200
    finally:
        process.terminate()
        process.wait()
        reading.join()
        process.stdout.close()
    assert not failed, failed[:5]
    assert not any(status.startswith("5") for status in statuses), statuses
    assert not [line for line in log if "Traceback" in line or "Error" in line], log[:100]
    return statuses


def counts(statuses: Counter[str]) -> dict[str, int]:
    """The counts for docs/reliability.md."""
    answered = {k: n for k, n in statuses.items() if k.isdecimal()}
    accepted = sum(n for status, n in answered.items() if status < "400")
    return {
        "requests": statuses.total(),
        "accepted": accepted,
        "rejected": sum(answered.values()) - accepted,
        "incomplete": statuses.total() - sum(answered.values()),
    }


@pytest.mark.usefixtures("quick_processes")
def test_bytes_below_the_schema(
    served_runs: dict[str, Path], tmp_path: Path, proved: Proved
) -> None:
    statuses = send_bytes(served_runs, tmp_path / "home", 1000, 1)
    assert statuses["200"] > 20 and statuses["400"] > 100
    proved(9, "requests of odd bytes to the server", counts(statuses))


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("token", ["", "secret"])
def test_many_bytes_below_the_schema(
    served_runs: dict[str, Path], tmp_path: Path, proved: Proved, token: str
) -> None:
    tries = SOAK_TRIES if not token else SOAK_TRIES // 10
    more = ("--token", token) if token else ()
    statuses = send_bytes(served_runs, tmp_path / "home", tries, 2, *more)
    proved(9, "requests of odd bytes to the server", counts(statuses))


NO_OBJECTS = ["null", "1", "1.5", "[]", "true", '"x"', "[" * 9999, "9" * 5000, "", "{"]


@pytest.mark.parametrize("body", NO_OBJECTS, ids=lambda body: body[:4])
def test_bodies_that_are_no_objects(served_runs: dict[str, Path], body: str) -> None:
    """Every route says what is wrong."""
    with serving([served_runs["words"]], slots=2) as service:
        paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
        for path, operations in paths.items():
            if "post" in operations:
                headers = {"Content-Type": "application/json"}
                answer = httpx.post(f"{service.url}{path}", content=body, headers=headers)
                assert answer.status_code == 400
                message = answer.json()["error"]["message"]
                assert "the body" in message and "\n" not in message


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_upgrades_are_ignored(
    served_runs: dict[str, Path], upgrade: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The log does not advise to install libraries that the server has no use for."""
    request = (
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
        f"Upgrade: {upgrade}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    )
    with serving([served_runs["words"]], slots=2) as service:
        host, _, port = service.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(request.encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert capfd.readouterr().err == ""
