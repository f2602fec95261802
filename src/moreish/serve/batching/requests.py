"""Generation requests, the state of each sequence, and the deltas that the engine returns.

Shape suffixes: T tokens of a prompt, N random numbers, V vocabulary.
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
    RepetitionCounter,
    Sampling,
    StreamDetokenizer,
    sample_tokens,
    uniform_noise,
)
from moreish.models import Model, State
from moreish.tokenizers import Ids, Tokenizer

PREFILL_CHUNK = 128
"""Tokens of prompts that are read between two decoding steps."""

END_OF_TEXT = "<|endoftext|>"
"""How the boundary token is written in log-probabilities."""

FinishReason = Literal["stop", "length"]
"""The end of the text or a stop string; or the maximum number of tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceRequest:
    """A prompt and how to continue it."""

    prefix: Ids
    """Tokens that the model reads before the prompt and that are not part of the text."""
    prompt: Ids
    max_tokens: int
    sampling: Sampling
    seed: int
    n: int = 1
    """Number of continuations."""
    first_index: int = 0
    """Index of the first continuation: index i has the text that `moreish sample --seed` writes as
    its number i."""
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """Number of most likely tokens to report with each generated token; None reports no tokens."""
    echo: bool = False
    """Whether the prompt is part of the text."""
    automaton: Automaton | None = None
    """A constraint that the text must match."""


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A token of a text and its log-probability."""

    id: int
    text: str
    logprob: float | None
    """Natural logarithm of the model's probability, before any sampling settings; None for the
    first token of a prompt without prefix."""
    top: list[tuple[int, str, float]]
    """The most likely tokens (id, text, log-probability), most likely first."""
    offset: int
    """Position in the text of the token's first character; tokens that share a character have the
    same offset."""
    previous: int | None = None
    """The token before it; None at the beginning of a text."""


@dataclass(frozen=True, kw_only=True)
class SequenceDelta:
    """What one or more steps add to a sequence."""

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    """The tokens whose text is released now, if log-probabilities were requested."""
    num_tokens: int = 0
    """Generated tokens, whether or not their text is released yet; the boundary does not count."""
    finish_reason: FinishReason | None = None
    """Set in the last delta of a sequence."""
    log_weight: float = 0.0
    """Set in the last delta of a constrained sequence: see `ConstrainedDecoder`."""

    @property
    def is_visible(self) -> bool:
        """Whether it has anything for the client; the text of a token may be held back."""
        return bool(self.text or self.tokens or self.finish_reason)


@dataclass(eq=False)
class GenerationRequest:
    """The sequences of one client request, which are returned and canceled together."""

    sequences: list[SequenceRequest]
    deadline: float
    """When the request times out, in seconds of time.monotonic()."""
    cancelled: bool = False
    submitted_at: float = field(default_factory=time.monotonic)

    @property
    def num_sequences(self) -> int:
        return sum(sequence.n for sequence in self.sequences)

    @property
    def is_over(self) -> bool:
        """Whether it was canceled or its deadline has passed."""
        return self.cancelled or time.monotonic() > self.deadline


SequenceOutput = tuple[GenerationRequest, int, SequenceDelta]
"""A request, the index of one of its sequences, and what a step adds to that."""


class LogprobFormatter:
    """Describes tokens and their log-probabilities."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.label = lru_cache(maxsize=1 << 16)(self._label)

    def format(
        self,
        tokens: Sequence[int],
        logits_TV: Tensor,
        offsets: Sequence[int],
        num_top: int,
        previous: int | None,
    ) -> list[TokenLogprob]:
        """Describe tokens by the logits that predicted each of them.

        Args:
            tokens: T token ids.
            logits_TV: the logits at the position before each token.
            offsets: T positions in the text.
            num_top: number of most likely tokens to report for each position.
            previous: the token before the first of them; None at the beginning of a text.
        """
        logs_TV = logits_TV.double().log_softmax(dim=-1)
        best = logs_TV.topk(min(num_top, logs_TV.shape[1]))
        own_T = logs_TV.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        columns = (offsets, own_T.tolist(), best.indices.tolist(), best.values.tolist())
        described = []
        for token, offset, log, ids, logs in zip(tokens, *columns, strict=True):
            before = previous if self.tokenizer.line_spaces else None  # few keys in the cache
            labels = [self.label(one, before) for one in [token, *ids]]
            described.append(
                TokenLogprob(
                    id=token,
                    previous=previous,
                    text=labels[0],
                    logprob=log,
                    top=list(zip(ids, labels[1:], logs, strict=True)),
                    offset=offset,
                )
            )
            previous = token
        return described

    def _label(self, token: int, previous: int | None) -> str:
        if token == self.tokenizer.boundary_id:
            return END_OF_TEXT
        raw = self.tokenizer.decode_bytes(np.array([token]), previous)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Prefill:
    """A prompt that the model reads once, in chunks, for all sequences that continue it."""

    def __init__(self, request: SequenceRequest, model: Model, formatter: LogprobFormatter) -> None:
        self.request, self.formatter = request, formatter
        self.prompt_bytes = formatter.tokenizer.decode_bytes(request.prompt)
        self.logprobs: list[TokenLogprob] = []
        """The prompt's tokens, if the request echoes them with log-probabilities."""
        self.state: State = None
        self.logits_V = torch.empty(0)
        """After the last token of the prompt."""
        ids, self._num_read = np.concatenate([request.prefix, request.prompt]), 0
        self._with_logprobs = request.echo and request.logprobs is not None
        if self._with_logprobs:
            self._offsets = _token_offsets(request.prompt, formatter.tokenizer)
            if not len(request.prefix):
                first = int(request.prompt[0])
                label = formatter.label(first, None)
                self.logprobs = [TokenLogprob(id=first, text=label, logprob=None, top=[], offset=0)]
        self.tokens_T = torch.from_numpy(ids)
        if not self._with_logprobs:
            tokens_1T, self.state = model.skip_to_end(self.tokens_T[None])
            self.tokens_T = tokens_1T[0]

    @property
    def is_finished(self) -> bool:
        return self._num_read == len(self.tokens_T)

    def read_chunk(self, model: Model, device: torch.device) -> int:
        """Read the next chunk of the prompt and return its number of tokens."""
        size = min(PREFILL_CHUNK, model.max_length or PREFILL_CHUNK)
        chunk_T = self.tokens_T[self._num_read :][:size]
        logits_1TV, self.state = model(chunk_T[None].to(device), self.state)
        self._num_read += len(chunk_T)
        if self._with_logprobs:
            self._add_logprobs(logits_1TV[0].float().cpu())
        if self.is_finished:
            self.logits_V = logits_1TV[0, -1].float().cpu()
        return len(chunk_T)

    def _add_logprobs(self, logits_TV: Tensor) -> None:
        """Describe the prompt's tokens that follow those that were just read."""
        assert self.request.logprobs is not None
        # Logits of the prefix, and those after the last token, predict no token of the prompt.
        first = self._num_read - len(logits_TV) + 1 - len(self.request.prefix)
        skipped = max(0, -first)
        if tokens := self.request.prompt[first + skipped :][: len(logits_TV) - skipped].tolist():
            logits_TV = logits_TV[skipped : skipped + len(tokens)]
            start = first + skipped
            offsets = self._offsets[start:][: len(tokens)]
            previous = int(self.request.prompt[start - 1]) if start else None
            self.logprobs += self.formatter.format(
                tokens, logits_TV, offsets, self.request.logprobs, previous
            )


