"""Processes that read whole texts or train: `moreish.serve.jobs.worker`, and what it tells."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from moreish.serve.batching import DeadlineExceeded, GenerationFailed, QueueFull

MAX_WAITING = 8
"""Readings that wait for the one that is on; more are refused."""


async def start_worker(verb: str, options: dict[str, Any]) -> Process:
    """A process that does it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moreish.serve.jobs.worker",
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for the server, which passes it on
        limit=1 << 24,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"verb": verb, "options": options}).encode() + b"\n")
    process.stdin.close()
    return process


async def read_messages(process: Process) -> AsyncIterator[dict[str, Any]]:
    """What it tells, as it does."""
    assert process.stdout is not None
    async for line in process.stdout:
        with suppress(ValueError):
            yield json.loads(line)


class TextWorker:
    """Readings of texts, one at a time: each may take all of a core, and as much memory."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: after which one is given up, its waiting included."""
        self._seconds, self._turn, self._waiting = seconds, asyncio.Lock(), 0

    async def ask(self, verb: str, options: dict[str, Any]) -> dict[str, Any]:
        """The `result` or `mistake` of a reading, once those before it are done. Whoever cancels it
        ends its process.

        Raises:
            Busy: too many wait already.
            Late: it took too long.
            Failed: it came to an end that should not be.
        """
        if self._waiting > MAX_WAITING:
            raise QueueFull(2)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds), self._turn:
                return await _answer(verb, options)
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self._waiting -= 1


async def _answer(verb: str, options: dict[str, Any]) -> dict[str, Any]:
    process = await start_worker(verb, options)
    try:
        async for told in read_messages(process):
            if "mistake" in told or "result" in told:
                return told
        raise GenerationFailed
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
