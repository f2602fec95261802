"""What is asked of the engine, the texts that come of it, and what is told of them.

T tokens of a prompt, N random numbers, V vocabulary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from moreish.generate import (
    NOISE_BLOCK,
    Automaton,
    ConstrainedDecoder,
    Sampling,
    sample_tokens,
    uniform_noise,
)
from moreish.models import Model, State
from moreish.serve.batching.detokenizer import StreamDetokenizer, decode_complete
from moreish.tokenizers import Ids, Tokenizer

PREFILL_CHUNK = 128
"""Tokens of prompts that are read between two tokens of those that write."""

END_OF_TEXT = "<|endoftext|>"
"""How the boundary is told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceRequest:
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
class TokenLogprob:
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
class SequenceDelta:
    """What a text gains by a token or more."""

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    """Those whose text is shown now, if they were asked for."""
    drawn: int = 0
    """Tokens, whether their text is shown yet or not; the boundary is none."""
    finish: Literal["stop", "length"] | None = None
    """With the last piece: the text's own end or a stop string, or the most tokens."""
    log_weight: float = 0.0
    """With the last piece: see `ConstrainedDecoder`."""


@dataclass(eq=False)
class GenerationRequest:
    """A request: texts that are delivered, and given up, together."""

    asks: list[SequenceRequest]
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


Event = tuple[GenerationRequest, int, SequenceDelta]
"""Of which job, of which of its texts, and what is new."""


class LogprobFormatter:
    """Tells tokens with what the model made of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.label = lru_cache(maxsize=1 << 16)(self._label)

    def told(
        self, tokens: Sequence[int], logits_TV: Tensor, offsets: Sequence[int], most: int
    ) -> list[TokenLogprob]:
        """Each token, with the logits before it, and the `most` likeliest in its place."""
        logs_TV = logits_TV.double().log_softmax(dim=-1)
        best = logs_TV.topk(min(most, logs_TV.shape[1]))
        own_T = logs_TV.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        each = (offsets, own_T.tolist(), best.indices.tolist(), best.values.tolist())
        return [
            TokenLogprob(
                id=token,
                text=self.label(token),
                logprob=log,
                top=list(zip(ids, map(self.label, ids), logs, strict=True)),
                offset=offset,
            )
            for token, offset, log, ids, logs in zip(tokens, *each, strict=True)
        ]

    def _label(self, token: int) -> str:
        if token == self.tokenizer.boundary_id:
            return END_OF_TEXT
        raw = self.tokenizer.decode_bytes(np.array([token]))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Prefill:
    """A prompt on its way through the model, once for all texts that continue it."""

    def __init__(self, ask: SequenceRequest, model: Model, teller: LogprobFormatter) -> None:
        self.ask, self.teller = ask, teller
        self.raw = teller.tokenizer.decode_bytes(ask.prompt)
        """The prompt's bytes."""
        self.told: list[TokenLogprob] = []
        """The prompt's tokens, if they are asked for."""
        self.state: State = None
        self.logits_V = torch.empty(0)
        """After its last token."""
        ids, self._done = np.concatenate([ask.lead, ask.prompt]), 0
        self._tells = ask.echo and ask.logprobs is not None
        if self._tells:
            self._offsets = _offsets(ask.prompt, teller.tokenizer)
            if not len(ask.lead):
                first = int(ask.prompt[0])
                label = teller.label(first)
                self.told = [TokenLogprob(id=first, text=label, logprob=None, top=[], offset=0)]
        else:  # what comes next depends on no more than this
            ids = ids[-(model.max_length or model.context) :]
        self.tokens_T = torch.from_numpy(ids)

    @property
    def finished(self) -> bool:
        return self._done == len(self.tokens_T)

    def read(self, model: Model, device: torch.device) -> int:
        """Read on for a while; how many tokens that was."""
        piece_T = self.tokens_T[self._done :][
            : min(PREFILL_CHUNK, model.max_length or PREFILL_CHUNK)
        ]
        logits_1TV, self.state = model(piece_T[None].to(device), self.state)
        self._done += len(piece_T)
        if self._tells:
            self._tell(logits_1TV[0].float().cpu())
        if self.finished:
            self.logits_V = logits_1TV[0, -1].float().cpu()
        return len(piece_T)

    def _tell(self, logits_TV: Tensor) -> None:
        """Of the tokens that follow those that were just read."""
        assert self.ask.logprobs is not None
        first = self._done - len(logits_TV) + 1 - len(self.ask.lead)  # among the prompt's
        skipped = max(0, -first)
        end = min(first + len(logits_TV), len(self.ask.prompt))
        if (begin := first + skipped) < end:
            tokens = self.ask.prompt[begin:end].tolist()
            logits_TV = logits_TV[skipped : skipped + len(tokens)]
            offsets = self._offsets[begin:end]
            self.told += self.teller.told(tokens, logits_TV, offsets, self.ask.logprobs)


def _offsets(prompt: Ids, tokenizer: Tokenizer) -> list[int]:
    """In the text of the prompt, of each token's first character."""
    unfolding, offsets = StreamDetokenizer(), []
    for token in prompt:
        offsets.append(unfolding.length)
        unfolding.add(tokenizer.decode_bytes(np.array([token])))
    return offsets


class SequenceState:
    """One text that is being written."""

    def __init__(
        self,
        job: GenerationRequest,
        ask: SequenceRequest,
        reading: Prefill,
        place: int,
        number: int,
    ) -> None:
        """`place` among the texts of the job; `number` among those of the prompt."""
        self.job, self.ask, self.reading, self.place = job, ask, reading, place
        self.number = number
        self.state: State = None
        self.token = -1
        """The last that was drawn: the next that the model reads."""
        self.written = 0
        """Tokens."""
        self.constraint = None
        if ask.automaton is not None:
            self.constraint = ConstrainedDecoder(ask.automaton, ask.prompt, 1, ask.sampling)
        self.unfolding = StreamDetokenizer(ask.stop, after=reading.raw)
        self.before = 0
        """Characters of the text that are the prompt's."""
        self.untold: list[TokenLogprob] = []
        self._uniform_N = torch.empty(0)

    def steered(self, logits_1V: Tensor) -> int:
        """The next token, as its guide has it."""
        assert self.constraint is not None
        probs_1V = self.constraint(logits_1V).softmax(-1)
        token_1 = sample_tokens(probs_1V, torch.tensor([self.uniform()], dtype=torch.float64))
        self.constraint.accept_tokens(token_1)
        return int(token_1)

    def echoed(self) -> SequenceDelta:
        """The prompt, without a character that is not whole yet; with what the model made of its
        tokens, if that is asked."""
        shown = decode_complete(self.reading.raw)
        self.before = len(shown)
        return SequenceDelta(text=shown, tokens=tuple(self.reading.told))

    def uniform(self) -> float:
        """The random number for the next token: that of its seed, number and position."""
        at = self.written % NOISE_BLOCK
        if at == 0:
            streams = range(self.number, self.number + 1)
            self._uniform_N = uniform_noise(self.ask.seed, self.written // NOISE_BLOCK, streams)[0]
        return float(self._uniform_N[at])
