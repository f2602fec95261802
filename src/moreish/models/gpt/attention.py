"""Causal self-attention.

B batch, T time (new positions), S positions in all (cached and new), H heads, D head width,
C width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.gpt.kv_cache import CacheView, CacheViews
from moreish.models.gpt.layers import RopeTable, apply_rope


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
        context: int = 1 << 24,
    ) -> None:
        """See `GPTConfig` for what each switch is."""
        super().__init__()
        self.head_width = width // heads
        self.groups = heads // (kv_heads or heads)
        self.heads = heads, heads // self.groups
        self.context = context
        self.dropout, self.qk_norm = dropout, qk_norm
        self.scale = self.head_width**-0.5 if scaled else 1.0
        self.qkv = nn.Linear(width, width + 2 * (width // self.groups), bias=bias)
        self.out = nn.Linear(width, width, bias=bias) if projection else nn.Identity()

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], rope: RopeTable | None, views: CacheViews
    ) -> tuple[Float[Tensor, "B T C"], tuple[Tensor, Tensor]]:
        """What the new positions gather, and their keys and values, each (B, H, T, D).

        Args:
            turn: of the new positions, where positions are rotary.
            slots: in the cache, where there is a past; of each row, where each has its own.
        """
        q_BHTD, k_BHTD, v_BHTD = self.split_heads(x_BTC, rope)
        if views is None:
            y_BHTD = self._attend(q_BHTD, k_BHTD, v_BHTD)
        elif isinstance(views, CacheView):
            y_BHTD = self._attend(q_BHTD, *views.filled(k_BHTD, v_BHTD))
        else:
            parts = (x_BHTD.split(1) for x_BHTD in (q_BHTD, k_BHTD, v_BHTD))
            y_BHTD = torch.cat(
                [
                    self._attend(q_1HTD, *slot.filled(k_1HTD, v_1HTD))
                    for slot, q_1HTD, k_1HTD, v_1HTD in zip(views, *parts, strict=True)
                ]
            )
        return self.out(y_BHTD.transpose(1, 2).flatten(2)), (k_BHTD, v_BHTD)

    def _attend(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor) -> Tensor:
        new, seen = q_BHTD.shape[2], k_BHSD.shape[2]
        mask_TS = None
        if 1 < new < seen:  # new tokens after cached ones: each sees those of the past in reach
            mask_TS = torch.ones(new, seen, dtype=torch.bool, device=q_BHTD.device)
            mask_TS = mask_TS.tril(seen - new).triu(seen - new + 1 - self.context)
        if self.groups > 1:
            k_BHSD, v_BHSD = (x.repeat_interleave(self.groups, dim=1) for x in (k_BHSD, v_BHSD))
        return F.scaled_dot_product_attention(
            q_BHTD,
            k_BHSD,
            v_BHSD,
            attn_mask=mask_TS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=new == seen,
            scale=self.scale,
        )

    def attention_weights(
        self, x_BTC: Float[Tensor, "B T C"], rope: RopeTable | None
    ) -> Float[Tensor, "B H T T"]:
        """How much each position takes from each: what `forward` does not keep."""
        q_BHTD, k_BHTD, _ = self.split_heads(x_BTC, rope)
        affinity_BHTT = q_BHTD @ k_BHTD.repeat_interleave(self.groups, dim=1).mT * self.scale
        future_TT = torch.ones_like(affinity_BHTT[0, 0], dtype=torch.bool).triu(1)
        return affinity_BHTT.masked_fill(future_TT, -torch.inf).softmax(dim=-1)

    def split_heads(self, x_BTC: Tensor, rope: RopeTable | None) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (B, H, T, D)."""
        heads_BTHD = self.qkv(x_BTC).view(*x_BTC.shape[:2], -1, self.head_width)
        heads_BHTD = heads_BTHD.transpose(1, 2)
        heads, kv_heads = self.heads
        if rope is None and not self.qk_norm:
            return heads_BHTD.split_with_sizes([heads, kv_heads, kv_heads], dim=1)
        qk_BHTD, v_BHTD = heads_BHTD.split_with_sizes([heads + kv_heads, kv_heads], dim=1)
        if rope is not None:
            qk_BHTD = apply_rope(qk_BHTD, rope)
        if self.qk_norm:
            # Of unit mean square, which the usual scale then suits.
            qk_BHTD = F.rms_norm(qk_BHTD, qk_BHTD.shape[-1:])
        return *qk_BHTD.split_with_sizes([heads, kv_heads], dim=1), v_BHTD
