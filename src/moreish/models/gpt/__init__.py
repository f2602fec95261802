"""The decoder-only Transformer."""

from moreish.models.gpt.attention import Attention
from moreish.models.gpt.block import Block
from moreish.models.gpt.config import GPTConfig
from moreish.models.gpt.layers import (
    ROTARY_BASE,
    FeedForward,
    GramEmbedding,
    Rotation,
    rotate,
    rotation,
)
from moreish.models.gpt.model import GPT

__all__ = [
    "GPT",
    "ROTARY_BASE",
    "Attention",
    "Block",
    "FeedForward",
    "GPTConfig",
    "GramEmbedding",
    "Rotation",
    "rotate",
    "rotation",
]
