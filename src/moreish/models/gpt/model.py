"""The GPT: a decoder-only Transformer, by default in GPT-2's arrangement (Radford et al. 2019).

B batch, R rows of it, T new positions, S positions in all (cached and new), C model width,
N auxiliary features, V vocabulary.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from moreish.models.base import Logits, Model, State, Tokens
from moreish.models.gpt.attention import Attention
from moreish.models.gpt.config import GPTConfig, TransformerConfig
from moreish.models.gpt.kv_cache import Cache, CacheView, ensure_capacity
from moreish.models.gpt.layers import (
    DigitEmbedding,
    FeedForward,
    NgramEmbedding,
    RopeTable,
    norm_layer,
    rope_table,
)

ZERO_INITIALIZED = ("ngram_embeddings.", "feature_projection.")
"""Parts that start at zero, so that training begins as without them."""


class Block(nn.Module):
    """Attention, then a feed-forward network; each has a residual connection and a norm, which
    is applied before it (GPT-2) or after the sum (Vaswani et al. 2017)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm_place == "before"
        self.norm_attention = norm_layer(config)
        self.attention = Attention(config)
        self.norm_feedforward = norm_layer(config)
        self.feedforward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTC: Float[Tensor, "B T C"],
        rope: RopeTable | None,
        cache: Any = None,
        mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "B T C"], tuple[Tensor, Tensor]]:
        """Return the output, and the keys and values that `Attention` returns for `rope`, `cache`
        and `mask`."""
        masks = () if mask is None else (mask,)
        y_BTC, keys_values = self.attention(self.attention_input(x_BTC), rope, cache, *masks)
        x_BTC = x_BTC + self.dropout(y_BTC)
        if self.pre_norm:
            y_BTC = self.feedforward(self.norm_feedforward(x_BTC))
            return x_BTC + self.dropout(y_BTC), keys_values
        x_BTC = self.norm_attention(x_BTC)
        return self.norm_feedforward(x_BTC + self.dropout(self.feedforward(x_BTC))), keys_values

    def attention_input(self, x_BTC: Tensor) -> Tensor:
        return self.norm_attention(x_BTC) if self.pre_norm else x_BTC


class GPTState(NamedTuple):
    """The last tokens (and their features), as far as they may be read again, and the cache."""

    tokens_BS: Tensor
    features_BSN: Tensor | None
    cache: Cache