def _token_offsets(prompt: Ids, tokenizer: Tokenizer) -> list[int]:
    """Return the position of each token's first character in the text of a prompt."""
    detokenizer, offsets, previous = StreamDetokenizer(), [], None
    for token in prompt:
        offsets.append(detokenizer.num_decoded)
        detokenizer.add(tokenizer.decode_bytes(np.array([token]), previous))
        previous = int(token)
    return offsets


class SequenceState:
    """A sequence that is being generated or waits for a slot."""

    def __init__(
        self, parent: GenerationRequest, prefill: Prefill, index: int, seed_index: int
    ) -> None:
        """
        Args:
            parent: the request that the sequence belongs to.
            prefill: its prompt, shared with the other continuations.
            index: its index among all sequences of `parent`.
            seed_index: its index among the continuations of a seed.
        """
        request = prefill.request
        self.parent, self.request, self.prefill = parent, request, prefill
        self.index, self.seed_index = index, seed_index
        self.state: State = None
        self.last_token = int(np.concatenate([request.prefix, request.prompt])[-1])
        """The last token of the prompt or of the text, and the input of the next step."""
        self.num_generated = 0
        self.constraint: ConstrainedDecoder | None = None
        if request.automaton is not None:
            self.constraint = ConstrainedDecoder(
                request.automaton, request.prompt, 1, request.sampling
            )
        self.repetitions: RepetitionCounter | None = None
        if request.sampling.has_penalties:
            size = prefill.formatter.tokenizer.vocab_size
            self.repetitions = RepetitionCounter(request.prompt, size, request.sampling)
        self.detokenizer = StreamDetokenizer(request.stop, after=prefill.prompt_bytes)
        self.echo_length = 0
        """Characters at the beginning of the text that are the prompt's."""
        self.pending_logprobs: list[TokenLogprob] = []
        """Tokens whose text is held back."""
        self._uniform_N = torch.empty(0)

    @property
    def starts_item(self) -> bool:
        """Whether the next token is the first of an item or document, without a constraint."""
        if self.num_generated > 0 or self.constraint is not None:
            return False
        return self.last_token == self.prefill.formatter.tokenizer.boundary_id

    def sample_constrained(self, logits_1V: Tensor) -> int:
        """Sample the next token among those that the constraint allows."""
        assert self.constraint is not None
        probs_1V = self.constraint(logits_1V).softmax(-1)
        uniform_1 = torch.tensor([self.next_uniform()], dtype=torch.float64)
        token_1 = sample_tokens(probs_1V, uniform_1)
        self.constraint.accept_tokens(token_1)
        return int(token_1)

    def echo_prompt(self) -> SequenceDelta:
        """Return the prompt, without an incomplete character at its end."""
        text = StreamDetokenizer().add(self.prefill.prompt_bytes)
        self.echo_length = len(text)
        return SequenceDelta(text=text, tokens=tuple(self.prefill.logprobs))

    def next_uniform(self) -> float:
        """Return the random number of the next token: it depends on seed, index and position."""
        position = self.num_generated % NOISE_BLOCK
        if position == 0:
            streams = range(self.seed_index, self.seed_index + 1)
            block = self.num_generated // NOISE_BLOCK
            self._uniform_N = uniform_noise(self.request.seed, block, streams)[0]
        return float(self._uniform_N[position])
