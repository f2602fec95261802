"""A Transformer block.

B batch, T new positions, C model width.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moreish.models.gpt.attention import Attention
from moreish.models.gpt.config import GPTConfig
from moreish.models.gpt.layers import FeedForward, RopeTable, norm_layer


class Block(nn.Module):
    """Attention, then a feed-forward network; each has a residual connection and a norm, which
    stands before it (GPT-2) or after the sum (Vaswani et al. 2017)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm_place == "before"
        self.norm_attention = norm_layer(config)
        self.attention = Attention(config)
        self.norm_feedforward = norm_layer(config)
        self.feedforward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], rope: RopeTable | None, cache: Any = None
    ) -> tuple[Float[Tensor, "B T C"], tuple[Tensor, Tensor]]:
        """Return the output, and the keys and values that `Attention` returns for `rope` and
        `cache`."""
        y_BTC, keys_values = self.attention(self.attention_input(x_BTC), rope, cache)
        x_BTC = x_BTC + self.dropout(y_BTC)
        if self.pre_norm:
            y_BTC = self.feedforward(self.norm_feedforward(x_BTC))
            return x_BTC + self.dropout(y_BTC), keys_values
        x_BTC = self.norm_attention(x_BTC)
        return self.norm_feedforward(x_BTC + self.dropout(self.feedforward(x_BTC))), keys_values

    def attention_input(self, x_BTC: Tensor) -> Tensor:
        return self.norm_attention(x_BTC) if self.pre_norm else x_BTC
