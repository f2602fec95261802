"""The GPT: a decoder-only Transformer, by default in GPT-2's arrangement (Radford et al. 2019).

Its switches lead from the first attention head of the GPT lecture to the models of today.

B batch, T time, S positions in all (cached and new), H heads, C width, V vocabulary.
"""

import math
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from moreish.models.attention import Attention
from moreish.models.base import Model, ModelConfig, State
from moreish.models.cache import Cache, GPTState, with_room
from moreish.models.layers import (
    Activation,
    FeedForward,
    GramEmbedding,
    Norm,
    Rotation,
    norm_layer,
    rotation,
)


class GPTConfig(ModelConfig):
    name: Literal["gpt"] = "gpt"
    layers: int = Field(4, ge=1, le=1000)
    heads: int = Field(4, ge=1, le=1000)
    kv_heads: int | None = Field(None, ge=1)
    """Heads of keys and values, each shared by several of queries (Ainslie et al. 2023)."""
    width: int = Field(128, ge=1, le=1 << 20)
    context: int = Field(64, ge=1, le=1 << 24)
    """Positions that the model can see."""
    dropout: float = Field(0.0, ge=0, lt=1)
    tied: bool = False
    """Whether the output layer is the embedding table (Press and Wolf 2017)."""
    bias: bool = True
    positions: Literal["learned", "rotary"] = "learned"
    grams: int = Field(1, ge=1, le=32)
    """The longest n-grams with embeddings of their own, added to that of the token that ends them
    (Pagnoni et al. 2024, "Byte Latent Transformer", section 3.2.1); 1: none."""
    gram_rows: int = Field(1 << 14, ge=1, le=1 << 26)
    """Rows for the n-grams of each length; where there are more, they share rows by chance."""
    gram_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the n-gram embeddings that are left out at each position in training."""
    norm: Norm = "layer"
    norm_place: Literal["before", "after"] = "before"
    """Before each part, as in GPT-2, or after each sum, as in Vaswani et al. 2017."""
    qk_norm: bool = False
    """Queries and keys of unit size in every head (Henry et al. 2020)."""
    scaled: bool = True
    """Whether affinities are divided by the root of the head width."""
    projection: bool = True
    """A linear layer after the heads."""
    residual: bool = True
    """Whether each part adds to its input, or takes its place."""
    feedforward: Activation | Literal["none"] = "gelu"
    feedforward_ratio: float = Field(4.0, gt=0, le=1024)
    """Inner width of the feed-forward over the model's."""
    softcap: float = Field(0.0, ge=0)
    """Logits are squeezed between plus and minus this (Gemma 2, 2024); 0: not at all."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "GPTConfig":
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide by {self.heads} heads")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not divide by {self.kv_heads} kv_heads")
        return self

    def for_data(self, longest_item: int | None, vocab_size: int) -> "GPTConfig":
        """For items, a width of 64 and a context that just holds the longest, unless they are set.

        An item of n tokens is n + 1 predictions, the first of them from the boundary.
        """
        if longest_item is None:
            return self
        width = self.width if 64 % self.heads else 64
        fitting = {"width": width, "context": min(self.context, longest_item + 1)}
        unset = {k: v for k, v in fitting.items() if k not in self.model_fields_set}
        return type(self).model_validate(self.model_dump() | unset)


class Block(nn.Module):
    """Attention, then a feed-forward; each normalised and added as the config says."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.residual, self.before = config.residual, config.norm_place == "before"
        self.norm_attention = norm_layer(config.norm, config.width, config.bias)
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
            self.norm_feedforward = norm_layer(config.norm, config.width, config.bias)
            self.feedforward = FeedForward(
                config.width, config.feedforward_ratio, config.feedforward, bias=config.bias
            )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], turn: Rotation | None, cache: Cache | None
    ) -> tuple[Float[Tensor, "B T C"], Cache]:
        y_BTC, cache = self.attention(self.attention_input(x_BTC), turn, cache)
        x_BTC = self._joined(x_BTC, y_BTC, self.norm_attention)
        if self.feedforward is None:
            return x_BTC, cache
        y_BTC = self.feedforward(self.norm_feedforward(x_BTC) if self.before else x_BTC)
        return self._joined(x_BTC, y_BTC, self.norm_feedforward), cache

    def attention_input(self, x_BTC: Tensor) -> Tensor:
        return self.norm_attention(x_BTC) if self.before else x_BTC

    def _joined(self, x_BTC: Tensor, y_BTC: Tensor, norm: nn.Module) -> Tensor:
        y_BTC = self.dropout(y_BTC) if self.training else y_BTC
        x_BTC = x_BTC + y_BTC if self.residual else y_BTC
        return x_BTC if self.before else norm(x_BTC)


