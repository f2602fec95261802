"""Worker processes that audit texts and train: see `moreish.serve.jobs.worker`."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from moreish.serve.batching import QueueFull
from moreish.serve.http import ApiError
from moreish.utils.platforms import new_group_options

MAX_WAITING = 8
"""Audits that may wait for the one that is running."""


async def start_worker(command: str, options: dict[str, Any]) -> Process:
    """Start a worker process.

    Args:
        command: "doctor", "plan", "train" or "resume".
        options: the keyword arguments of the function of that name in `moreish.api`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moreish.serve.jobs.worker",
        stdin=PIPE,
        stdout=PIPE,
        **new_group_options(),  # Ctrl-C goes to the server, which passes it on
        limit=1 << 24,
    )
    assert process.stdin is not None
    task = {"command": command, "options": options}
    process.stdin.write(json.dumps(task).encode() + b"\n")
    process.stdin.close()
    return process


async def read_messages(process: Process) -> AsyncIterator[dict[str, Any]]:
    """Yield the messages of a worker as they arrive."""
    assert process.stdout is not None
    async for line in process.stdout:
        with suppress(ValueError):  # a line that is not from us
            yield json.loads(line)


class WorkerQueue:
    """Runs audits and plans one at a time, since each may take all of a core and much memory."""

    def __init__(self) -> None:
        self._lock, self._num_waiting = asyncio.Lock(), 0

    async def run(self, command: str, options: dict[str, Any]) -> dict[str, Any]:
        """Run a worker and return its message with `result` or `error`. Canceling the call kills
        the process.

        Raises:
            QueueFull: too many calls are waiting.
            ApiError: the process ended without a result (500).
        """
        if self._num_waiting > MAX_WAITING:
            raise QueueFull(2)
        self._num_waiting += 1
        try:
            async with self._lock:
                return await _run_worker(command, options)
        finally:
            self._num_waiting -= 1


async def _run_worker(command: str, options: dict[str, Any]) -> dict[str, Any]:
    process = await start_worker(command, options)
    try:
        async for message in read_messages(process):
            if "error" in message or "result" in message:
                return message
        raise ApiError(500, "the worker process failed; see the server's log", code="model_failed")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
