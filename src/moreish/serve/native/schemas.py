"""What is asked and answered at /api: what the page shows, and OpenAI's API has no words for."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from moreish.serve.openai import Asked, Drawing, Tokens, Usage, WriteRequest


class Has(BaseModel):
    """What can be looked at."""

    data: bool
    """Its training data are at hand. What needs them: pairs, novelty, what is known."""
    attention: bool
    embedding: bool
    pairs: bool
    novelty: bool
    history: bool


class Losses(BaseModel):
    """Of the whole splits, in nats per token; null where they were never taken."""

    train: float | None
    val: float | None


class Model(BaseModel):
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
    losses: Losses
    bits_per_byte: float | None
    """Of validation."""
    has: Has


class Models(BaseModel):
    models: list[Model]
    training: bool
    """Whether this server can be asked to train."""
    version: str


class Token(BaseModel):
    id: int
    text: str | None
    """Null where it is part of a character; of the boundary nothing."""
    label: str
    """As a person reads it: always printable."""


class SurprisalRequest(Asked):
    model: str
    text: str = Field(min_length=1)


class Surprising(Token):
    nats: float | None
    """Minus the logarithm of its probability; null is infinity."""


class Surprisal(BaseModel):
    """Of an item the boundary that ends it is the last token."""

    tokens: list[Surprising]
    nats_per_token: float | None
    bits_per_character: float | None
    """The end of an item counts as one; null too where words are unknown."""


class NextRequest(Drawing):
    model: str
    prompt: str | Tokens = ""
    top: int = Field(40, ge=0, le=1000)
    """Tokens that are told, the likeliest first."""


class Share(BaseModel):
    p: float
    """What the model says."""
    q: float
    """What the sampling draws from."""


class NextToken(Share, Token):
    pass


class Next(BaseModel):
    tokens: list[NextToken]
    rest: Share
    """Of all tokens that are not told."""
    vocabulary: int


class NativeWriteRequest(WriteRequest):
    """The body of /v1/completions, without stream."""

    logprobs: int | None = Field(0, ge=0)
    """The likeliest tokens that are told beside each that was drawn; null tells no tokens."""


class Alternative(Token):
    p: float


class Written(Token):
    p: float | None
    """As the model has it, whatever the sampling; null where nothing stands before."""
    offset: int
    """Of its first character in the text; of part of a character that character's."""
    top: list[Alternative]


class WriteEvent(BaseModel):
    """What one of the texts gains by a step."""

    place: int
    """Which text."""
    text: str
    tokens: list[Written]
    finish: Literal["stop", "length"] | None


class WriteDone(BaseModel):
    """The last event."""

    done: Literal[True] = True
    usage: Usage


class AttentionRequest(Asked):
    model: str
    text: str | Tokens
    """Or token ids: a model of words may write what it cannot read again."""
    layer: int = Field(0, ge=0)


class Attention(BaseModel):
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


class Embedding(BaseModel):
    tokens: list[EmbeddedToken]
    """The most frequent first."""
    explained: tuple[float, float]
    """Shares of the variance that the axes show."""


class Pairs(BaseModel):
    """A row for each token, a column for what came after it."""

    labels: list[str]
    totals: list[int]
    """How often each was followed by anything."""
    counts: list[list[int]]
    expected: list[list[float]]


class Step(BaseModel):
    step: int
    loss: float | None


class Evaluation(BaseModel):
    step: int
    train: float | None
    val: float | None


class Sample(BaseModel):
    step: int
    text: str


class History(BaseModel):
    """What a training logged."""

    steps: list[Step]
    evaluations: list[Evaluation]
    samples: list[Sample]
    settings: dict[Literal["model", "train"], dict[str, Any]]
    tokens_per_step: int
    bits_per_byte: float | None = None
    """Of a loss of one nat per token, on the validation split; null where it was never taken."""


class ListRequest(Drawing):
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


class Item(BaseModel):
    text: str
    known: bool | None
    """It stands in the data, on whatever side of the split; null where they are not at hand."""
    nearest: str | None
    """The training item with the fewest edits to it, and how many those are."""
    distance: int | None


class Items(BaseModel):
    """Fewer than were asked for, where many tries find no more."""

    items: list[Item]
    seed: int
    """With which `moreish sample` writes the same."""


class NoveltyRequest(Asked):
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


class Novelty(BaseModel):
    texts: list[TextNovelty]
