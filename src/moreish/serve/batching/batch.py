"""Continuous batching: texts of many requests are written together, each as if it were alone.

R texts that are being written, V vocabulary.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from moreish.generate import Sampling, sample_tokens, sampling_probabilities
from moreish.models import Model
from moreish.serve.batching.batch_invariance import min_invariant_batch, transpose_weights
from moreish.serve.batching.requests import (
    PREFILL_CHUNK,
    Event,
    GenerationRequest,
    LogprobFormatter,
    Prefill,
    SequenceDelta,
    SequenceState,
    TokenLogprob,
)
from moreish.tokenizers import Tokenizer


class Batch:
    """The texts that are written at a time, and those that wait.

    What a text becomes does not depend on the others: its prompt is read by itself; its token is
    drawn by its own random numbers; and the products of a step are the same whatever rows stand
    beside a row (`min_invariant_batch` finds from how many rows on that is so).
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, slots: int) -> None:
        """`model` is changed: see `transpose_weights`."""
        self.model, self.tokenizer, self.slots = transpose_weights(model), tokenizer, slots
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.waiting: deque[SequenceState] = deque()
        self.writing: list[SequenceState] = []
        self.drawn = 0
        """Tokens, of all texts."""
        self.teller = LogprobFormatter(tokenizer)
        self.rows = min_invariant_batch(model, slots, self.device)
        with torch.inference_mode():
            _, self._idle = model(torch.zeros(1, 1, dtype=torch.long, device=self.device))

    def add(self, job: GenerationRequest) -> None:
        """Texts to be written, after those that wait."""
        place = 0
        for ask in job.asks:
            reading = Prefill(ask, self.model, self.teller)
            for number in range(ask.first, ask.first + ask.n):
                self.waiting.append(SequenceState(job, ask, reading, place, number))
                place += 1

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.writing

    def clear(self) -> list[GenerationRequest]:
        """Give everything up; whose jobs it was."""
        jobs = list(dict.fromkeys(text.job for text in (*self.writing, *self.waiting)))
        self.waiting.clear()
        self.writing.clear()
        return jobs

    @torch.inference_mode()
    def turn(self) -> Iterator[Event]:
        """One more token of all that write, after room was given to those that wait."""
        self.writing = [text for text in self.writing if not text.job.over]
        self.waiting = deque(text for text in self.waiting if not text.job.over)
        if self.writing:
            logits_RV = self._decoded()
            yield from self._drawn(self.writing, logits_RV)
        begun = self._begun()
        if begun:
            yield from self._first(begun)

    def _begun(self) -> list[SequenceState]:
        """Texts whose prompt is read, as many as there is room for."""
        begun: list[SequenceState] = []
        left = PREFILL_CHUNK
        while self.waiting and left > 0 and len(self.writing) + len(begun) < self.slots:
            text = self.waiting.popleft()
            if not text.reading.finished:
                left -= text.reading.read(self.model, self.device)
            if text.reading.finished:
                text.state = text.reading.state
                begun.append(text)
            else:  # a long prompt does not keep all others waiting
                self.waiting.append(text)
        return begun

    def _first(self, begun: list[SequenceState]) -> Iterator[Event]:
        for text in begun:
            if text.ask.echo:
                yield text.job, text.place, text.echoed()
        done = [text for text in begun if text.ask.max_tokens == 0]
        for text in done:
            yield text.job, text.place, SequenceDelta(finish="length")
        begun = [text for text in begun if text.ask.max_tokens > 0]
        if begun:
            self.writing += begun
            yield from self._drawn(begun, torch.stack([text.reading.logits_V for text in begun]))

    def _decoded(self) -> Tensor:
        """(R, V) logits after the last token of each text."""
        if self.rows == 0:
            return torch.cat([self._stepped([text]) for text in self.writing])
        return self._stepped(self.writing)

    def _stepped(self, texts: list[SequenceState]) -> Tensor:
        spare = max(0, self.rows - len(texts))
        tokens = [text.token for text in texts] + [0] * spare
        states = [text.state for text in texts] + [self._idle] * spare
        token_R = torch.tensor(tokens, device=self.device)
        logits_RV, states = self.model.decode_step(token_R, states)
        for text, state in zip(texts, states, strict=False):
            text.state = state
        return logits_RV[: len(texts)].float().cpu()

    def _drawn(self, texts: list[SequenceState], logits_RV: Tensor) -> Iterator[Event]:
        """A token of each text; those that end are no longer written."""
        if (never := self.tokenizer.unk_id) is not None:
            logits_RV = logits_RV.index_fill(1, torch.tensor([never]), -torch.inf)
        tokens = self._tokens(texts, logits_RV)
        ended = set()
        for row, (text, token) in enumerate(zip(texts, tokens, strict=True)):
            piece = self._taken(text, token, logits_RV[row])
            if piece.finish is not None:
                ended.add(text)
            yield text.job, text.place, piece
        self.writing = [text for text in self.writing if text not in ended]

    def _tokens(self, texts: list[SequenceState], logits_RV: Tensor) -> list[int]:
        tokens = [0] * len(texts)
        alike: dict[Sampling, list[int]] = {}
        for row, text in enumerate(texts):
            if text.constraint is None:
                alike.setdefault(text.ask.sampling, []).append(row)
            else:
                tokens[row] = text.steered(logits_RV[row : row + 1])
        for sampling, some in alike.items():
            probs_RV = sampling_probabilities(logits_RV[some], sampling)
            uniform_R = torch.tensor([texts[row].uniform() for row in some], dtype=torch.float64)
            for row, token in zip(some, sample_tokens(probs_RV, uniform_R).tolist(), strict=True):
                tokens[row] = token
        return tokens

    def _taken(self, text: SequenceState, token: int, logits_V: Tensor) -> SequenceDelta:
        """What the text gains by this token."""
        ask = text.ask
        finish: Literal["stop", "length"] | None = None
        shown, drawn = "", 0
        if ask.logprobs is not None:
            offset = text.before + text.unfolding.length
            text.untold += self.teller.told([token], logits_V[None], [offset], ask.logprobs)
        if token == self.tokenizer.boundary_id:
            finish = "stop"
        else:
            text.token = token
            text.written += 1
            drawn = 1
            self.drawn += 1
            shown = text.unfolding.add(self.tokenizer.decode_bytes(np.array([token])))
            if text.unfolding.stopped:
                finish = "stop"
            elif text.written == ask.max_tokens:
                finish = "length"
        if finish is not None:
            shown += text.unfolding.end()
        weight = 0.0
        if finish is not None and text.constraint is not None:
            weight = float(text.constraint.log_weight_B[0])
        told = self._shown(text, whole=finish is not None and not text.unfolding.stopped)
        return SequenceDelta(text=shown, tokens=told, drawn=drawn, finish=finish, log_weight=weight)

    def _shown(self, text: SequenceState, *, whole: bool) -> tuple[TokenLogprob, ...]:
        """The tokens that may be told now: all, at the end, else those whose text is shown."""
        end = text.before + text.unfolding.shown
        count = len(text.untold)
        if not whole:
            count = sum(1 for drawn in text.untold if drawn.offset < end)
        told, text.untold = text.untold[:count], text.untold[count:]
        return tuple(told)
