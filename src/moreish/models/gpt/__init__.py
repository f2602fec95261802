"""The decoder-only Transformer, and the parts that other Transformers share with it."""

from moreish.models.gpt.attention import Attention, CrossAttention
from moreish.models.gpt.config import ROTARY_BASE, GPTConfig, TransformerConfig
from moreish.models.gpt.kv_cache import Cache, CacheView, ensure_capacity
from moreish.models.gpt.layers import (
    FeedForward,
    NgramEmbedding,
    RopeTable,
    apply_rope,
    norm_layer,
    rope_table,
)
from moreish.models.gpt.model import GPT, Block, init_weights
