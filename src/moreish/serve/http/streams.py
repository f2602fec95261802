"""Answers on their way to clients that may go, or stop reading."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moreish.serve.batching import DeadlineExceeded
from moreish.serve.http.errors import to_api_error

T = TypeVar("T")

EVENT_STREAM_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "properties": {
                        "data": {"type": "string", "contentMediaType": "application/json"}
                    },
                    "required": ["data"],
                }
            }
        }
    }
}
"""What OpenAPI 3.2 has for a stream of them."""


class ClientDisconnected(Exception):  # noqa: N818
    """The client has closed the connection."""


class EventStream(Response):
    """Server-sent events (the HTML standard, section 9.2), each a line of JSON."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[str], close: Callable[[], None] = lambda: None
    ) -> None:
        """`close` is called in any case: at the end, or when the client goes."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnected):
                await until_gone(asyncio.create_task(self._send(send)), receive)
        finally:
            self._close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for event in self._events:
            body = f"data: {event}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(work: "asyncio.Task[T]", receive: Callable[[], Awaitable[Any]]) -> T:
    """What `work` gives, unless the client goes before.

    Raises:
        Gone: it went.
    """
    leaving = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnected
        return work.result()
    finally:
        for task in (work, leaving):
            task.cancel()
        await asyncio.gather(work, leaving, return_exceptions=True)


async def cancel_on_disconnect(
    work: Coroutine[Any, Any, T], request: Request, seconds: float | None = None
) -> T | Response:
    """The answer to a request, unless nobody waits for it any more: the work is then given up.

    Raises:
        Late: it took longer than `seconds`, and was given up for that.
    """
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await until_gone(asyncio.create_task(work), request.receive)
    except ClientDisconnected:
        return Response(status_code=499)
    except TimeoutError:
        if deadline.expired():
            raise DeadlineExceeded from None
        raise


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def with_error_event(
    events: AsyncIterator[str], shape: Callable[[dict[str, Any]], str]
) -> AsyncIterator[str]:
    """The events; an error on the way is the last of them."""
    try:
        async for event in events:
            yield event
    except Exception as error:
        yield shape(to_api_error(error).body())
