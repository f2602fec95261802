"""Causal self-attention.

B batch, T time (new positions), S positions in all (cached and new), H heads, D head width,
C width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.layers import Rotation, rotate

Cache = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, H, S, D)."""


class Attention(nn.Module):
    """Causal self-attention, all heads in one product (Vaswani et al. 2017, section 3.2)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        qk_norm: bool = False,
        scaled: bool = True,
        projection: bool = True,
    ) -> None:
        """See `GPTConfig` for what each switch is."""
        super().__init__()
        self.head_width = width // heads
        self.groups = heads // (kv_heads or heads)
        self.dropout, self.qk_norm = dropout, qk_norm
        self.scale = self.head_width**-0.5 if scaled else 1.0
        kv_width = width // self.groups
        self.sizes = [width, kv_width, kv_width]
        self.qkv = nn.Linear(width, sum(self.sizes), bias=bias)
        self.out = nn.Linear(width, width, bias=bias) if projection else nn.Identity()

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], turn: Rotation | None, cache: Cache | None
    ) -> tuple[Float[Tensor, "B T C"], Cache]:
        """`turn`: of the new positions, where positions are rotary."""
        q_BHTD, k_BHSD, v_BHSD = self._heads(x_BTC, turn)
        if cache is not None:
            k_BHSD = torch.cat([cache[0], k_BHSD], dim=2)
            v_BHSD = torch.cat([cache[1], v_BHSD], dim=2)
        new, seen = q_BHTD.shape[2], k_BHSD.shape[2]
        mask_TS = None
        if 1 < new < seen:  # new tokens after cached ones: each sees all of the past
            mask_TS = torch.ones(new, seen, dtype=torch.bool, device=x_BTC.device).tril(seen - new)
        if self.groups > 1:
            k_BHTD, v_BHTD = (x.repeat_interleave(self.groups, dim=1) for x in (k_BHSD, v_BHSD))
        else:
            k_BHTD, v_BHTD = k_BHSD, v_BHSD
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD,
            k_BHTD,
            v_BHTD,
            attn_mask=mask_TS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=new == seen,
            scale=self.scale,
        )
        return self.out(y_BHTD.transpose(1, 2).flatten(2)), (k_BHSD, v_BHSD)

    def weights(
        self, x_BTC: Float[Tensor, "B T C"], turn: Rotation | None
    ) -> Float[Tensor, "B H T T"]:
        """How much each position takes from each: what `forward` does not keep."""
        q_BHTD, k_BHTD, _ = self._heads(x_BTC, turn)
        affinity_BHTT = q_BHTD @ k_BHTD.repeat_interleave(self.groups, dim=1).mT * self.scale
        future_TT = torch.ones_like(affinity_BHTT[0, 0], dtype=torch.bool).triu(1)
        return affinity_BHTT.masked_fill(future_TT, -torch.inf).softmax(dim=-1)

    def _heads(self, x_BTC: Tensor, turn: Rotation | None) -> list[Tensor]:
        """Queries, keys and values, each (B, H, T, D)."""
        q, k, v = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in self.qkv(x_BTC).split(self.sizes, dim=-1)
        )
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        if self.qk_norm:
            # Of unit mean square, which the usual scale then suits.
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        return [q, k, v]
