"""Continuous batching."""

from moreish.serve.batching.engine import (
    DeadlineExceeded,
    Engine,
    GenerationFailed,
    GenerationStream,
    QueueFull,
    ShuttingDown,
)
from moreish.serve.batching.requests import SequenceDelta, SequenceRequest, TokenLogprob

__all__ = [
    "DeadlineExceeded",
    "Engine",
    "GenerationFailed",
    "GenerationStream",
    "QueueFull",
    "SequenceDelta",
    "SequenceRequest",
    "ShuttingDown",
    "TokenLogprob",
]
