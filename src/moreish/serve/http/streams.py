"""Server-sent events, and work that is canceled when its client disconnects."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from moreish.serve.batching import DeadlineExceeded
from moreish.serve.http.errors import to_api_error

T = TypeVar("T")

EVENT_SCHEMA = {
    "type": "object",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}

EVENT_STREAM_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"itemSchema": EVENT_SCHEMA}}}
}
"""The description of an event stream in OpenAPI 3.2."""


class EventStream(StreamingResponse):
    """Server-sent events (HTML standard, section 9.2), each with one line of JSON as data."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[str], close: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            events: the data of each event; an exception becomes a last event with an `error`.
            close: is called at the end, also when the client disconnects.
        """
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_encode(events), headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _encode(events: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"data: {event}\n\n"
    except Exception as error:
        yield f"data: {json.dumps(to_api_error(error).body())}\n\n"


async def cancel_on_disconnect(
    work: Coroutine[Any, Any, T], request: Request, timeout: float | None = None
) -> T:
    """Run a coroutine and cancel it when the client disconnects or the time is over.

    Args:
        work: computes the response.
        request: the request of the client.
        timeout: in seconds; None for no limit.

    Raises:
        ClientDisconnect: the client disconnected.
        DeadlineExceeded: the timeout has passed.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_wait_for_disconnect(request))
    try:
        done, _ = await asyncio.wait(
            {task, watcher}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            return task.result()
        raise ClientDisconnect if done else DeadlineExceeded
    finally:
        for pending in (task, watcher):
            pending.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
