"""The GPT: a decoder-only Transformer, by default in GPT-2's arrangement (Radford et al. 2019).

Its switches lead from the first attention head of the GPT lecture to the models of today.

B batch, T time, S positions in all (cached and new), H heads, C width, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from moreish.models.attention import Attention
from moreish.models.base import Model, State
from moreish.models.cache import Cache, Slot, with_room
from moreish.models.gpt_config import GPTConfig
from moreish.models.layers import FeedForward, GramEmbedding, Rotation, norm_layer, rotation


class GPTState(NamedTuple):
    """The last tokens (and hints) that may be needed again, and keys and values."""

    tokens_BS: Tensor
    hints_BSN: Tensor | None
    cache: Cache


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
        self, x_BTC: Float[Tensor, "B T C"], turn: Rotation | None, slot: Slot | None
    ) -> tuple[Float[Tensor, "B T C"], tuple[Tensor, Tensor]]:
        y_BTC, read = self.attention(self.attention_input(x_BTC), turn, slot)
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


@final
class GPT(Model):
    """Token and position embeddings, blocks, a last norm and a linear layer to the logits.

    Past the context, rotary positions slide: each layer sees the last `context` positions of the
    layer below, whatever those have seen, so nothing is read again. Learned positions cannot slide:
    a state that has filled the context forgets its older half and reads the newer half again.
    """

    Config = GPTConfig
    training_defaults = {"batch_tokens": 512, "weight_decay": 0.1}

    recomputes = takes_hints = True

    def __init__(self, config: GPTConfig, vocab_size: int, *, hints: int = 0) -> None:
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
        self.hints = nn.Linear(hints, config.width, bias=False) if hints else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        last = config.norm if config.norm_place == "before" else "none"
        self.norm = norm_layer(last, config.width, config.bias, config.norm_eps)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self.softcap = config.softcap
        self.head_width = config.width // config.heads
        self.rotary_base = None if learned else config.rotary_base
        self.remembered = config.context if learned else max(1, config.grams - 1)
        self._initialise(config)

    def _initialise(self, config: GPTConfig) -> None:
        """Every layer keeps the scale of its input, those that end on the residual path add less of
        it the more there are (Radford et al. 2019, section 2.3), and the first guess is uniform.

        GPT-2's own deviation of 0.02 suits its width; the narrow models of a laptop learn far
        faster from embeddings of size one (docs/dev-log.md).
        """
        if config.init == "gpt2":
            self._initialise_as_gpt2(config)
            return
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name.startswith(("grams.", "hints.")):
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

    def _initialise_as_gpt2(self, config: GPTConfig) -> None:
        """Radford et al. 2019, section 2.3, and their code: 0.02, of projections onto the residual
        path over the root of how many there are."""
        if config.tied:
            self.head.weight = self.embedding.weight
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                joins = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 * (2 * config.layers if joins else 1) ** -0.5)

    def forward(
        self,
        tokens_BT: Int[Tensor, "B T"],
        state: State = None,
        hints_BTN: Float[Tensor, "B T N"] | None = None,
    ) -> tuple[Float[Tensor, "B T V"], State]:
        new = tokens_BT.shape[1]
        if new > self.context:
            raise ValueError(f"{new} tokens at once, but the context holds {self.context}")
        seen_BS = tokens_BT if state is None else torch.cat([state.tokens_BS, tokens_BT], dim=1)
        hints_BSN = hints_BTN if self.position is not None else None  # only these read again
        if hints_BSN is not None and state is not None:
            hints_BSN = torch.cat([state.hints_BSN, hints_BSN], dim=1)
        past = 0 if state is None else state.cache.end
        if self.position is not None and past + new > self.context:
            kept = max(new, self.context // 2)
            kept_BSN = None if hints_BSN is None else hints_BSN[:, -kept:]
            logits_BKV, state = self(seen_BS[:, -kept:], None, kept_BSN)
            return logits_BKV[:, -new:], state
        cache: Cache | None = None
        slots: Sequence[Slot | None] = [None] * len(self.blocks)
        if state is not None:
            cache = with_room(state.cache, new, self.context, self.rotary_base)
            past = cache.end
            slots, cache = cache.slots(new, self.context)
        x_BTC, turn = self._embed(seen_BS, range(past, past + new), hints_BTN)
        layers = []
        for block, slot in zip(self.blocks, slots, strict=True):
            x_BTC, read = self._through(block, x_BTC, turn, slot)
            layers.append(read)
        return self.to_logits(x_BTC), GPTState(
            seen_BS[:, -self.remembered :], hints_BSN, cache or Cache.of(layers)
        )

    def to_logits(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """From what the last block gives."""
        logits_BTV = self.head(self.norm(x_BTC))
        if self.softcap:
            logits_BTV = self.softcap * (logits_BTV / self.softcap).tanh()
        return logits_BTV

    def _through(self, block: nn.Module, *inputs: Any) -> Any:
        if self.recompute and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def attention_maps(
        self, tokens_BT: Int[Tensor, "B T"], hints_BTN: Float[Tensor, "B T N"] | None = None
    ) -> list[Float[Tensor, "B H T T"]]:
        """Of each layer, how much every position takes from every earlier one; rows sum to 1."""
        x_BTC, turn = self._embed(tokens_BT, range(tokens_BT.shape[1]), hints_BTN)
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attention.weights(block.attention_input(x_BTC), turn))
            x_BTC, _ = block(x_BTC, turn, None)
        return maps

    def _embed(
        self, seen_BS: Tensor, places: range, hints_BTN: Tensor | None = None
    ) -> tuple[Tensor, Rotation | None]:
        """What goes into the first block for the newest tokens of those seen, and what its queries
        and keys are turned by."""
        x_BTC = self.embedding(seen_BS[:, -len(places) :])
        if self.hints is not None:
            x_BTC = x_BTC + self.hints(hints_BTN)
        for grams in self.grams:
            x_BTC = x_BTC + grams(seen_BS, len(places))
        turn = None
        if self.rotary_base is not None:
            places_T = torch.arange(places.start, places.stop, device=seen_BS.device)
            turn = rotation(places_T, self.head_width, self.rotary_base)
        else:
            assert self.position is not None
            x_BTC = x_BTC + self.position.weight[places.start : places.stop]
        return self.dropout(x_BTC) if self.training else x_BTC, turn
