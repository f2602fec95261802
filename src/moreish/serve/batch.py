"""Continuous batching: texts of many requests are written together, each as if it were alone.

R texts that are being written, V vocabulary.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from moreish.generate.constraints import Automaton, Guide
from moreish.generate.sampling import BLOCK, Sampling, draw, probabilities, uniforms
from moreish.models.base import Model, State
from moreish.serve.unfolding import Unfolding
from moreish.tokenizers.base import Ids, Tokenizer

READ = 128
"""Tokens of prompts that are read between two tokens of those that write."""

TRIALS = 4
"""Steps that are compared to find out whether rows depend on each other."""

END = "<|endoftext|>"
"""How the boundary is shown among alternatives."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """A prompt, and how it is to be continued."""

    lead: Ids
    """Tokens that the model reads before the prompt and that are no part of the text."""
    prompt: Ids
    max_tokens: int
    sampling: Sampling
    seed: int
    n: int = 1
    """Texts."""
    first: int = 0
    """Number of the first: text number i is the one that `moreish sample --seed` writes as its
    number i."""
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """The likeliest tokens that are told beside each that was drawn; None: tell nothing."""
    echo: bool = False
    """The prompt is part of the text."""
    automaton: Automaton | None = None
    """What the text must match."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A token of a text."""

    id: int
    text: str
    logprob: float | None
    """Its natural logarithm, as the model has it, whatever the sampling; of a prompt's first token
    that follows nothing None."""
    top: list[tuple[int, str, float]]
    """The likeliest tokens and their log-probabilities."""
    offset: int
    """Of its first character in the text; of part of a character that character's."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a text gains by a token or more."""

    text: str = ""
    tokens: tuple[Drawn, ...] = ()
    """Those whose text is shown now, if they were asked for."""
    drawn: int = 0
    """Tokens, whether their text is shown yet or not; the boundary is none."""
    finish: Literal["stop", "length"] | None = None
    """With the last piece: the text's own end or a stop string, or the most tokens."""
    log_weight: float = 0.0
    """With the last piece: see `Guide`."""


@dataclass(eq=False)
class Job:
    """A request: texts that are delivered, and given up, together."""

    asks: list[Ask]
    until: float
    """When it is given up, in seconds of time.monotonic()."""
    cancelled: bool = False
    """Whoever asked does not want it any more."""
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def texts(self) -> int:
        return sum(ask.n for ask in self.asks)

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.cancelled or time.monotonic() > self.until


Event = tuple[Job, int, Piece]
"""Of which job, of which of its texts, and what is new."""


class Reading:
    """A prompt on its way through the model, once for all texts that continue it."""

    def __init__(self, ask: Ask, model: Model) -> None:
        ids = np.concatenate([ask.lead, ask.prompt])
        self.tokens_T = torch.from_numpy(
            ids if model.max_length is None else ids[-model.max_length :]
        )
        self.state: State = None
        self.logits_V = torch.empty(0)
        """After its last token."""
        self.keeps = ask.echo and ask.logprobs is not None
        self.logits: list[Tensor] = []
        """After every token, if that is to be told."""
        self._done = 0

    @property
    def finished(self) -> bool:
        return self._done == len(self.tokens_T)

    def read(self, model: Model, device: torch.device) -> int:
        """Read on for a while; how many tokens that was."""
        piece_T = self.tokens_T[self._done :][: min(READ, model.max_length or READ)]
        logits_1TV, self.state = model(piece_T[None].to(device), self.state)
        self._done += len(piece_T)
        if self.keeps:
            self.logits.append(logits_1TV[0].float().cpu())
        if self.finished:
            self.logits_V = logits_1TV[0, -1].float().cpu()
        return len(piece_T)


