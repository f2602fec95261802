"""A block of a Transformer: attention, then a feed-forward.

B batch, T time, H heads, C width, D head width.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from moreish.models.gpt.attention import Attention
from moreish.models.gpt.config import GPTConfig
from moreish.models.gpt.kv_cache import CacheViews
from moreish.models.gpt.layers import FeedForward, RopeTable, norm_layer


class Block(nn.Module):
    """Attention, then a feed-forward; each normalised and added as the config says."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.residual, self.before = config.residual, config.norm_place == "before"
        self.norm_attention = norm_layer(config.norm, config.width, config.bias, config.norm_eps)
        self.attention = Attention(
            config.width,
            config.heads,
            kv_heads=config.kv_heads,
            bias=config.bias,
            dropout=config.dropout,
            qk_norm=config.qk_norm,
            scaled=config.scaled,
            projection=config.projection,
            context=config.context,
        )
        self.feedforward = None
        if config.feedforward != "none":
            self.norm_feedforward = norm_layer(
                config.norm, config.width, config.bias, config.norm_eps
            )
            self.feedforward = FeedForward(
                config.width,
                config.feedforward_ratio,
                config.feedforward,
                bias=config.bias,
                inner=config.feedforward_width,
            )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], rope: RopeTable | None, views: CacheViews
    ) -> tuple[Float[Tensor, "B T C"], tuple[Tensor, Tensor]]:
        y_BTC, read = self.attention(self.attention_input(x_BTC), rope, views)
        return self.after_attention(x_BTC, y_BTC), read

    def attention_input(self, x_BTC: Tensor) -> Tensor:
        return self.norm_attention(x_BTC) if self.before else x_BTC

    def after_attention(self, x_BTC: Tensor, y_BTC: Tensor) -> Tensor:
        """What the block gives, from its input and what the attention gathered."""
        x_BTC = self._joined(x_BTC, y_BTC, self.norm_attention)
        if self.feedforward is None:
            return x_BTC
        y_BTC = self.feedforward(self.norm_feedforward(x_BTC) if self.before else x_BTC)
        return self._joined(x_BTC, y_BTC, self.norm_feedforward)

    def _joined(self, x_BTC: Tensor, y_BTC: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        if self.training:
            y_BTC = self.dropout(y_BTC)
        x_BTC = x_BTC + y_BTC if self.residual else y_BTC
        return x_BTC if self.before else norm(x_BTC)