@final
class GPT(Model):
    """Token and position embeddings, blocks, a last norm, and a linear layer to the logits.

    Beyond the context, a sliding window is used: each layer attends to the last `context` positions
    of the layer below, and nothing is recomputed. Learned positions cannot slide: once the context
    is full, the older half is dropped and the newer half is recomputed.
    """

    Config = GPTConfig
    training_defaults = {"batch_tokens": 512, "weight_decay": 0.1}
    supports_activation_checkpointing = takes_features = True

    def __init__(self, config: GPTConfig, vocab_size: int, *, num_features: int = 0) -> None:
        super().__init__(
            vocab_size,
            context=config.context,
            max_length=config.context,
            # Adam's best rate falls with the width (Yang et al. 2022, "Tensor Programs V").
            learning_rate=0.64 / max(128, config.width),
        )
        learned, width = config.positions == "learned", config.width
        self.embedding = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(config.context, width) if learned else None
        by_digit = config.positions == "digits"
        self.digit_embedding = DigitEmbedding(config, vocab_size) if by_digit else None
        self.dropout = nn.Dropout(config.dropout)
        self.ngram_embeddings = nn.ModuleList(
            NgramEmbedding(length, vocab_size, config)
            for length in range(2, config.ngram_embedding + 1)
        )
        self.feature_projection = (
            nn.Linear(num_features, width, bias=False) if num_features else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = norm_layer(config) if config.norm_place == "before" else nn.Identity()
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.softcap = config.softcap
        self.head_width = width // config.heads
        self.rotary_base = config.rotary_base if config.positions == "rotary" else None
        self.max_cached = config.context if learned else 2 * config.context
        self.kept_tokens = max(1, config.ngram_embedding - 1)
        if learned or by_digit:
            self.kept_tokens = config.context
        init_weights(self, config)
        self.register_load_state_dict_pre_hook(_rename_old_keys)

    @property
    def slides(self) -> bool:
        return self.position is None

    def forward(
        self,
        tokens_BT: Tokens,
        state: State = None,
        features_BTN: Float[Tensor, "B T N"] | None = None,
    ) -> tuple[Logits, State]:
        new = tokens_BT.shape[1]
        if new > self.context:
            raise ValueError(f"{new} tokens at once, but the context holds {self.context}")
        cache: Cache | None = None
        views: Sequence[CacheView | None] = [None] * len(self.blocks)
        if state is not None:
            state = self._drop_older_half(state, new)
            views, cache = self._extend_cache(state.cache, new)
        seen_BS, features_BSN = self._append(state, tokens_BT, features_BTN)
        end = cache.end if cache else new
        position_1T = torch.arange(end - new, end, device=tokens_BT.device)[None]
        x_BTC, rope = self._embed(seen_BS, position_1T, features_BTN)
        keys_values = []
        for block, view in zip(self.blocks, views, strict=True):
            run: Any = block
            if self.activation_checkpointing and self.training:
                run = partial(checkpoint, block, use_reentrant=False)
            x_BTC, new_keys_values = run(x_BTC, rope, view)
            keys_values.append(new_keys_values)
        cache = cache or Cache.of(keys_values)
        return self.to_logits(x_BTC), GPTState(seen_BS[:, -self.kept_tokens :], features_BSN, cache)

    def _embed(
        self, seen_BS: Tensor, position_BT: Tensor, features_BTN: Tensor | None
    ) -> tuple[Tensor, RopeTable | None]:
        """Return the first block's input for the newest tokens, and their rotary table."""
        new, rope = position_BT.shape[1], None
        x_BTC = self.embedding(seen_BS[:, -new:])
        if self.feature_projection is not None:
            x_BTC = x_BTC + self.feature_projection(features_BTN)
        for ngram_embedding in self.ngram_embeddings:
            x_BTC = x_BTC + ngram_embedding(seen_BS, new)
        if self.position is not None:
            x_BTC = x_BTC + self.position(position_BT)
        if self.digit_embedding is not None:
            x_BTC = x_BTC + self.digit_embedding(seen_BS, new)
        if self.rotary_base is not None:
            rope = rope_table(position_BT[:, None], self.head_width, self.rotary_base)
        return self.dropout(x_BTC), rope

    def to_logits(self, x_BTC: Float[Tensor, "B T C"]) -> Logits:
        """Map the last block's output to logits."""
        logits_BTV = self.head(self.norm(x_BTC))
        if self.softcap:
            logits_BTV = self.softcap * (logits_BTV / self.softcap).tanh()
        return logits_BTV

    def attention_maps(
        self, tokens_BT: Tokens, features_BTN: Float[Tensor, "B T N"] | None = None
    ) -> list[Float[Tensor, "B H T T"]]:
        """Return each layer's attention weights: rows of positions, which sum to 1."""
        position_1T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        x_BTC, rope = self._embed(tokens_BT, position_1T, features_BTN)
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attention.attention_weights(block.attention_input(x_BTC), rope))
            x_BTC, _ = block(x_BTC, rope)
        return maps

    def decode_step(
        self,
        token_R: Int[Tensor, " R"],
        states: Sequence[State],
        features_R1N: Float[Tensor, "R 1 N"] | None = None,
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        """Every text has its own cache, of its own length: only attention, which is the smaller
        part of the work, runs text by text."""
        states = [self._drop_older_half(state, 1) for state in states]
        views_RL, caches = zip(*(self._extend_cache(s.cache, 1) for s in states), strict=True)
        seen_RS = token_R[:, None]
        reach = len(self.ngram_embeddings) if self.digit_embedding is None else self.kept_tokens
        if reach:  # tokens before the newest
            pasts = [F.pad(s.tokens_BS, (reach, 0), value=-1)[:, -reach:] for s in states]
            seen_RS = torch.cat([torch.cat(pasts), seen_RS], dim=1)
        position_R1 = torch.tensor([[cache.end - 1] for cache in caches], device=token_R.device)
        x_R1C, rope = self._embed(seen_RS, position_R1, features_R1N)
        for block, *views_R in zip(self.blocks, *views_RL, strict=True):
            x_R1C, _ = block(x_R1C, rope, views_R)
        new_states: list[State] = []
        for row, (state, cache) in enumerate(zip(states, caches, strict=True)):
            features_11N = None if features_R1N is None else features_R1N[row, None]
            seen_BS, features_BSN = self._append(state, token_R[row, None, None], features_11N)
            new_states.append(GPTState(seen_BS[:, -self.kept_tokens :], features_BSN, cache))
        return self.to_logits(x_R1C)[:, 0], new_states

    def _append(
        self, state: GPTState | None, tokens_BT: Tensor, features_BTN: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the tokens of a state and new ones, and their features if they are kept."""
        if self.position is None:
            features_BTN = None
        if state is None:
            return tokens_BT, features_BTN
        if features_BTN is not None and state.features_BSN is not None:
            features_BTN = torch.cat([state.features_BSN, features_BTN], dim=1)
        return torch.cat([state.tokens_BS, tokens_BT], dim=1), features_BTN

    def _extend_cache(self, cache: Cache, new: int) -> tuple[list[CacheView], Cache]:
        cache = ensure_capacity(
            cache, new, context=self.context, limit=self.max_cached, rotary_base=self.rotary_base
        )
        return cache.extend(new, self.context)

    def _drop_older_half(self, state: GPTState, new: int) -> GPTState:
        """Return `state` if it has room for `new` learned positions. Otherwise, read as many of its
        last tokens again as make half a context with the new ones."""
        if self.position is None or state.cache.end + new <= self.context:
            return state
        tokens_BS, features_BSN, cache = state
        kept = max(0, self.context // 2 - new)
        if features_BSN is not None:
            features_BSN = features_BSN[:, features_BSN.shape[1] - kept :]
        if kept == 0:
            return GPTState(tokens_BS[:, :0], features_BSN, cache._replace(end=0))
        return self(tokens_BS[:, -kept:], None, features_BSN)[1]


def init_weights(model: Any, config: TransformerConfig) -> None:
    """Initialize all weights of `model`, a GPT of these settings; biases start at zero.

    `init="gpt2"`: normal with standard deviation 0.02, and 0.02 / sqrt(2 · layers) for the layers
    that write to the residual stream (Radford et al. 2019, section 2.3).

    `init="scaled"`: normal with standard deviation 1 / sqrt(fan-in), so that every layer keeps the
    scale of its input, with the same factor 1 / sqrt(2 · layers); embeddings of size one; and an
    output layer that makes the first prediction uniform. Narrow models learn much faster this
    way (docs/dev-log.md).
    """
    gpt2 = config.init == "gpt2"
    if gpt2 and config.tied:
        model.head.weight = model.embedding.weight
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or (not gpt2 and name.startswith(ZERO_INITIALIZED)):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            embeds = name in ("embedding.weight", "position.weight")
            fan_in = 1 if embeds else parameter.shape[1]
            depth = 2 * config.layers if name.endswith(("out.weight", "down.weight")) else 1
            std = 0.02 * depth**-0.5 if gpt2 else (fan_in * depth) ** -0.5
            nn.init.normal_(parameter, std=std)
    if gpt2:
        return
    if not config.tied:
        nn.init.zeros_(model.head.weight)
        return
    # The last token's own embedding is in the residual stream, so a tied model would begin by
    # repeating its input, the more surely the wider it is; a small scale keeps it uniform.
    if isinstance(model.norm, nn.Identity):
        nn.init.normal_(model.embedding.weight, std=0.02 / math.sqrt(config.width))
    for name, gain in model.norm.named_parameters():
        nn.init.constant_(gain, 0.0 if name == "bias" else 0.5 / config.width)
    model.head.weight = model.embedding.weight


def _rename_old_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Load weights that version 0.1.0 saved under other names."""
    renamed = {"grams.": "ngram_embeddings.", "hints.": "feature_projection."}
    for old, new in renamed.items():
        for key in [key for key in state if key.startswith(prefix + old)]:
            state[prefix + new + key.removeprefix(prefix + old)] = state.pop(key)
