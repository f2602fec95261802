"""Request and response bodies of /api: what the page shows and OpenAI's API does not cover."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from moreish.evaluate import TextNovelty
from moreish.serve.http import RequestBody
from moreish.serve.openai import (
    BaseCompletionRequest,
    RememberParams,
    SamplingParams,
    TokenIds,
    Usage,
)


class Capabilities(BaseModel):
    """Which views a model has."""

    data: bool
    """The training data are available; pairs, novelty and `known` need them."""
    attention: bool
    embedding: bool
    pairs: bool
    novelty: bool
    history: bool


class SplitLosses(BaseModel):
    """Mean losses of whole splits in nats per token; null where they were not computed."""

    train: float | None
    val: float | None


class ModelInfo(BaseModel):
    name: str
    kind: Literal["lines", "text", "examples"]
    """Trained on a list of items, on running text, or on examples, whose targets it predicts."""
    targets: Literal["text", "words", "label"] | None
    """What the targets of examples are; null for other data."""
    architecture: str
    parameters: int
    tokenizer: str
    vocabulary: int
    context: int
    """Number of tokens, including the current one, on which a prediction can depend."""
    memory: int
    """Number of tokens that a hybrid's memory of recent text reaches; 0 for models without one,
    which reject `remember`."""
    remember_characters: int
    """Number of last characters of a text that fill the memory, at most what a request may have."""
    layers: int | None
    """Transformer layers; null without attention."""
    heads: int | None
    data: str
    """Name of the training data."""
    documents: int
    """Items or files of the training data in all splits; 0 for an imported model."""
    characters: int
    losses: SplitLosses
    bits_per_byte: float | None
    """On the validation split."""
    has: Capabilities


class ModelInfoList(BaseModel):
    models: list[ModelInfo]
    loading: int
    """Number of runs that are being loaded and will be served."""
    training: bool
    """Whether the server has the training routes."""
    version: str


class RenderedToken(BaseModel):
    id: int
    text: str | None
    """Null for a token that is part of a character; empty for the boundary."""
    label: str
    """A printable form of the token."""


class SurprisalRequest(RememberParams):
    model: str
    text: str = Field(min_length=1)


class ScoredToken(RenderedToken):
    nats: float | None
    """Surprisal: the negative log-probability; null is infinity."""


class SurprisalResponse(BaseModel):
    """The last token of an item is the boundary that ends it."""

    tokens: list[ScoredToken]
    nats_per_token: float | None
    bits_per_character: float | None
    """The end of an item counts as a character; null also for texts with unknown words."""


class NextRequest(SamplingParams, RememberParams):
    model: str
    prompt: str | TokenIds = ""
    top: int = Field(40, ge=0, le=1000)
    """Number of tokens to return, most likely first."""


class Probabilities(BaseModel):
    p: float
    """The model's probability."""
    q: float
    """The probability after the sampling settings."""


class NextToken(Probabilities, RenderedToken):
    pass


class NextResponse(BaseModel):
    tokens: list[NextToken]
    rest: Probabilities
    """The sums over all other tokens."""
    vocabulary: int


class NativeWriteRequest(BaseCompletionRequest):
    """The body of /v1/completions, without stream."""

    logprobs: int | None = Field(0, ge=0)
    """Number of most likely tokens to report with each generated token; null reports no tokens."""


class TokenAlternative(RenderedToken):
    p: float


class GeneratedToken(RenderedToken):
    p: float | None
    """The model's probability, before the sampling settings; null for the first token of a prompt
    that nothing precedes."""
    offset: int
    """Position of the token's first character in the text."""
    top: list[TokenAlternative]


class WriteEvent(BaseModel):
    """What a step adds to one of the texts."""

    place: int
    """Index of the text."""
    text: str
    tokens: list[GeneratedToken]
    finish: Literal["stop", "length"] | None


class WriteDone(BaseModel):
    """The last event."""

    done: Literal[True] = True
    usage: Usage


class BeginningsResponse(BaseModel):
    """The first words of lines of the training data, the most frequent ones first."""

    texts: list[str]
    """At most three; empty for lists and where the training data are not available."""


class AttentionRequest(RequestBody):
    model: str
    text: str | TokenIds
    """Token ids allow text that cannot be encoded again, such as unknown words."""
    layer: int = Field(0, ge=0)


