"""Connections: how long a client may take to ask and to listen, and how many there may be."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from moreish.serve.http.errors import ApiError
from moreish.serve.http.guard import SECURITY_HEADERS
from moreish.serve.http.limits import Limits

ACCEPT_BATCH = 16
"""Connections that the event loop takes before it looks at those that it has."""

RESERVE = 128
"""Open files kept for the program itself and for a few rounds of `ACCEPT_BATCH`."""

LOOKS = 8
"""At a connection, in the time in which a client that does nothing is given up."""


def affordable_connections(most: int) -> int:
    """So many connections, or as many as the system has files for: each may need a second one."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return most
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return most
    return max(1, min(most, (files - RESERVE) // 2))


def connection_factory(limits: Limits, uploads: Collection[str]) -> Callable[..., "Connection"]:
    """What uvicorn makes a connection of. `uploads` are paths whose body may take long."""
    return partial(
        Connection, limits=limits, most=affordable_connections(limits.connections), uploads=uploads
    )


class Connection(H11Protocol):
    """uvicorn's, with an end to waiting.

    uvicorn waits for ever for a request to be whole, and for a client to take its answer. Here one
    that has sent no whole head, or nothing of the body, or has taken nothing of what lies ready,
    for `stall` seconds, loses the connection.
    """

    def __init__(
        self, *args: Any, limits: Limits, most: int, uploads: Collection[str], **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self._limits, self._most, self._uploads = limits, most, uploads
        self._every = min(limits.stall, limits.seconds) / LOOKS
        self._timer: asyncio.TimerHandle | None = None
        self._began = self._heard = self.loop.time()
        """When the request began, and when anything of it came last."""
        self._kept = False
        """The client has had an answer, and has asked nothing since: uvicorn counts that time."""
        self._unsent, self._moved = 0, self.loop.time()
        """Bytes that lie ready, and when any were taken last."""

    @property
    def answering(self) -> bool:
        """Whether the client has the beginning of an answer."""
        return getattr(self.cycle, "response_started", False)  # there may be no cycle yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Writing is then paused whenever anything lies ready, so that less is only what was taken.
        transport.set_write_buffer_limits(high=0)
        self._timer = self.loop.call_later(self._every, self._look)
        if len(self.connections) > self._most:
            # The one that has asked for nothing for the longest goes; it may be this one.
            waiting = [
                other
                for other in self.connections
                if isinstance(other, Connection) and other.conn.their_state is h11.IDLE
            ]
            last = min(waiting, key=lambda other: other._began)
            self.connections.discard(last)
            last.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if self._kept:
            self._began, self._kept = self._heard, False
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._began, self._kept = self.loop.time(), True
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._moved = self.loop.time()
        super().resume_writing()

    def _look(self) -> None:
        now = self.loop.time()
        self._timer = self.loop.call_later(self._every, self._look)
        stalled = now - self._limits.stall
        if (unsent := self.transport.get_write_buffer_size()) != self._unsent:
            self._unsent, self._moved = unsent, now
        if unsent and self._moved <= stalled:
            self.transport.abort()  # to close it would be to wait until they are taken
        elif self.transport.is_closing():
            pass
        elif self.conn.their_state is h11.IDLE:
            if not self._kept and self._began <= stalled:
                self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY:
            if self.flow.read_paused:  # it is the server that does not read
                self._heard = now
            slow = self._began <= now - self._limits.seconds
            if self._heard <= stalled or (slow and self.scope["path"] not in self._uploads):
                self._give_up_body()

    def _give_up_body(self) -> None:
        if self.conn.our_state is h11.SEND_RESPONSE:
            told = ApiError(408, "the body did not come in time").response()
            told.headers.update({**SECURITY_HEADERS, "Connection": "close"})
            for event in (
                h11.Response(status_code=408, headers=told.raw_headers, reason=b"Request Timeout"),
                h11.Data(data=bytes(told.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.abort()
