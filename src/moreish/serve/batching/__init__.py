"""Continuous batching."""

from moreish.serve.batching.engine import Answer, Busy, Closing, Engine, Failed, Late
from moreish.serve.batching.requests import Ask, Drawn, Piece

__all__ = [
    "Answer",
    "Ask",
    "Busy",
    "Closing",
    "Drawn",
    "Engine",
    "Failed",
    "Late",
    "Piece",
]
