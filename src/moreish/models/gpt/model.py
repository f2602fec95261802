"""The GPT: a decoder-only Transformer, by default in GPT-2's arrangement (Radford et al. 2019).

Its switches lead from the first attention head of the GPT lecture to the models of today.

B batch, T time, S positions in all (cached and new), H heads, C width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from moreish.models.base import Model, State
from moreish.models.gpt.block import Block
from moreish.models.gpt.config import GPTConfig
from moreish.models.gpt.init import init_weights
from moreish.models.gpt.kv_cache import Cache, CacheViews, ensure_capacity
from moreish.models.gpt.layers import NgramEmbedding, RopeTable, norm_layer, rope_table


class GPTState(NamedTuple):
    """The last tokens (and features) that may be needed again, and keys and values."""

    tokens_BS: Tensor
    features_BSN: Tensor | None
    cache: Cache


@final
class GPT(Model):
    """Token and position embeddings, blocks, a last norm and a linear layer to the logits.

    Past the context, rotary positions slide: each layer sees the last `context` positions of the
    layer below, whatever those have seen, so nothing is read again. Learned positions cannot slide:
    a state that has filled the context forgets its older half and reads the newer half again.
    """

    Config = GPTConfig
    training_defaults = {"batch_tokens": 512, "weight_decay": 0.1}

    supports_activation_checkpointing = takes_features = True

    def __init__(self, config: GPTConfig, vocab_size: int, *, num_features: int = 0) -> None:
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
        self.ngram_embeddings = nn.ModuleList(
            NgramEmbedding(n, vocab_size, config.gram_rows, config.width, config.gram_dropout)
            for n in lengths
        )
        self.feature_projection = (
            nn.Linear(num_features, config.width, bias=False) if num_features else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        last = config.norm if config.norm_place == "before" else "none"
        self.norm = norm_layer(last, config.width, config.bias, config.norm_eps)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self.softcap = config.softcap
        self.head_width = config.width // config.heads
        self.rotary_base = None if learned else config.rotary_base
        self.remembered = config.context if learned else max(1, config.grams - 1)
        init_weights(self, config)
        self.register_load_state_dict_pre_hook(_rename_old_keys)

    def forward(
        self,
        tokens_BT: Int[Tensor, "B T"],
        state: State = None,
        features_BTN: Float[Tensor, "B T N"] | None = None,
    ) -> tuple[Float[Tensor, "B T V"], State]:
        new = tokens_BT.shape[1]
        if new > self.context:
            raise ValueError(f"{new} tokens at once, but the context holds {self.context}")
        seen_BS = tokens_BT if state is None else torch.cat([state.tokens_BS, tokens_BT], dim=1)
        features_BSN = features_BTN if self.position is not None else None  # only these read again
        if features_BSN is not None and state is not None:
            features_BSN = torch.cat([state.features_BSN, features_BSN], dim=1)
        past = 0 if state is None else state.cache.end
        if self.position is not None and past + new > self.context:
            kept = max(new, self.context // 2)
            kept_BSN = None if features_BSN is None else features_BSN[:, -kept:]
            logits_BKV, state = self(seen_BS[:, -kept:], None, kept_BSN)
            return logits_BKV[:, -new:], state
        cache: Cache | None = None
        views: Sequence[CacheViews] = [None] * len(self.blocks)
        if state is not None:
            cache = ensure_capacity(state.cache, new, self.context, self.rotary_base)
            past = cache.end
            views, cache = cache.views(new, self.context)
        x_BTC, rope = self._embed(seen_BS, range(past, past + new), features_BTN)
        layers = []
        for block, slot in zip(self.blocks, views, strict=True):
            x_BTC, read = self._through(block, x_BTC, rope, slot)
            layers.append(read)
        return self.to_logits(x_BTC), GPTState(
            seen_BS[:, -self.remembered :], features_BSN, cache or Cache.of(layers)
        )

    def decode_step(
        self,
        token_R: Int[Tensor, " R"],
        states: Sequence[State],
        features_RN: Float[Tensor, "R N"] | None = None,
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        """Each text has a cache of its own, so that only attention, which is the smaller part of
        the work, is done text by text."""
        states = [self._with_place(state) for state in states]
        caches, views = [], []
        for state in states:
            cache = ensure_capacity(state.cache, 1, self.context, self.rotary_base)
            views_L, cache = cache.views(1, self.context)
            views.append(views_L)
            caches.append(cache)
        x_R1C, rope = self._embed_each(token_R, states, [cache.end - 1 for cache in caches])
        if self.feature_projection is not None:
            x_R1C = x_R1C + self.feature_projection(features_RN)[:, None]
        for block, views_R in zip(self.blocks, zip(*views, strict=True), strict=True):
            x_R1C, _ = block(x_R1C, rope, views_R)
        after: list[State] = []
        for row, (state, cache) in enumerate(zip(states, caches, strict=True)):
            one = slice(row, row + 1)
            tokens_BS = torch.cat([state.tokens_BS, token_R[one, None]], dim=1)
            features_BSN = state.features_BSN
            if features_BSN is not None and features_RN is not None:
                features_BSN = torch.cat([features_BSN, features_RN[one, None]], dim=1)
            after.append(GPTState(tokens_BS[:, -self.remembered :], features_BSN, cache))
        return self.to_logits(x_R1C)[:, 0], after

    def _with_place(self, state: State) -> State:
        """`state`, or where learned positions are all taken, what is left of it without the older
        half: as in `forward`, the next token counts to the newer one."""
        if self.position is None or state.cache.end < self.context:
            return state
        tokens_BS, features_BSN, cache = state
        kept = max(1, self.context // 2) - 1
        if features_BSN is not None:
            features_BSN = features_BSN[:, features_BSN.shape[1] - kept :]
        if kept == 0:
            return GPTState(tokens_BS[:, :0], features_BSN, cache._replace(end=0))
        return self(tokens_BS[:, -kept:], None, features_BSN)[1]

    def to_logits(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """From what the last block gives."""
        logits_BTV = self.head(self.norm(x_BTC))
        if self.softcap:
            logits_BTV = self.softcap * (logits_BTV / self.softcap).tanh()
        return logits_BTV

    def _through(self, block: nn.Module, *inputs: Any) -> Any:
        if self.activation_checkpointing and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def attention_maps(
        self, tokens_BT: Int[Tensor, "B T"], features_BTN: Float[Tensor, "B T N"] | None = None
    ) -> list[Float[Tensor, "B H T T"]]:
        """Of each layer, how much every position takes from every earlier one; rows sum to 1."""
        x_BTC, rope = self._embed(tokens_BT, range(tokens_BT.shape[1]), features_BTN)
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attention.attention_weights(block.attention_input(x_BTC), rope))
            x_BTC, _ = block(x_BTC, rope, None)
        return maps

    def _embed(
        self, seen_BS: Tensor, places: range, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, RopeTable | None]:
        """What goes into the first block for the newest tokens of those seen, and what its queries
        and keys are turned by."""
        x_BTC = self.embedding(seen_BS[:, -len(places) :])
        if self.feature_projection is not None:
            x_BTC = x_BTC + self.feature_projection(features_BTN)
        for grams in self.ngram_embeddings:
            x_BTC = x_BTC + grams(seen_BS, len(places))
        rope = None
        if self.rotary_base is not None:
            places_T = torch.arange(places.start, places.stop, device=seen_BS.device)
            rope = rope_table(places_T, self.head_width, self.rotary_base)
        else:
            assert self.position is not None
            x_BTC = x_BTC + self.position.weight[places.start : places.stop]
        return self.dropout(x_BTC) if self.training else x_BTC, rope

    def _embed_each(
        self, token_R: Tensor, states: Sequence[GPTState], places: list[int]
    ) -> tuple[Float[Tensor, "R 1 C"], RopeTable | None]:
        """As `_embed`, without features, for one new token of each text at its own place."""
        x_RC = self.embedding(token_R)
        place_R = torch.tensor(places, device=token_R.device)
        if self.ngram_embeddings:
            reach = len(self.ngram_embeddings)  # tokens before the last one
            pasts = [state.tokens_BS[:, -reach:] for state in states]
            known_R = torch.tensor([past.shape[1] for past in pasts], device=token_R.device)
            past_RS = torch.cat([F.pad(past, (reach - past.shape[1], 0)) for past in pasts])
            seen_RS = torch.cat([past_RS, token_R[:, None]], dim=1)
            for grams in self.ngram_embeddings:
                assert isinstance(grams, NgramEmbedding)
                there_R1 = (known_R >= grams.length - 1)[:, None]
                x_RC = x_RC + grams(seen_RS, 1)[:, 0] * there_R1
        if self.rotary_base is None:
            assert self.position is not None
            return (x_RC + self.position(place_R))[:, None], None
        cosine_RD, sine_RD = rope_table(place_R, self.head_width, self.rotary_base)
        return x_RC[:, None], (cosine_RD[:, None, None], sine_RD[:, None, None])


def _rename_old_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Load weights that version 0.1.0 saved under other names."""
    renamed = {"grams.": "ngram_embeddings.", "hints.": "feature_projection."}
    for old, new in renamed.items():
        for key in [key for key in state if key.startswith(prefix + old)]:
            state[prefix + new + key.removeprefix(prefix + old)] = state.pop(key)
