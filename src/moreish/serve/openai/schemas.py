"""What is asked and answered at /v1, as OpenAI's API reference has it for completions."""

import re
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moreish.generate import Sampling
from moreish.serve.batching import SequenceDelta, TokenLogprob

DEEPEST = 4
"""Lists in lists that are read; none that is asked for has so many."""


HALVES = re.compile("[\ud800-\udfff]")
"""Surrogates: of a character two, so that one alone is none."""


def _read(value: Any, depth: int = 0) -> Any:
    match value:
        case list() | dict() if depth == DEEPEST:
            raise ValueError("too many lists in lists")
        case list():
            return [_read(each, depth + 1) for each in value]
        case dict():
            return {_read(key): _read(each, depth + 1) for key, each in value.items()}
        case float() if value.is_integer():
            return int(value)
        case str() if HALVES.search(value):
            raise ValueError("half a character (a lone surrogate)")
    return value


class RequestBody(BaseModel):
    """A request: JSON, no unknown parameter, and nothing taken for what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_json_has_it(cls, value: Any) -> Any:
        """`5.0` is an integer: JSON has one kind of number. It also has halves of characters, which
        no text has."""
        return _read(value)


class SamplingParams(RequestBody):
    """How tokens are drawn."""

    temperature: float | None = Field(None, ge=0, le=100)
    """0 takes the likeliest token always; 1, the default, draws as learned."""
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    """Draw from so many of the likeliest; 0 and -1: from all. Not OpenAI's."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k if self.top_k and self.top_k > 0 else None,
            top_p=self.top_p,
        )


# Of a million wrong elements one is enough to refuse them.
Strings = Annotated[list[str], Field(fail_fast=True)]
Tokens = Annotated[list[int], Field(fail_fast=True)]
Prompt = str | Strings | Tokens | Annotated[list[Tokens], Field(fail_fast=True)]


class BaseCompletionRequest(SamplingParams):
    """What is to be written. Parameters that change nothing here are taken where they say so, and
    refused where they say anything else."""

    model: str
    prompt: Prompt | None = None
    """A text, texts, token ids, or lists of them."""
    max_tokens: int | None = Field(None, ge=0)
    """The most tokens that each text gains; 16 by default, as the clients expect."""
    n: int | None = Field(None, ge=1)
    seed: int | None = None
    """The same seed, the same text, whatever else is being written."""
    stop: str | Annotated[Strings, Field(max_length=16)] | None = None
    logprobs: int | None = Field(None, ge=0)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1)
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class StreamOptions(RequestBody):
    include_usage: bool = False
    """A last chunk without choices that tells the usage."""
    include_obfuscation: bool | None = None
    """Accepted; there is none."""


class CompletionRequest(BaseCompletionRequest):
    """What `POST /v1/completions` takes."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Logprobs(BaseModel):
    tokens: list[str]
    """Of part of a character "bytes:" and what it is in hexadecimal."""
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]
    text_offset: list[int]

    @classmethod
    def of(cls, drawn: Sequence[TokenLogprob]) -> "Logprobs":
        return cls(
            tokens=[token.text for token in drawn],
            token_logprobs=[token.logprob for token in drawn],
            top_logprobs=[
                None
                if token.logprob is None
                # The token itself stands among them in any case.
                else {**{text: log for _, text, log in token.top}, token.text: token.logprob}
                for token in drawn
            ],
            text_offset=[token.offset for token in drawn],
        )


class Choice(BaseModel):
    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> "Usage":
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )


class Completion(BaseModel):
    """The answer, or a part of it as it streams."""

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


def make_choice(place: int, pieces: Sequence[SequenceDelta], *, logprobs: bool) -> Choice:
    """What some pieces of one text are together."""
    drawn = [token for piece in pieces for token in piece.tokens]
    found: dict[str, Any] = {"finish_reason": pieces[-1].finish} if pieces else {}
    return Choice(
        text="".join(piece.text for piece in pieces),
        index=place,
        logprobs=Logprobs.of(drawn) if logprobs else None,
        **found,
    )