class AttentionResponse(BaseModel):
    tokens: list[str]
    """Labels of the last tokens of the text."""
    total: int
    """Number of tokens of the whole text."""
    layers: int
    heads: int
    maps: list[list[list[float]]]
    """Attention weights of each head: a row for each token, a column for each token it attends
    to."""


class EmbeddedToken(BaseModel):
    id: int
    label: str
    x: float
    y: float
    count: int | None
    """Occurrences in the training data; null where these are not available."""
    neighbors: list["Neighbor"]
    """The tokens with the most similar embeddings, among those of this response."""


class Neighbor(BaseModel):
    index: int
    """Position in the list of tokens."""
    similarity: float
    """Cosine similarity of the two embeddings, from -1 to 1."""


class EmbeddingResponse(BaseModel):
    tokens: list[EmbeddedToken]
    """Most frequent first."""
    explained_variance_ratio: tuple[float, float]
    """Fractions of the variance that the two principal components explain."""


class PairsResponse(BaseModel):
    """A row for each token, a column for each token that follows it."""

    labels: list[str]
    totals: list[int]
    """How often each token is followed by any token."""
    counts: list[list[int]]
    expected: list[list[float]]
    """The model's probabilities."""


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
    """What a training run logged."""

    steps: list[LoggedStep]
    evaluations: list[LoggedEvaluation]
    samples: list[LoggedSample]
    settings: dict[Literal["model", "train"], dict[str, Any]]
    tokens_per_step: int
    bits_per_byte: float | None = None
    """The factor from nats per token to bits per byte on the validation split; null before the
    first evaluation."""


class ListRequest(SamplingParams):
    """Items that match; see `moreish sample`."""

    model: str
    n: int = Field(20, ge=1)
    starts: str = ""
    ends: str | None = None
    contains: str | None = None
    regex: str | None = None
    length: str | None = None
    """In characters: `5`, `3..7`, `3..` or `..7`."""
    new_only: bool = False
    unique: bool = False
    seed: int | None = Field(None, ge=0)


class ListItem(BaseModel):
    text: str
    known: bool | None
    """Whether the item is in the data, in any split; null where these are not available."""
    nearest: str | None
    """The item of the data with the smallest edit distance."""
    distance: int | None


class ListResponse(BaseModel):
    """Has fewer items than requested where many attempts find no more."""

    items: list[ListItem]
    seed: int
    """The seed with which `moreish sample` generates the same items."""


class NoveltyRequest(RequestBody):
    model: str
    texts: list[str] = Field(min_length=1, max_length=64)


class NoveltyResponse(BaseModel):
    texts: list[TextNovelty]


class PredictRequest(RequestBody):
    """Inputs whose targets are wanted; see `moreish predict`."""

    model: str
    inputs: list[str] = Field(min_length=1)
    beams: int = Field(1, ge=1, le=100)
    length_penalty: float = Field(1.0, ge=-10, le=10)
    temperature: float = Field(0.0, ge=0, le=100)
    seed: int = Field(0, ge=0)
    unknown: Literal["error", "drop"] = "error"
    attention: bool = False
    """Whether to return which tokens of the input each token of the target attends to."""


class TargetAlternative(BaseModel):
    target: str
    probability: float


class TargetAttention(BaseModel):
    input: list[str]
    """Labels of the tokens of the input."""
    target: list[str]
    """Labels of the tokens of the target."""
    weights: list[list[float]]
    """A row for each token of the target, a column for each token of the input; the mean of all
    heads of the last layer."""


class PredictedTarget(TargetAlternative):
    input: str
    alternatives: list[TargetAlternative]
    """Other targets, the best first."""
    attention: TargetAttention | None


class PredictResponse(BaseModel):
    predictions: list[PredictedTarget]
    """One for each input, in order."""


class Confusion(BaseModel):
    labels: list[str]
    counts: list[list[int]]
    """A row for each label in the data, a column for each predicted label."""


class Mistake(BaseModel):
    input: str
    target: str
    """That of the data."""
    predicted: str
    probability: float
    """That of the prediction."""


class MistakesResponse(BaseModel):
    """Predictions for a sample of the validation split."""

    examples: int
    """Size of the sample."""
    wrong: int
    confusion: Confusion | None
    """Null where targets are not labels."""
    mistakes: list[Mistake]
    """The most probable ones first."""
    inputs: list[str]
    """Some inputs, as suggestions."""
