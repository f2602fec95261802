"""From run folders to a server that listens."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from moreish.errors import MoreishError
from moreish.serve.app import DRAIN, make_app
from moreish.serve.guard import LOCAL, Rules
from moreish.serve.limits import Limits
from moreish.serve.measured import Measured
from moreish.serve.registry import Registry

SEND_BUFFER = 1 << 16
"""Bytes that the system holds for a client that does not read: few, so that it is soon noticed."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises MoreishError when it cannot."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise MoreishError(f"--host {host}: {error.strerror or error}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise MoreishError(
            f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port, or "
            "--port 0 for a free one"
        ) from None
    return listener


def rules_of(host: str, *, token: str | None, hosts: Sequence[str], insecure: bool) -> Rules:
    """Whom to let in. Raises MoreishError when anybody could come in."""
    if not is_local(host) and not token and not insecure:
        raise MoreishError(
            f"--host {host} is open to other machines: set a --token (or MOREISH_TOKEN) that "
            "they have to know, or say --insecure"
        )
    names = [*LOCAL, *hosts, host]
    return Rules.of(names, token)


def is_local(host: str) -> bool:
    """Whether only programs on this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    paths: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    hosts: Sequence[str] = (),
    insecure: bool = False,
    slots: int = 16,
    limits: Limits = Limits(),  # noqa: B008 (it cannot be changed)
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the runs until the process is told to stop (Ctrl-C or SIGTERM).

    Args:
        hosts: further names that the Host header may have.
        slots: texts that each model writes at a time.
        tell: is told what the user should know.

    Raises:
        MoreishError: a run cannot be served, or the address not be had.
    """
    rules = rules_of(host, token=token, hosts=hosts, insecure=insecure)
    listener = listen(host, port)
    try:
        registry = Registry(limits, slots, Measured())
        for path in paths:
            served = registry.load(path)
            registry.add(served)
            if served.engine.alone:
                tell(
                    f"{served.name}: texts are written one by one, since on this machine they "
                    "would depend on each other"
                )
        name = f"[{host}]" if ":" in host else host
        port = listener.getsockname()[1]
        names = ", ".join(served.name for served in registry)
        tell(f"Serving {names} at http://{name}:{port} (Ctrl-C stops)")
        config = uvicorn.Config(
            make_app(registry, rules),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(DRAIN),
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=1 << 16,
        )
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