@final
class GPT(Model):
    """Token and position embeddings, blocks, a last norm and a linear layer to the logits.

    Past the context, rotary positions slide: each layer sees the last `context` positions of the
    layer below, whatever those have seen, so nothing is read again. Learned positions cannot slide:
    a state that has filled the context forgets its older half and reads the newer half again.
    """

    Config = GPTConfig
    training_defaults = {"batch_tokens": 512, "weight_decay": 0.1}

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__(
            vocab_size,
            context=config.context,
            max_length=config.context,
            # Beyond a width Adam's best rate falls with it (Yang et al. 2022, "Tensor Programs V").
            learning_rate=0.64 / max(128, config.width),
        )
        self.embedding = nn.Embedding(vocab_size, config.width)
        learned = config.positions == "learned"
        self.position = nn.Embedding(config.context, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        lengths = range(2, config.grams + 1)
        self.grams = nn.ModuleList(
            GramEmbedding(n, vocab_size, config.gram_rows, config.width, config.gram_dropout)
            for n in lengths
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        last = config.norm if config.norm_place == "before" else "none"
        self.norm = norm_layer(last, config.width, config.bias)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self.softcap = config.softcap
        self.head_width = config.width // config.heads
        self.remembered = config.context if learned else max(1, config.grams - 1)
        self._initialise(config)

    def _initialise(self, config: GPTConfig) -> None:
        """Every layer keeps the scale of its input, those that end on the residual path add less of
        it the more there are (Radford et al. 2019, section 2.3), and the first guess is uniform.

        GPT-2's own deviation of 0.02 suits its width; the narrow models of a laptop learn far
        faster from embeddings of size one (docs/dev-log.md).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name.startswith("grams."):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                embeds = name in ("embedding.weight", "position.weight")
                joins = config.residual and name.endswith(("out.weight", "down.weight"))
                inputs = 1 if embeds else parameter.shape[1]
                nn.init.normal_(
                    parameter, std=(inputs * (2 * config.layers if joins else 1)) ** -0.5
                )
        if not config.tied:
            nn.init.zeros_(self.head.weight)
            return
        # The last position's own embedding is in the stream, so a tied model would start by
        # repeating its input, the surer the wider it is; a small scale keeps it uniform.
        if isinstance(self.norm, nn.Identity):
            nn.init.normal_(self.embedding.weight, std=0.02 / math.sqrt(config.width))
        for name, gain in self.norm.named_parameters():
            nn.init.constant_(gain, 0.0 if name == "bias" else 0.5 / config.width)
        self.head.weight = self.embedding.weight

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        new = tokens_BT.shape[1]
        if new > self.context:
            raise ValueError(f"{new} tokens at once, but the context holds {self.context}")
        seen_BS = tokens_BT if state is None else torch.cat([state.tokens_BS, tokens_BT], dim=1)
        past = 0 if state is None else state.caches[0].end
        if self.position is not None and past + new > self.context:
            kept = max(new, self.context // 2)
            logits_BKV, state = self(seen_BS[:, -kept:])
            return logits_BKV[:, -new:], state
        caches: list[Cache] | list[None] = [None] * len(self.blocks)
        if state is not None:
            rotary = self.position is None
            caches = with_room(state.caches, new, self.context, rotary=rotary)
            past = caches[0].end
        x_BTC, turn = self._embed(seen_BS, range(past, past + new))
        filled: list[Cache] = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x_BTC, cache = block(x_BTC, turn, cache)
            filled.append(cache)
        logits_BTV = self.head(self.norm(x_BTC))
        if self.softcap:
            logits_BTV = self.softcap * (logits_BTV / self.softcap).tanh()
        return logits_BTV, GPTState(seen_BS[:, -self.remembered :], filled)

    def attention_maps(self, tokens_BT: Int[Tensor, "B T"]) -> list[Float[Tensor, "B H T T"]]:
        """Of each layer, how much every position takes from every earlier one; rows sum to 1."""
        x_BTC, turn = self._embed(tokens_BT, range(tokens_BT.shape[1]))
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attention.weights(block.attention_input(x_BTC), turn))
            x_BTC, _ = block(x_BTC, turn, None)
        return maps

    def _embed(self, seen_BS: Tensor, places: range) -> tuple[Tensor, Rotation | None]:
        """What goes into the first block for the newest tokens of those seen, and what its queries
        and keys are turned by."""
        x_BTC = self.embedding(seen_BS[:, -len(places) :])
        for grams in self.grams:
            x_BTC = x_BTC + grams(seen_BS, len(places))
        turn = None
        if self.position is None:
            places_T = torch.arange(places.start, places.stop, device=seen_BS.device)
            turn = rotation(places_T, self.head_width)
        else:
            x_BTC = x_BTC + self.position.weight[places.start : places.stop]
        return self.dropout(x_BTC) if self.training else x_BTC, turn
