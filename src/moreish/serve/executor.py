"""A background thread for work that is too slow for the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from moreish.serve.batching import QueueFull

T = TypeVar("T")

MAX_WAITING = 32
"""Calls that may wait for the thread."""


class BackgroundExecutor:
    """Runs calls one at a time, on one core, so that generation is slowed down little."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(
            1, "background", initializer=torch.set_num_threads, initargs=(1,)
        )
        self._num_waiting = 0

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the thread and return its result.

        Raises:
            QueueFull: too many calls are waiting.
        """
        if self._num_waiting >= MAX_WAITING:
            raise QueueFull(5)
        self._num_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        finally:
            self._num_waiting -= 1

    def stop(self) -> None:
        """Cancel the calls that wait; the one that is running ends on its own."""
        self._pool.shutdown(wait=False, cancel_futures=True)
