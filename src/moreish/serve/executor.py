"""Work that takes longer than a step, beside the writing: one piece at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from moreish.serve.batching import QueueFull

T = TypeVar("T")

MAX_WAITING = 32
"""Pieces that wait; more are refused."""


class BackgroundExecutor:
    """A thread with one core for itself, so that it hardly slows those that write."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "side", initializer=torch.set_num_threads, initargs=(1,))
        self._waiting = 0

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What `work` gives. Raises Busy when too much is waiting."""
        if self._waiting >= MAX_WAITING:
            raise QueueFull(5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
