"""Causal self-attention.

B batch, T new positions, S positions in all (cached and new), H heads, K heads of keys and values,
D head width, C model width, Q positions of a mask: T, or 1 for all alike.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.gpt.config import TransformerConfig
from moreish.models.gpt.kv_cache import CacheView
from moreish.models.gpt.layers import RopeTable, apply_rope


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2), optionally with rotary
    embedding, normalized queries and keys, and grouped heads of keys and values."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, heads, kv_heads = config.width, config.heads, config.kv_heads or config.heads
        self.head_width = width // heads
        self.num_heads, self.num_kv_heads = heads, kv_heads
        self.heads_per_kv_head = heads // kv_heads
        self.context, self.dropout, self.qk_norm = config.context, config.dropout, config.qk_norm
        self.scale = self.head_width**-0.5
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head_width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        rope: RopeTable | None,
        cache: CacheView | list[CacheView] | None = None,
        mask: Bool[Tensor, "B 1 Q S"] | None = None,
    ) -> tuple[Float[Tensor, "B T C"], tuple[Tensor, Tensor]]:
        """Return the output for the new positions, and their keys and values, each (B, H, T, D).

        Args:
            rope: the new positions' rotary table, if the model has one.
            cache: this layer's part of the cache, or of the cache of every row; None: no past.
            mask: which positions each position sees, in place of all up to itself.
        """
        q_BHTD, k_BHTD, v_BHTD = self.split_heads(x_BTC, rope)
        if isinstance(cache, list):
            rows = zip(cache, q_BHTD.split(1), k_BHTD.split(1), v_BHTD.split(1), strict=True)
            y_BHTD = torch.cat([self.attend(q, *view.update(k, v)) for view, q, k, v in rows])
        else:
            seen = (k_BHTD, v_BHTD) if cache is None else cache.update(k_BHTD, v_BHTD)
            y_BHTD = self.attend(q_BHTD, *seen, mask)
        return self.out(y_BHTD.transpose(1, 2).flatten(2)), (k_BHTD, v_BHTD)

    def split_heads(self, x_BTC: Tensor, rope: RopeTable | None) -> tuple[Tensor, ...]:
        """Return queries, keys and values, each (B, H, T, D)."""
        heads_BTHD = self.qkv(x_BTC).view(*x_BTC.shape[:2], -1, self.head_width)
        heads_BHTD = heads_BTHD.transpose(1, 2)
        heads, kv_heads = self.num_heads, self.num_kv_heads
        if rope is None and not self.qk_norm:
            return heads_BHTD.split_with_sizes([heads, kv_heads, kv_heads], dim=1)
        qk_BHTD, v_BHTD = heads_BHTD.split_with_sizes([heads + kv_heads, kv_heads], dim=1)
        if rope is not None:
            qk_BHTD = apply_rope(qk_BHTD, rope)
        if self.qk_norm:
            qk_BHTD = F.rms_norm(qk_BHTD, qk_BHTD.shape[-1:])
        return *qk_BHTD.split_with_sizes([heads, kv_heads], dim=1), v_BHTD

    def attend(
        self,
        q_BHTD: Float[Tensor, "B H T D"],
        k_BKSD: Float[Tensor, "B K S D"],
        v_BKSD: Float[Tensor, "B K S D"],
        mask: Bool[Tensor, "B 1 Q S"] | None = None,
    ) -> Float[Tensor, "B H T D"]:
        """Compute scaled dot-product attention of the T newest of S positions."""
        new, seen = q_BHTD.shape[2], k_BKSD.shape[2]
        mask_TS = mask
        if mask is None and 1 < new < seen:  # each sees the `context` positions up to itself
            mask_TS = torch.ones(new, seen, dtype=torch.bool, device=q_BHTD.device)
            mask_TS = mask_TS.tril(seen - new).triu(seen - new + 1 - self.context)
        if self.heads_per_kv_head > 1:
            k_BKSD = k_BKSD.repeat_interleave(self.heads_per_kv_head, dim=1)
            v_BKSD = v_BKSD.repeat_interleave(self.heads_per_kv_head, dim=1)
        return F.scaled_dot_product_attention(
            q_BHTD,
            k_BKSD,
            v_BKSD,
            attn_mask=mask_TS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=new == seen and mask is None,
            scale=self.scale,
        )

    def attention_weights(
        self, x_BTC: Float[Tensor, "B T C"], rope: RopeTable | None
    ) -> Float[Tensor, "B H T T"]:
        """Return the weights that `forward` gives earlier positions and does not keep."""
        q_BHTD, k_BHTD, _ = self.split_heads(x_BTC, rope)
        affinity_BHTT = (
            q_BHTD @ k_BHTD.repeat_interleave(self.heads_per_kv_head, dim=1).mT * self.scale
        )
        future_TT = torch.ones_like(affinity_BHTT[0, 0], dtype=torch.bool).triu(1)
        return affinity_BHTT.masked_fill(future_TT, -torch.inf).softmax(dim=-1)


class CrossAttention(nn.Module):
    """Attention of a decoder's positions to the encoder's output (Vaswani et al. 2017, section
    3.2.3), with the switches of `Attention` but without positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.head_width, self.dropout, self.qk_norm = width // heads, config.dropout, config.qk_norm
        self.query = nn.Linear(width, width, bias=config.bias)
        self.key_value = nn.Linear(width, 2 * width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)

    def keys_values(self, memory_BSC: Float[Tensor, "B S C"]) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the encoder's output, each (B, H, S, D)."""
        k_BSHD, v_BSHD = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in self.key_value(memory_BSC).chunk(2, dim=-1)
        )
        return self._normalize(k_BSHD), v_BSHD

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        keys_values: tuple[Tensor, Tensor],
        mask_B11S: Bool[Tensor, "B 1 1 S"],
    ) -> Float[Tensor, "B T C"]:
        """Return the output for each position.

        Args:
            keys_values: what `keys_values` returned.
            mask_B11S: which positions of the encoder's output there are.
        """
        y_BHTD = F.scaled_dot_product_attention(
            self.queries(x_BTC),
            *keys_values,
            attn_mask=mask_B11S,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(y_BHTD.transpose(1, 2).flatten(2))

    def queries(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T D"]:
        """Return the queries."""
        q_BTHD = self.query(x_BTC).unflatten(-1, (-1, self.head_width))
        return self._normalize(q_BTHD.transpose(1, 2))

    def _normalize(self, x_BHTD: Tensor) -> Tensor:
        return F.rms_norm(x_BHTD, x_BHTD.shape[-1:]) if self.qk_norm else x_BHTD

    def attention_weights(
        self,
        x_BTC: Float[Tensor, "B T C"],
        keys_values: tuple[Tensor, Tensor],
        mask_B11S: Bool[Tensor, "B 1 1 S"],
    ) -> Float[Tensor, "B H T S"]:
        """Return the weights that `forward` gives the positions of the encoder's output."""
        affinity = self.queries(x_BTC) @ keys_values[0].mT * self.head_width**-0.5
        return affinity.masked_fill(~mask_B11S, -torch.inf).softmax(dim=-1)
