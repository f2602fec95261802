"""The server process: listening, signals and graceful shutdown."""

import asyncio
import ipaddress
import math
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from moreish.errors import MoreishError
from moreish.serve.app import create_app
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import (
    ACCEPT_BATCH,
    LOOPBACK_HOSTS,
    AccessRules,
    Connection,
    Limits,
    Metrics,
    affordable_connections,
)
from moreish.serve.jobs import TrainingManager
from moreish.serve.registry import Registry
from moreish.utils.platforms import own_port

DRAIN_SECONDS = 28.0
"""Time that requests in progress have to finish when the server stops."""

GRACE_SECONDS = 2
"""Additional time to send an error to those that did not finish."""

POLL_SECONDS = 0.1
"""Interval of the checks for a forced exit."""

LISTEN_BACKLOG = 1024
"""Connections that the system queues until the server accepts them."""

SEND_BUFFER_BYTES = 1 << 16
"""The system's send buffer; it is small so that a client that does not read is noticed soon."""


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Raises:
        MoreishError: the address is unknown or in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise MoreishError(f"--host {host}: {error.strerror or error}") from None
    own_port(listener)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise MoreishError(
            f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port, or "
            "--port 0 for a free one"
        ) from None
    return listener


def access_rules(
    host: str, *, token: str | None, hosts: Sequence[str], insecure: bool, limits: Limits
) -> AccessRules:
    """Return which requests the server accepts.

    Raises:
        MoreishError: the server would be open to other machines without a token.
    """
    if not is_local(host) and not token and not insecure:
        raise MoreishError(
            f"--host {host} is open to other machines: set a --token (or MOREISH_TOKEN) that "
            "clients have to send, or add --insecure"
        )
    return AccessRules(
        hosts=frozenset(name.lower().strip("[]") for name in (*LOOPBACK_HOSTS, *hosts, host)),
        token=token or None,
        body_bytes=limits.body_bytes,
        uploads={"/api/texts": limits.upload_bytes},
    )


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _UvicornServer(uvicorn.Server):
    """uvicorn's server with a shutdown that stops training and lets requests finish."""

    def __init__(
        self,
        config: uvicorn.Config,
        registry: Registry,
        manager: TrainingManager | None,
        drain: float,
    ) -> None:
        super().__init__(config)
        self._registry, self._manager, self._drain = registry, manager, drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(LISTEN_BACKLOG)  # asyncio has set it to ACCEPT_BATCH

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # from the second signal on
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._manager is not None:
            # First, since uvicorn waits for the event streams of pages that watch it.
            stopping = asyncio.create_task(self._manager.stop())
            while not stopping.done() and not self.force_exit:
                await asyncio.wait([stopping], timeout=POLL_SECONDS)
        draining = asyncio.create_task(self._end_requests())
        await super().shutdown(sockets)
        if not self.force_exit:
            draining.cancel()
        await asyncio.wait([draining])

    async def _end_requests(self) -> None:
        """End the requests that did not finish in time with an error, and drop the clients that
        do not read it."""
        end = time.monotonic() + self._drain
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(POLL_SECONDS)
        if not self.force_exit:
            await asyncio.to_thread(self._registry.stop, 0)
            await asyncio.sleep(GRACE_SECONDS / 2)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and (self.force_exit or connection.is_responding):
                connection.transport.abort()


class Service:
    """An HTTP server for run folders."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        hosts: Sequence[str] = (),
        insecure: bool = False,
        slots: int = 16,
        limits: Limits = Limits(),  # noqa: B008 (it is immutable)
        home: Path | None = None,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        """
        Args:
            paths: run folders.
            host: the address to listen on.
            port: 0 chooses a free one.
            token: bearer token that clients have to send.
            hosts: additional names that the Host header may have.
            insecure: listen beyond this machine without a token.
            slots: maximum number of texts that each model generates at a time.
            limits: upper bounds for requests.
            home: folder for uploads and trained runs; None disables training.
            drain: seconds that requests in progress have to finish when the server stops.

        Raises:
            MoreishError: a run cannot be served, or the address cannot be used.
        """
        rules = access_rules(host, token=token, hosts=hosts, insecure=insecure, limits=limits)
        self._listener = listen(host, port)
        self.registry = Registry(limits, slots, Metrics())
        executor = BackgroundExecutor()
        try:
            for path in paths:
                self.registry.add(self.registry.load(path))
            manager = None if home is None else TrainingManager(self.registry, executor, home)
        except BaseException:
            self.close()
            raise
        url_host = f"[{host}]" if ":" in host else host
        self.url = f"http://{url_host}:{self._listener.getsockname()[1]}"
        maximum = affordable_connections(limits.connections)
        connection = partial(Connection, limits=limits, maximum=maximum, uploads=rules.uploads)
        config = uvicorn.Config(
            create_app(self.registry, rules, executor, manager),
            http=connection,  # type: ignore[arg-type]
            ws="none",
            backlog=ACCEPT_BATCH,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(drain + GRACE_SECONDS),
            timeout_keep_alive=30,
        )
        self._server = _UvicornServer(config, self.registry, manager, drain)

    def run(self) -> None:
        """Serve until `stop` is called or, in the main thread, Ctrl-C or SIGTERM arrives; then let
        requests in progress finish."""
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self.close()

    def stop(self) -> None:
        """Stop the server; call it from another thread or a signal handler."""
        self._server.should_exit = True

    def close(self) -> None:
        """Release the address and stop the engines."""
        self._listener.close()
        self.registry.stop(0)
