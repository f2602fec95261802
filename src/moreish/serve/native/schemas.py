"""What is asked and answered at /api: what the page shows, and OpenAI's API has no words for."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from moreish.serve.openai import BaseCompletionRequest, RequestBody, SamplingParams, Tokens, Usage


class Capabilities(BaseModel):
    """What can be looked at."""

    data: bool
    """Its training data are at hand. What needs them: pairs, novelty, what is known."""
    attention: bool
    embedding: bool
    pairs: bool
    novelty: bool
    history: bool


class SplitLosses(BaseModel):
    """Of the whole splits, in nats per token; null where they were never taken."""

    train: float | None
    val: float | None


class ModelInfo(BaseModel):
    name: str
    kind: Literal["lines", "text"]
    """A list of items, or running text."""
    architecture: str
    parameters: int
    tokenizer: str
    vocabulary: int
    context: int
    """Tokens, the current one included, that a prediction can depend on."""
    layers: int | None
    """Of what attends; null where nothing does."""
    heads: int | None
    data: str
    """The name of the text."""
    losses: SplitLosses
    bits_per_byte: float | None
    """Of validation."""
    has: Capabilities


class ModelInfoList(BaseModel):
    models: list[ModelInfo]
    training: bool
    """Whether this server can be asked to train."""
    version: str


class RenderedToken(BaseModel):
    id: int
    text: str | None
    """Null where it is part of a character; of the boundary nothing."""
    label: str
    """As a person reads it: always printable."""


class SurprisalRequest(RequestBody):
    model: str
    text: str = Field(min_length=1)


class TokenSurprisal(RenderedToken):
    nats: float | None
    """Minus the logarithm of its probability; null is infinity."""


class SurprisalResponse(BaseModel):
    """Of an item the boundary that ends it is the last token."""

    tokens: list[TokenSurprisal]
    nats_per_token: float | None
    bits_per_character: float | None
    """The end of an item counts as one; null too where words are unknown."""


class NextRequest(SamplingParams):
    model: str
    prompt: str | Tokens = ""
    top: int = Field(40, ge=0, le=1000)
    """Tokens that are told, the likeliest first."""


class ProbabilityPair(BaseModel):
    p: float
    """What the model says."""
    q: float
    """What the sampling draws from."""


class NextToken(ProbabilityPair, RenderedToken):
    pass


class NextResponse(BaseModel):
    tokens: list[NextToken]
    rest: ProbabilityPair
    """Of all tokens that are not told."""
    vocabulary: int


class NativeWriteRequest(BaseCompletionRequest):
    """The body of /v1/completions, without stream."""

    logprobs: int | None = Field(0, ge=0)
    """The likeliest tokens that are told beside each that was drawn; null tells no tokens."""


class TokenAlternative(RenderedToken):
    p: float


class GeneratedToken(RenderedToken):
    p: float | None
    """As the model has it, whatever the sampling; null where nothing stands before."""
    offset: int
    """Of its first character in the text; of part of a character that character's."""
    top: list[TokenAlternative]


class WriteEvent(BaseModel):
    """What one of the texts gains by a step."""

    place: int
    """Which text."""
    text: str
    tokens: list[GeneratedToken]
    finish: Literal["stop", "length"] | None


class WriteDone(BaseModel):
    """The last event."""

    done: Literal[True] = True
    usage: Usage


class AttentionRequest(RequestBody):
    model: str
    text: str | Tokens
    """Or token ids: a model of words may write what it cannot read again."""
    layer: int = Field(0, ge=0)


class AttentionResponse(BaseModel):
    tokens: list[str]
    """Their labels."""
    total: int
    """How many the whole text has; the last of them are shown."""
    layers: int
    heads: int
    maps: list[list[list[float]]]
    """Of each head, a row for each token: how much it takes from every earlier one."""


class EmbeddedToken(BaseModel):
    id: int
    label: str
    x: float
    y: float
    count: int | None
    """In the training data; null where they are not at hand."""


class EmbeddingResponse(BaseModel):
    tokens: list[EmbeddedToken]
    """The most frequent first."""
    explained: tuple[float, float]
    """Shares of the variance that the axes show."""


class PairsResponse(BaseModel):
    """A row for each token, a column for what came after it."""

    labels: list[str]
    totals: list[int]
    """How often each was followed by anything."""
    counts: list[list[int]]
    expected: list[list[float]]


class LoggedStep(BaseModel):
    step: int
    loss: float | None


class LoggedEvaluation(BaseModel):
    step: int
    train: float | None
    val: float | None


class LoggedSample(BaseModel):
    step: int
    text: str


class HistoryResponse(BaseModel):
    """What a training logged."""

    steps: list[LoggedStep]
    evaluations: list[LoggedEvaluation]
    samples: list[LoggedSample]
    settings: dict[Literal["model", "train"], dict[str, Any]]
    tokens_per_step: int
    bits_per_byte: float | None = None
    """Of a loss of one nat per token, on the validation split; null where it was never taken."""


class ListRequest(SamplingParams):
    """Items that match; see `moreish sample`."""

    model: str
    n: int = Field(20, ge=1)
    starts: str = ""
    ends: str | None = None
    contains: str | None = None
    regex: str | None = None
    length: str | None = None
    """Characters: `5`, `3..7`, `3..` or `..7`."""
    new_only: bool = False
    unique: bool = False
    seed: int | None = Field(None, ge=0)


class ListItem(BaseModel):
    text: str
    known: bool | None
    """It stands in the data, on whatever side of the split; null where they are not at hand."""
    nearest: str | None
    """The training item with the fewest edits to it, and how many those are."""
    distance: int | None


class ListResponse(BaseModel):
    """Fewer than were asked for, where many tries find no more."""

    items: list[ListItem]
    seed: int
    """With which `moreish sample` writes the same."""


class NoveltyRequest(RequestBody):
    model: str
    texts: list[str] = Field(min_length=1, max_length=64)


class TextNovelty(BaseModel):
    text: str
    known: bool
    """It stands in the training data, whole."""
    overlap: str
    """Its longest piece that stands there."""
    nearest: str | None
    distance: int | None
    place: int
    """The line of the training data where that piece stands, from 1; 0 if there is none."""
    passage: str
    """That line, or as much of it as lies around the piece."""


class NoveltyResponse(BaseModel):
    texts: list[TextNovelty]
