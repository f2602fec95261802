"""Request and response bodies of /v1, as in OpenAI's API reference for completions."""

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from moreish.generate import Sampling
from moreish.serve.batching import GenerationStream, SequenceDelta, TokenLogprob
from moreish.serve.http import RequestBody


class SamplingParams(RequestBody):
    """How tokens are sampled."""

    temperature: float | None = Field(None, ge=0, le=100)
    """0 always takes the most likely token; the default is 1."""
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    """Sample from this many of the most likely tokens; 0 and -1 sample from all. This parameter is
    not in OpenAI's API."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Sample from tokens that are at least this fraction as likely as the most likely one. This
    parameter and the next are not in OpenAI's API."""
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k if self.top_k and self.top_k > 0 else None,
            top_p=self.top_p,
            min_p=self.min_p or None,
            repetition_penalty=self.repetition_penalty or 1.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
        )


class RememberParams(RequestBody):
    """What the model has read before; not in OpenAI's API."""

    remember: str | None = None
    """Text that the model has read before the prompt, for models with a memory of recent text."""
    remember_unknown: Literal["error", "drop"] = "error"
    """Whether characters of it that are not in the vocabulary are an error or are left out."""


# fail_fast: a list of a million invalid elements has one error, not a million.
Strings = Annotated[list[str], Field(fail_fast=True)]
TokenIds = Annotated[list[int], Field(fail_fast=True)]
Prompt = str | Strings | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]


class BaseCompletionRequest(SamplingParams, RememberParams):
    """The parameters of a completion without streaming. Those that are not supported are accepted
    with the value that has no effect."""

    model: str
    prompt: Prompt | None = None
    """A text, token ids, or a list of either."""
    max_tokens: int | None = Field(None, ge=0)
    """Maximum number of tokens of each text; the default is 16, as in OpenAI's API."""
    n: int | None = Field(None, ge=1)
    seed: int | None = None
    """The same seed generates the same text, whatever else is being generated."""
    stop: str | Annotated[Strings, Field(max_length=16)] | None = None
    logprobs: int | None = Field(None, ge=0)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1)
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class StreamOptions(RequestBody):
    include_usage: bool = False
    """Send a last chunk that has the usage and no choices."""
    include_obfuscation: bool | None = None
    """Accepted without effect."""


class CompletionRequest(BaseCompletionRequest):
    """The body of `POST /v1/completions`."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Logprobs(BaseModel):
    tokens: list[str]
    """A token that is part of a character is "bytes:" and its bytes in hexadecimal."""
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]
    text_offset: list[int]

    @classmethod
    def from_tokens(cls, tokens: Sequence[TokenLogprob]) -> "Logprobs":
        return cls(
            tokens=[token.text for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                None
                if token.logprob is None
                # The generated token is included even if it is not among the most likely.
                else {**{text: log for _, text, log in token.top}, token.text: token.logprob}
                for token in tokens
            ],
            text_offset=[token.offset for token in tokens],
        )


class Choice(BaseModel):
    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None

    @classmethod
    def from_deltas(
        cls, index: int, deltas: Sequence[SequenceDelta], *, logprobs: bool
    ) -> "Choice":
        """Concatenate deltas of one sequence."""
        tokens = [token for delta in deltas for token in delta.tokens]
        return cls(
            text="".join(delta.text for delta in deltas),
            index=index,
            logprobs=Logprobs.from_tokens(tokens) if logprobs else None,
            finish_reason=deltas[-1].finish_reason if deltas else None,
        )


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def count(cls, stream: GenerationStream) -> "Usage":
        prompt = sum(len(sequence.prompt) for sequence in stream.request.sequences)
        total = prompt + stream.num_tokens
        return cls(prompt_tokens=prompt, completion_tokens=stream.num_tokens, total_tokens=total)


class Completion(BaseModel):
    """A complete response, or a chunk of a streamed one."""

    id: str = Field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "moreish"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