class Text:
    """One text that is being written."""

    def __init__(self, job: Job, ask: Ask, reading: Reading, place: int, number: int) -> None:
        """`place` among the texts of the job; `number` among those of the prompt."""
        self.job, self.ask, self.reading, self.place = job, ask, reading, place
        self.number = number
        self.state: State = None
        self.token = -1
        """The last that was drawn: the next that the model reads."""
        self.written = 0
        """Tokens."""
        self.guide = Guide(ask.automaton, ask.prompt, 1) if ask.automaton is not None else None
        self.unfolding = Unfolding(ask.stop)
        self.before = 0
        """Characters of the text that are the prompt's."""
        self.untold: list[Drawn] = []
        self._uniform_N = torch.empty(0)

    def uniform(self) -> float:
        """The random number for the next token: that of its seed, number and position."""
        at = self.written % BLOCK
        if at == 0:
            streams = range(self.number, self.number + 1)
            self._uniform_N = uniforms(self.ask.seed, self.written // BLOCK, streams)[0]
        return float(self._uniform_N[at])


class Batch:
    """The texts that are written at a time, and those that wait.

    What a text becomes does not depend on the others: its prompt is read by itself; its token is
    drawn by its own random numbers; and the products of a step are the same whatever rows stand
    beside a row (`least_rows` finds from how many rows on that is so).
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, slots: int) -> None:
        """`model` is changed: see `laid_out`."""
        self.model, self.tokenizer, self.slots = laid_out(model), tokenizer, slots
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.waiting: deque[Text] = deque()
        self.writing: list[Text] = []
        self.drawn = 0
        """Tokens, of all texts."""
        self.label = lru_cache(maxsize=1 << 16)(self._label)
        self.rows = least_rows(model, slots, self.device)
        with torch.inference_mode():
            _, self._idle = model(torch.zeros(1, 1, dtype=torch.long, device=self.device))

    def add(self, job: Job) -> None:
        """Texts to be written, after those that wait."""
        place = 0
        for ask in job.asks:
            reading = Reading(ask, self.model)
            for number in range(ask.first, ask.first + ask.n):
                self.waiting.append(Text(job, ask, reading, place, number))
                place += 1

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.writing

    def clear(self) -> list[Job]:
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

    def _begun(self) -> list[Text]:
        """Texts whose prompt is read, as many as there is room for."""
        begun: list[Text] = []
        left = READ
        while self.waiting and left > 0 and len(self.writing) + len(begun) < self.slots:
            text = self.waiting[0]
            if not text.reading.finished:
                left -= text.reading.read(self.model, self.device)
            if text.reading.finished:
                text.state = text.reading.state
                begun.append(self.waiting.popleft())
        return begun

    def _first(self, begun: list[Text]) -> Iterator[Event]:
        for text in begun:
            if text.ask.echo:
                yield text.job, text.place, self._echoed(text)
        done = [text for text in begun if text.ask.max_tokens == 0]
        for text in done:
            yield text.job, text.place, Piece(finish="length")
        begun = [text for text in begun if text.ask.max_tokens > 0]
        if begun:
            self.writing += begun
            yield from self._drawn(begun, torch.stack([text.reading.logits_V for text in begun]))

    def _decoded(self) -> Tensor:
        """(R, V) logits after the last token of each text."""
        if self.rows == 0:
            return torch.cat([self._stepped([text]) for text in self.writing])
        return self._stepped(self.writing)

    def _stepped(self, texts: list[Text]) -> Tensor:
        spare = max(0, self.rows - len(texts))
        tokens = [text.token for text in texts] + [0] * spare
        states = [text.state for text in texts] + [self._idle] * spare
        token_R = torch.tensor(tokens, device=self.device)
        logits_RV, states = self.model.decode_step(token_R, states)
        for text, state in zip(texts, states, strict=False):
            text.state = state
        return logits_RV[: len(texts)].float().cpu()

    def _drawn(self, texts: list[Text], logits_RV: Tensor) -> Iterator[Event]:
        """A token of each text; those that end are no longer written."""
        if (never := self.tokenizer.unk) is not None:
            logits_RV = logits_RV.index_fill(1, torch.tensor([never]), -torch.inf)
        tokens = self._tokens(texts, logits_RV)
        ended = set()
        for row, (text, token) in enumerate(zip(texts, tokens, strict=True)):
            piece = self._taken(text, token, logits_RV[row])
            if piece.finish is not None:
                ended.add(text)
            yield text.job, text.place, piece
        self.writing = [text for text in self.writing if text not in ended]

    def _tokens(self, texts: list[Text], logits_RV: Tensor) -> list[int]:
        tokens = [0] * len(texts)
        alike: dict[Sampling, list[int]] = {}
        for row, text in enumerate(texts):
            if text.guide is None:
                alike.setdefault(text.ask.sampling, []).append(row)
            else:
                tokens[row] = _guided(text, text.guide, logits_RV[row : row + 1])
        for sampling, some in alike.items():
            shares_RV = probabilities(logits_RV[some], sampling)
            uniform_R = torch.tensor([texts[row].uniform() for row in some], dtype=torch.float64)
            for row, token in zip(some, draw(shares_RV, uniform_R).tolist(), strict=True):
                tokens[row] = token
        return tokens

    def _taken(self, text: Text, token: int, logits_V: Tensor) -> Piece:
        """What the text gains by this token."""
        ask = text.ask
        finish: Literal["stop", "length"] | None = None
        shown, drawn = "", 0
        if token == self.tokenizer.boundary:
            finish = "stop"
        else:
            offset = text.before + text.unfolding.length
            if ask.logprobs is not None:
                text.untold.append(self._told(token, logits_V, ask.logprobs, offset))
            text.token = token
            text.written += 1
            drawn = 1
            self.drawn += 1
            shown = text.unfolding.add(self.tokenizer.to_bytes(np.array([token])))
            if text.unfolding.stopped:
                finish = "stop"
            elif text.written == ask.max_tokens:
                finish = "length"
        if finish is not None:
            shown += text.unfolding.end()
        weight = 0.0 if finish is None or text.guide is None else float(text.guide.log_weight_B[0])
        told = self._shown(text, whole=finish is not None and not text.unfolding.stopped)
        return Piece(text=shown, tokens=told, drawn=drawn, finish=finish, log_weight=weight)

    def _shown(self, text: Text, *, whole: bool) -> tuple[Drawn, ...]:
        """The tokens that may be told now: all, at the end, else those whose text is shown."""
        end = text.before + text.unfolding.shown
        count = len(text.untold)
        if not whole:
            count = sum(1 for drawn in text.untold if drawn.offset < end)
        told, text.untold = text.untold[:count], text.untold[count:]
        return tuple(told)

    def _told(self, token: int, logits_V: Tensor, most: int, offset: int) -> Drawn:
        logs_V = logits_V.double().log_softmax(dim=-1)
        best = logs_V.topk(min(most, len(logs_V)))
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return Drawn(
            id=token,
            text=self.label(token),
            logprob=float(logs_V[token]),
            top=[(other, self.label(other), log) for other, log in top],
            offset=offset,
        )

    def _echoed(self, text: Text) -> Piece:
        """The prompt, with what the model made of its tokens if that is asked."""
        ask, unfolding = text.ask, Unfolding()
        told = []
        logits_TV = torch.cat(text.reading.logits) if text.reading.keeps else torch.empty(0)
        # Tokens whose logits there are: all, but for a first one before which nothing was read.
        skipped = len(ask.lead) + len(ask.prompt) - len(logits_TV)
        for at, token in enumerate(ask.prompt.tolist()):
            if ask.logprobs is not None:
                place = len(ask.lead) + at - 1 - skipped
                if place < 0:
                    told.append(
                        Drawn(
                            id=token,
                            text=self.label(token),
                            logprob=None,
                            top=[],
                            offset=unfolding.length,
                        )
                    )
                else:
                    told.append(self._told(token, logits_TV[place], ask.logprobs, unfolding.length))
            unfolding.add(self.tokenizer.to_bytes(np.array([token])))
        shown = self.tokenizer.to_bytes(ask.prompt).decode("utf-8", "replace")
        text.before = len(shown)
        return Piece(text=shown, tokens=tuple(told))

    def _label(self, token: int) -> str:
        if token == self.tokenizer.boundary:
            return END
        raw = self.tokenizer.to_bytes(np.array([token]))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _guided(text: Text, guide: Guide, logits_1V: Tensor) -> int:
    sampling = text.ask.sampling
    shares_1V = probabilities(logits_1V, sampling)
    plain_1V = logits_1V.double().softmax(dim=-1)
    shares_1V = guide.steer(shares_1V, plain_1V, greedy=sampling.temperature == 0)
    token_1 = draw(shares_1V, torch.tensor([text.uniform()], dtype=torch.float64))
    guide.advance(token_1)
    return int(token_1)


def laid_out(model: Model) -> Model:
    """`model` with the weights of its linear layers in memory input by input.

    On a CPU a product with eight or sixteen rows takes half the time so, and is the same for each
    row whatever the number of rows is, which it is not with the usual layout (docs/dev-log.md).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.mT.contiguous().mT
    return model.eval()


@torch.inference_mode()
def least_rows(model: Model, slots: int, device: torch.device) -> int:
    """From how many rows on a step gives each row the same bits, whatever its place and the others.

    Found by trying, since it depends on the library that multiplies, on the machine, and on widths:
    rows are put in other orders, among fewer others, several times. 0 if there is no such number,
    and each text has to be written by itself.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randint(model.vocab_size, shape, generator=generator).to(device)

    trials = []
    for _ in range(TRIALS):
        states = [model(random(1, 1 + row % 5))[1] for row in range(slots)]
        token_R = random(slots)
        trials.append((token_R, states, model.decode_step(token_R, states)[0]))

    def agrees(size: int) -> bool:
        for first in {0, slots - size, (slots - size) // 2}:
            some = list(range(first, first + size))[::-1]
            for token_R, states, expected_RV in trials:
                found_RV, _ = model.decode_step(token_R[some], [states[row] for row in some])
                if not torch.equal(found_RV, expected_RV[some]):
                    return False
        return True

    least = 0
    for size in range(slots, 0, -1):
        if (size <= 16 or size % 4 == 0 or size == slots) and not agrees(size):
            break
        least = size
    return least
