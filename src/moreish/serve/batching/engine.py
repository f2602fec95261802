"""A thread that generates, and asynchronous streams from which requests read the results."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import torch

from moreish.generate import limit_threads
from moreish.models import Model
from moreish.serve.batching import errors
from moreish.serve.batching.requests import GenerationRequest, SequenceDelta, SequenceRequest
from moreish.serve.batching.scheduler import BatchScheduler
from moreish.tokenizers import Tokenizer

SINGLE_THREAD_PARAMETERS = 30_000_000
"""Models with fewer parameters run in one thread. Two threads would take two thirds of the time for
a step on an idle machine, but they wait for each other at every matrix product, and handling
requests keeps a core busy (docs/dev-log.md)."""

Deltas = list[tuple[int, SequenceDelta]]
"""What steps add to the sequences of a request, each with the index of its sequence."""


class Engine:
    """Generates the sequences of all requests for one model in a thread of its own.

    Only that thread uses the scheduler. It receives new requests through a list; the results of a
    step go to the event loop in a single call.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        slots: int,
        queue: int,
        on_finished: "Callable[[GenerationStream], None]" = lambda stream: None,
    ) -> None:
        """
        Args:
            model: the memory layout of its weights is changed.
            tokenizer: the model's tokenizer.
            slots: maximum number of sequences in a step.
            queue: maximum number of sequences that wait for a slot.
            on_finished: is called with the stream of each request that is over for any reason.
        """
        small = sum(p.numel() for p in model.parameters()) < SINGLE_THREAD_PARAMETERS
        self.threads = 1 if small else torch.get_num_threads()
        with limit_threads(self.threads):
            self._scheduler = BatchScheduler(model, tokenizer, slots)
        self.slots, self.queue, self._on_finished = slots, queue, on_finished
        self._new: list[GenerationRequest] = []
        self._open: dict[GenerationRequest, GenerationStream] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._mean_latency = 1.0
        """Exponential moving average of the seconds from a request's submission to its end."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def is_batching(self) -> bool:
        """Whether sequences are decoded together; if not, each takes a step of its own."""
        return self._scheduler.min_rows > 0

    @property
    def num_running(self) -> int:
        """Sequences that are being generated."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._scheduler.waiting) + sum(request.num_sequences for request in self._new)

    @property
    def num_requests(self) -> int:
        """Requests that are neither complete nor canceled."""
        return len(self._open)

    @property
    def num_generated(self) -> int:
        """Tokens generated since the start."""
        return self._scheduler.num_generated

    def submit(self, sequences: list[SequenceRequest], timeout: float) -> "GenerationStream":
        """Queue sequences for generation; call it on the event loop that reads the stream.

        Args:
            sequences: prompts and their settings.
            timeout: seconds after which the request fails.

        Returns:
            The stream of results, which must be closed.

        Raises:
            QueueFull: too many sequences are waiting.
            ShuttingDown: the engine takes no more requests.
        """
        request = GenerationRequest(sequences, time.monotonic() + timeout)
        stream = GenerationStream(self, request)
        with self._wake:
            if self._stopping:
                raise errors.ShuttingDown
            total = sum(other.num_sequences for other in self._open)
            if total + request.num_sequences > self.queue + self.slots:
                seconds = math.ceil(total / self.slots * self._mean_latency)
                raise errors.QueueFull(min(60, max(1, seconds)))
            self._new.append(request)
            self._open[request] = stream
            self._wake.notify()
        return stream

    def cancel(self, request: GenerationRequest) -> None:
        """End a request; its slots are free after the current step."""
        request.cancelled = True
        with self._wake:
            stream = self._open.pop(request, None)
            self._wake.notify()
        if stream is not None:
            latency = time.monotonic() - request.submitted_at
            self._mean_latency += 0.1 * (latency - self._mean_latency)
            self._on_finished(stream)

    def stop(self, timeout: float) -> None:
        """Take no more requests, wait for those in progress, and cancel what is left.

        Args:
            timeout: seconds to wait.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)
        self._publish(dict.fromkeys(list(self._open), errors.ShuttingDown()))
        for request in list(self._open):
            request.cancelled = True
        self._thread.join(10)

    def _run(self) -> None:
        torch.set_num_threads(self.threads)
        while True:
            with self._wake:
                while not self._new and self._scheduler.is_idle and not self._stopping:
                    self._wake.wait()
                if self._stopping and not self._new and self._scheduler.is_idle:
                    return
                new, self._new = self._new, []
            updates = self._step(new)
            for request in list(self._open):
                if request.is_over:
                    updates[request] = errors.DeadlineExceeded()
            self._publish(updates)

    def _step(self, new: list[GenerationRequest]) -> "Updates":
        """Add new requests and run one step of the scheduler."""
        updates: dict[GenerationRequest, Deltas] = {}
        try:
            for request in new:
                self._scheduler.add(request)
            for request, index, delta in self._scheduler.step():
                updates.setdefault(request, []).append((index, delta))
        except Exception:  # its requests fail, and the engine continues
            logging.getLogger("moreish.serve").exception("a generation step failed")
            return dict.fromkeys([*self._scheduler.clear(), *new], errors.GenerationFailed())
        return dict(updates)

    def _publish(self, updates: "Updates") -> None:
        """Hand updates to the event loops that read them."""
        with self._wake:
            found = [(self._open[r], update) for r, update in updates.items() if r in self._open]
        for loop in {stream.loop for stream, _ in found}:
            own = [(stream, update) for stream, update in found if stream.loop is loop]
            with suppress(RuntimeError):  # the loop is closed, so there is no reader
                loop.call_soon_threadsafe(_put_all, own)


class GenerationStream:
    """The results of a request as they arrive; close it to free the request's slots."""

    def __init__(self, engine: Engine, request: GenerationRequest) -> None:
        self.loop = asyncio.get_running_loop()
        self.request, self._engine = request, engine
        self.time_to_first_token: float | None = None
        """In seconds; None until there is one."""
        self.num_tokens = 0
        """Tokens generated so far."""
        self._num_unfinished = request.num_sequences
        self._error: Exception | None = None
        self._deltas: Deltas = []
        self._ready = asyncio.Event()

    def close(self) -> None:
        """Cancel the request, if it is not complete."""
        self._engine.cancel(self.request)

    def put(self, update: "Deltas | Exception") -> None:
        """Add results, or the reason why there are no more; called on the event loop."""
        if isinstance(update, Exception):
            self._error = self._error or update  # a later error is a consequence of the first
        else:
            if self.time_to_first_token is None:
                self.time_to_first_token = time.monotonic() - self.request.submitted_at
            self.num_tokens += sum(delta.num_tokens for _, delta in update)
            self._deltas += [(index, delta) for index, delta in update if delta.is_visible]
            self._num_unfinished -= sum(delta.finish_reason is not None for _, delta in update)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, SequenceDelta]]:
        """Yield what the steps add to each sequence, with its index, until all are complete.

        Raises:
            EngineError: why the request ends before that.
        """
        while self._num_unfinished or self._deltas:
            await self._ready.wait()
            self._ready.clear()
            deltas, self._deltas = self._deltas, []
            for index, delta in deltas:
                yield index, delta
            if self._error is not None and self._num_unfinished:
                raise self._error


Updates = dict[GenerationRequest, Deltas | Exception]


def _put_all(updates: list[tuple[GenerationStream, Deltas | Exception]]) -> None:
    for stream, update in updates:
        stream.put(update)
