"""Connections: how long a client may take to send and to read, and how many there may be."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from moreish.serve.http.errors import ApiError
from moreish.serve.http.guard import SECURITY_HEADERS
from moreish.serve.http.limits import Limits

ACCEPT_BATCH = 16
"""Connections that the event loop accepts before it handles those that are open."""

RESERVED_FILES = 128
"""Open files kept for the program itself and for a few rounds of `ACCEPT_BATCH`."""

CHECKS_PER_TIMEOUT = 8
"""How often a connection is checked within the time after which an idle client is dropped."""


def affordable_connections(maximum: int) -> int:
    """Return `maximum`, or less where the system allows few open files.

    Each connection may need two files.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return maximum
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return maximum
    return max(1, min(maximum, (files - RESERVED_FILES) // 2))


class Connection(H11Protocol):
    """uvicorn's connection with timeouts.

    uvicorn waits forever for a request to be complete and for a client to read its response. This
    one closes the connection of a client that has sent no complete head, nothing of the body, or
    read nothing of the response for `limits.stall` seconds.
    """

    def __init__(
        self, *args: Any, limits: Limits, maximum: int, uploads: Collection[str], **options: Any
    ) -> None:
        """
        Args:
            limits: the timeouts.
            maximum: the number of connections beyond which an idle one is dropped.
            uploads: paths whose request body may take longer than `limits.seconds`.
            args, options: uvicorn's own.
        """
        super().__init__(*args, **options)
        self._limits, self._maximum, self._uploads = limits, maximum, uploads
        self._check_seconds = min(limits.stall, limits.seconds) / CHECKS_PER_TIMEOUT
        self._timer: asyncio.TimerHandle | None = None
        self._request_started = self._last_received = self.loop.time()
        self._is_keep_alive = False
        """Between a response and the next request, where uvicorn's own timeout applies."""
        self._unsent, self._last_sent = 0, self.loop.time()
        """Bytes in the write buffer, and when some of them were last sent."""

    @property
    def is_responding(self) -> bool:
        """Whether the client has received the beginning of a response."""
        return getattr(self.cycle, "response_started", False)  # there may be no cycle yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Pauses writing whenever the buffer is not empty, so it shrinks only by what is sent.
        transport.set_write_buffer_limits(high=0)
        self._timer = self.loop.call_later(self._check_seconds, self._check)
        if len(self.connections) > self._maximum:
            # Drop the connection that has been without a request for longest, perhaps this one.
            idle = [
                other
                for other in self.connections
                if isinstance(other, Connection) and other.conn.their_state is h11.IDLE
            ]
            oldest = min(idle, key=lambda other: other._request_started)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._last_received = self.loop.time()
        if self._is_keep_alive:
            self._request_started, self._is_keep_alive = self._last_received, False
        super().data_received(data)

    def _should_upgrade(self) -> bool:
        """Treat a request to upgrade the connection as any other (RFC 9110, section 7.8), where
        uvicorn would also warn that it has no library for WebSockets."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Reject bytes that are not HTTP, and ignore what the application still sends."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        with suppress(h11.LocalProtocolError):  # there is a response, or it must have no body
            super().send_400_response(msg)
        self.transport.close()

    def on_response_complete(self) -> None:
        self._request_started, self._is_keep_alive = self.loop.time(), True
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._last_sent = self.loop.time()
        super().resume_writing()

    def _check(self) -> None:
        """Close the connection if one of its timeouts has passed."""
        now = self.loop.time()
        self._timer = self.loop.call_later(self._check_seconds, self._check)
        stalled = now - self._limits.stall
        if (unsent := self.transport.get_write_buffer_size()) != self._unsent:
            self._unsent, self._last_sent = unsent, now
        if unsent and self._last_sent <= stalled:
            self.transport.abort()  # close() would wait until the buffer is sent
        elif self.transport.is_closing():
            pass
        elif self.conn.their_state is h11.IDLE:
            if not self._is_keep_alive and self._request_started <= stalled:
                self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY:
            if self.flow.read_paused:  # the server is not reading
                self._last_received = now
            slow = self._request_started <= now - self._limits.seconds
            if self._last_received <= stalled or (slow and self.scope["path"] not in self._uploads):
                self._time_out_body()

    def _time_out_body(self) -> None:
        """Respond with 408 if there is no response yet, then close."""
        if self.conn.our_state is h11.SEND_RESPONSE:
            response = ApiError(408, "the request body did not arrive in time").response()
            response.headers.update({**SECURITY_HEADERS, "Connection": "close"})
            for event in (
                h11.Response(
                    status_code=408, headers=response.raw_headers, reason=b"Request Timeout"
                ),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.abort()
