"""The decoder-only Transformer."""

from moreish.models.gpt.attention import Attention
from moreish.models.gpt.config import ROTARY_BASE, GPTConfig
from moreish.models.gpt.layers import FeedForward, RopeTable, apply_rope, rope_table
from moreish.models.gpt.model import GPT
