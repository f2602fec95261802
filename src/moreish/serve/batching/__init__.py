"""Continuous batching: one engine per model generates the sequences of all requests."""

from moreish.serve.batching.engine import Engine, GenerationStream
from moreish.serve.batching.errors import (
    DeadlineExceeded,
    EngineError,
    GenerationFailed,
    QueueFull,
    ShuttingDown,
)
from moreish.serve.batching.requests import SequenceDelta, SequenceRequest, TokenLogprob
