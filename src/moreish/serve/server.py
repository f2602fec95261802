"""From run folders to a server that listens."""

import asyncio
import ipaddress
import math
import socket
import time
from collections.abc import Sequence
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
    connection_factory,
)
from moreish.serve.jobs import TrainingManager
from moreish.serve.registry import Registry

DRAIN = 28.0
"""Seconds that those who are being answered have when the server stops."""

LAST = 2
"""Seconds more, for those whose time is up to hear of it."""

TICK = 0.1
"""Seconds between two looks at whether to stop at once."""

QUEUE = 1024
"""Connections that the system keeps for the server until it takes them."""

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


def access_rules(
    host: str, *, token: str | None, hosts: Sequence[str], insecure: bool, limits: Limits
) -> AccessRules:
    """Whom to let in. Raises MoreishError when anybody could come in."""
    if not is_local(host) and not token and not insecure:
        raise MoreishError(
            f"--host {host} is open to other machines: set a --token (or MOREISH_TOKEN) that "
            "they have to know, or say --insecure"
        )
    names = [*LOOPBACK_HOSTS, *hosts, host]
    uploads = {"/api/texts": limits.upload_bytes}
    return AccessRules.of(names, token, body_bytes=limits.body_bytes, uploads=uploads)


def is_local(host: str) -> bool:
    """Whether only programs on this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """uvicorn's, which is told to stop, and stops, in other ways."""

    def __init__(
        self,
        config: uvicorn.Config,
        registry: Registry,
        trainings: TrainingManager | None,
        drain: float,
    ) -> None:
        super().__init__(config)
        self._registry, self._trainings, self._drain = registry, trainings, drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(QUEUE)  # asyncio has made it as short as what is accepted in one go

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # the second time, whichever signal it is
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._trainings is not None:
            # First, since pages that watch the training would be waited for.
            stopping = asyncio.create_task(self._trainings.stop())
            while not stopping.done() and not self.force_exit:
                await asyncio.wait([stopping], timeout=TICK)
        ending = asyncio.create_task(self._end())
        await super().shutdown(sockets)
        if not self.force_exit:
            ending.cancel()
        await asyncio.wait([ending])

    async def _end(self) -> None:
        """Before uvicorn cuts them off, clients hear why; but not those that do not listen."""
        end = time.monotonic() + self._drain
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(TICK)
        if not self.force_exit:
            await asyncio.to_thread(self._registry.stop, 0)
            await asyncio.sleep(LAST / 2)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and (self.force_exit or connection.answering):
                connection.transport.abort()


class Service:
    """Run folders behind an address."""

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
        limits: Limits = Limits(),  # noqa: B008 (it cannot be changed)
        home: Path | None = None,
        drain: float = DRAIN,
    ) -> None:
        """
        Args:
            port: 0 takes a free one.
            token: whoever asks has to know it.
            hosts: further names that the Host header may have.
            insecure: listen beyond this machine without a token.
            slots: texts that each model writes at a time.
            home: folder of what is trained from the page; None: nobody can train.
            drain: seconds that those who are being answered have when the server stops.

        Raises:
            MoreishError: a run cannot be served, or the address not be had.
        """
        rules = access_rules(host, token=token, hosts=hosts, insecure=insecure, limits=limits)
        self._listener = listen(host, port)
        self.registry = Registry(limits, slots, Metrics())
        try:
            for path in paths:
                self.registry.add(self.registry.load(path))
        except BaseException:
            self.close()
            raise
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listener.getsockname()[1]}"
        side = BackgroundExecutor()
        trainings = None if home is None else TrainingManager(self.registry, side, home)
        config = uvicorn.Config(
            create_app(self.registry, rules, side, trainings),
            http=connection_factory(limits, rules.uploads),  # type: ignore[arg-type]
            ws="none",
            backlog=ACCEPT_BATCH,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(drain + LAST),
            timeout_keep_alive=30,
        )
        self._server = _Server(config, self.registry, trainings, drain)

    def run(self) -> None:
        """Serve until told to stop: by `stop`, or in the main thread by Ctrl-C or SIGTERM. What has
        been begun is ended, within a time."""
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self.close()

    def stop(self) -> None:
        """To be called from another thread, or from a signal."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give back the address and the engines' threads, if nothing runs."""
        self._listener.close()
        self.registry.stop(0)
