"""The GPT: a decoder-only Transformer in GPT-2's arrangement (Radford et al. 2019).

B batch, T time (new positions), S positions in all (cached and new), H heads, D head width,
C model width, V vocabulary.
"""

import math
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.base import Model, ModelConfig, State

Cache = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, H, S, D)."""


class GPTConfig(ModelConfig):
    name: Literal["gpt"] = "gpt"
    layers: int = Field(4, ge=1, le=1000)
    heads: int = Field(4, ge=1, le=1000)
    width: int = Field(128, ge=1, le=1 << 20)
    context: int = Field(64, ge=1, le=1 << 24)
    """Positions that the model can see."""
    dropout: float = Field(0.0, ge=0, lt=1)
    tied: bool = False
    """Whether the output layer is the embedding table (Press and Wolf 2017)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "GPTConfig":
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide by {self.heads} heads")
        return self

    def for_data(self, longest_item: int | None) -> "GPTConfig":
        """For items, a width of 64 and a context that just holds the longest, unless they are set.

        An item of n tokens is n + 1 predictions, the first of them from the boundary.
        """
        if longest_item is None:
            return self
        width = self.width if 64 % self.heads else 64
        fitting = {"width": width, "context": min(self.context, longest_item + 1)}
        unset = {k: v for k, v in fitting.items() if k not in self.model_fields_set}
        return type(self).model_validate(self.model_dump() | unset)


class GPTState(NamedTuple):
    """What the model has read, and its keys and values layer by layer."""

    tokens_BS: Tensor
    caches: list[Cache]


class Attention(nn.Module):
    """Causal self-attention, all heads in one product (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], cache: Cache | None
    ) -> tuple[Float[Tensor, "B T C"], Cache]:
        q_BHTD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x_BTC).chunk(3, dim=-1)
        )
        if cache is not None:
            k_BHSD = torch.cat([cache[0], k_BHSD], dim=2)
            v_BHSD = torch.cat([cache[1], v_BHSD], dim=2)
        new, seen = q_BHTD.shape[2], k_BHSD.shape[2]
        mask_TS = None
        if 1 < new < seen:  # new tokens after cached ones: each sees all of the past
            mask_TS = torch.ones(new, seen, dtype=torch.bool, device=x_BTC.device).tril(seen - new)
        y_BHTD = F.scaled_dot_product_attention(
            q_BHTD,
            k_BHSD,
            v_BHSD,
            attn_mask=mask_TS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=new == seen,
        )
        return self.out(y_BHTD.transpose(1, 2).flatten(2)), (k_BHSD, v_BHSD)


class Block(nn.Module):
    """Attention, then a feed-forward of four times the width; each normalised first and added."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.norm_feedforward = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], cache: Cache | None
    ) -> tuple[Float[Tensor, "B T C"], Cache]:
        y_BTC, cache = self.attention(self.norm_attention(x_BTC), cache)
        x_BTC = x_BTC + self.dropout(y_BTC)
        y_BTC = self.down(F.gelu(self.up(self.norm_feedforward(x_BTC)), approximate="tanh"))
        return x_BTC + self.dropout(y_BTC), cache


@final
class GPT(Model):
    """Token and position embeddings, blocks, a last norm and a linear layer to the logits.

    A state that has filled the context forgets its older half and reads the newer half again,
    since learned positions cannot slide.
    """

    Config = GPTConfig
    training_defaults = {"batch_tokens": 512, "weight_decay": 0.1}

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__(
            vocab_size,
            context=config.context,
            max_length=config.context,
            # The best rate of Adam falls with the width (Yang et al. 2022, "Tensor Programs V").
            learning_rate=0.4 / config.width,
        )
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self._initialise(config)

    def _initialise(self, config: GPTConfig) -> None:
        """GPT-2's: normal with deviation 0.02, less on the residual path; a uniform first guess."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers if last else 1))
        if config.tied:
            # The last position's own embedding is in the stream, so a tied model starts by
            # repeating its input, the surer the wider it is; a small gain keeps it uniform.
            nn.init.constant_(self.norm.weight, min(1.0, 16 / config.width))
            self.head.weight = self.embedding.weight
        else:
            nn.init.zeros_(self.head.weight)

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        new = tokens_BT.shape[1]
        if new > self.context:
            raise ValueError(f"{new} tokens at once, but the context holds {self.context}")
        past = 0 if state is None else state.tokens_BS.shape[1]
        seen_BS = tokens_BT if state is None else torch.cat([state.tokens_BS, tokens_BT], dim=1)
        if past + new > self.context:
            kept = max(new, self.context // 2)
            logits_BKV, state = self(seen_BS[:, -kept:])
            return logits_BKV[:, -new:], state
        places_T = torch.arange(past, past + new, device=tokens_BT.device)
        x_BTC = self.dropout(self.embedding(tokens_BT) + self.position(places_T))
        caches: list[Cache] = []
        for i, block in enumerate(self.blocks):
            x_BTC, cache = block(x_BTC, None if state is None else state.caches[i])
            caches.append(cache)
        return self.head(self.norm(x_BTC)), GPTState(seen_BS, caches)
