"""A thread that writes, and the way to it for those that wait without blocking."""

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
from moreish.serve.batching.batch import Batch
from moreish.serve.batching.requests import GenerationRequest, SequenceDelta, SequenceRequest
from moreish.tokenizers import Tokenizer

SMALL = 30_000_000
"""Parameters below which one thread writes. Two would do a step in two thirds of the time, if they
were alone: they wait for each other at every product, and a processor is busy with those who
listen (docs/dev-log.md)."""

Pieces = list[tuple[int, SequenceDelta]]
"""What texts of a request gained, each with its place."""


class QueueFull(Exception):  # noqa: N818 (it is an answer, no error)
    """The queue is full; there may be room in so many seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many texts are waiting: try again in {seconds} s")
        self.seconds = seconds


class ShuttingDown(Exception):  # noqa: N818
    """The server is about to stop."""


class DeadlineExceeded(Exception):  # noqa: N818
    """The request was given up for its time."""


class GenerationFailed(Exception):  # noqa: N818
    """The model could not go on; the log says why."""


class Engine:
    """Writes the texts of all requests for one model, in a thread of its own.

    Only that thread touches the batch. Requests come to it through a list; what was written goes
    back to the event loop, all of a step in one go.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        slots: int,
        queue: int,
        ended: "Callable[[GenerationStream], None]" = lambda answer: None,
    ) -> None:
        """
        Args:
            slots: texts that are written at a time.
            queue: texts that may wait for one.
            ended: is told of every request that is over, however it went.
        """
        small = sum(p.numel() for p in model.parameters()) < SMALL
        self.threads = 1 if small else torch.get_num_threads()
        with limit_threads(self.threads):
            self._batch = Batch(model, tokenizer, slots)
        self.slots, self.queue, self._ended = slots, queue, ended
        self._new: list[GenerationRequest] = []
        self._open: dict[GenerationRequest, GenerationStream] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._pace = 1.0
        """Seconds from a request to its end, of late."""
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def alone(self) -> bool:
        """Whether each text has to be written by itself."""
        return self._batch.rows == 0

    @property
    def writing(self) -> int:
        """Texts that are being written."""
        return len(self._batch.writing)

    @property
    def waiting(self) -> int:
        """Texts that wait for a slot."""
        return len(self._batch.waiting) + sum(job.texts for job in self._new)

    @property
    def open(self) -> int:
        """Requests that somebody listens to."""
        return len(self._open)

    @property
    def drawn(self) -> int:
        """Tokens, since the start."""
        return self._batch.drawn

    def submit(self, asks: list[SequenceRequest], seconds: float) -> "GenerationStream":
        """Have texts written; to be called on the event loop that is to hear of them.

        Args:
            seconds: after which the request is given up.

        Raises:
            Busy: too many texts are waiting.
            Closing: no more requests are taken.
        """
        job = GenerationRequest(asks, time.monotonic() + seconds)
        answer = GenerationStream(self, job)
        with self._wake:
            if self._stopping:
                raise ShuttingDown
            texts = sum(other.texts for other in self._open)
            if texts + job.texts > self.queue + self.slots:
                raise QueueFull(min(60, max(1, math.ceil(texts / self.slots * self._pace))))
            self._new.append(job)
            self._open[job] = answer
            self._wake.notify()
        return answer

    def give_up(self, job: GenerationRequest) -> None:
        """Nobody listens any more: its slots are free within a token."""
        job.cancelled = True
        with self._wake:
            answer = self._open.pop(job, None)
            self._wake.notify()
        if answer is not None:
            self._pace += 0.1 * (time.monotonic() - job.asked_at - self._pace)
            self._ended(answer)

    def stop(self, seconds: float) -> None:
        """Take no more requests, end those that there are, for no longer than this, and give up the
        others."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(seconds)
        self._tell(dict.fromkeys(list(self._open), ShuttingDown()))
        for job in list(self._open):
            job.cancelled = True
        self._thread.join(10)

    def _work(self) -> None:
        torch.set_num_threads(self.threads)
        while True:
            with self._wake:
                while not self._new and self._batch.idle and not self._stopping:
                    self._wake.wait()
                if self._stopping and not self._new and self._batch.idle:
                    return
                new, self._new = self._new, []
            told = self._turn(new)
            # Those that were given up for their time hear that, and nothing else.
            self._tell(
                {**told, **{job: DeadlineExceeded() for job in list(self._open) if job.over}}
            )

    def _turn(self, new: list[GenerationRequest]) -> "Told":
        """What each request gained, or why it gains no more."""
        pieces: dict[GenerationRequest, Pieces] = {}
        try:
            for job in new:
                self._batch.add(job)
            for job, place, piece in self._batch.turn():
                pieces.setdefault(job, []).append((place, piece))
        except Exception:  # whatever it is, those who wait must hear of it, and others go on
            logging.getLogger("moreish.serve").exception("a model could not go on")
            return dict.fromkeys([*self._batch.clear(), *new], GenerationFailed())
        return dict(pieces)

    def _tell(self, told: "Told") -> None:
        with self._wake:
            answers = [(self._open[job], what) for job, what in told.items() if job in self._open]
        for loop in {answer.loop for answer, _ in answers}:
            some = [(answer, what) for answer, what in answers if answer.loop is loop]
            with suppress(RuntimeError):  # it is closed: nobody listens
                loop.call_soon_threadsafe(_hand_over, some)


class GenerationStream:
    """What a request hears; to be closed, since that frees its slots."""

    def __init__(self, engine: Engine, job: GenerationRequest) -> None:
        self.loop = asyncio.get_running_loop()
        self.job, self._engine = job, engine
        self.first_token: float | None = None
        """Seconds that the first piece took to come."""
        self._left = job.texts
        self._error: Exception | None = None
        self._pieces: Pieces = []
        self._there = asyncio.Event()

    def close(self) -> None:
        """Stop listening."""
        self._engine.give_up(self.job)

    def take(self, what: "Pieces | Exception") -> None:
        """Told by the engine, on the event loop: what is new, or why there is no more."""
        if isinstance(what, Exception):
            self._error = self._error or what  # the first is the reason
        else:
            if self.first_token is None:
                self.first_token = time.monotonic() - self.job.asked_at
            self._pieces += what
            self._left -= sum(1 for _, piece in what if piece.finish is not None)
        self._there.set()

    async def __aiter__(self) -> AsyncIterator[Pieces]:
        """What the texts gain, step by step, until each has ended.

        Raises:
            Late, Failed, Closing: they will not end.
        """
        while self._left:
            await self._there.wait()
            self._there.clear()
            pieces, self._pieces = self._pieces, []
            if pieces:
                yield pieces
            if self._error is not None:
                raise self._error
        if self._pieces:
            yield self._pieces


Told = dict[GenerationRequest, Pieces | Exception]


def _hand_over(told: list[tuple[GenerationStream, Pieces | Exception]]) -> None:
    for answer, what in told:
        answer.take(what)
