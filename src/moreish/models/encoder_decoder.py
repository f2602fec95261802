"""The encoder-decoder Transformer of Vaswani et al. 2017, "Attention Is All You Need".

B batch, T new positions, S positions seen, I positions of inputs, D positions of targets, C model
width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from moreish.models.base import Logits, Model, State, Tokens
from moreish.models.encoder import Encoder, ExampleModelConfig, init_example_model, separate
from moreish.models.gpt import (
    Block,
    Cache,
    CacheView,
    CrossAttention,
    TransformerConfig,
    ensure_capacity,
    norm_layer,
    rope_table,
)


class EncoderDecoderConfig(ExampleModelConfig):
    name: Literal["encoder-decoder"] = "encoder-decoder"
    layers: int = Field(2, ge=1, le=1000)
    """Number of blocks of the decoder."""
    encoder_layers: int = Field(2, ge=1, le=1000)
    """Number of blocks of the encoder."""


class DecoderBlock(nn.Module):
    """A block of the GPT with attention to the encoder's output between its two parts."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm_place == "before"
        self.norm_cross = norm_layer(config)
        self.cross = CrossAttention(config)
        self.block = Block(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BDC: Float[Tensor, "B D C"],
        rope: Any,
        cache: Any,
        memory: tuple[Tensor, Tensor],
        is_input_B11I: Tensor,
    ) -> tuple[Float[Tensor, "B D C"], tuple[Tensor, Tensor]]:
        """Return the output, and the keys and values of self-attention."""
        y_BDC = self.cross(self.cross_input(x_BDC), memory, is_input_B11I)
        x_BDC = x_BDC + self.dropout(y_BDC)
        if not self.pre_norm:
            x_BDC = self.norm_cross(x_BDC)
        return self.block(x_BDC, rope, cache)

    def cross_input(self, x_BDC: Tensor) -> Tensor:
        return self.norm_cross(x_BDC) if self.pre_norm else x_BDC


class ExampleState(NamedTuple):
    """What was read of an example: its tokens and, once the separator of all rows of a batch was
    read at the same place, what the decoder needs to go on."""

    tokens_BS: Tensor
    memory: tuple[tuple[Tensor, Tensor], ...] | None = None
    """Keys and values of the encoder's output for every block of the decoder."""
    is_input_BI: Tensor | None = None
    cache: Cache | None = None


@final
class EncoderDecoder(Model):
    """An encoder reads the input, a decoder attends to all of it and writes the target.

    The decoder begins at the separator; logits before it are equal for all tokens. Embeddings are
    shared by encoder and decoder, and by the output layer too where they are tied.
    """

    Config = EncoderDecoderConfig
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.1}
    needs_examples = state_grows = True

    def __init__(self, config: EncoderDecoderConfig, vocab_size: int) -> None:
        super().__init__(
            vocab_size,
            context=config.context,
            max_length=config.context,
            learning_rate=0.64 / max(128, config.width),
        )
        learned = config.positions == "learned"
        self.encoder = Encoder(config, vocab_size, config.encoder_layers)
        self.embedding = self.encoder.embedding
        self.position = nn.Embedding(config.context, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.norm = norm_layer(config) if config.norm_place == "before" else nn.Identity()
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self.separator, self.head_width = vocab_size - 1, config.width // config.heads
        self.rotary_base = config.rotary_base if config.positions == "rotary" else None
        self.softcap = config.softcap
        init_example_model(self, config)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        if state is not None and state.cache is not None:
            return self._continue(tokens_BT, state)
        new = tokens_BT.shape[1]
        seen_BS = tokens_BT if state is None else torch.cat([state.tokens_BS, tokens_BT], dim=1)
        place_B, is_input_BS = separate(seen_BS, self.separator)
        length, first, last = seen_BS.shape[1], int(place_B.min()), int(place_B.max())
        if first == length:  # only inputs so far
            uniform_BTV = self.head.weight.new_zeros(*tokens_BT.shape, self.vocab_size)
            return uniform_BTV, ExampleState(seen_BS)
        inputs = max(1, min(last, length))
        is_input_BI = is_input_BS[:, :inputs]
        memory_BIC = self.encoder(seen_BS[:, :inputs], is_input_BI)
        memory = tuple(block.cross.keys_values(memory_BIC) for block in self.blocks)  # type: ignore[union-attr,operator]
        # Targets of all rows, each from its separator on.
        index_BD = place_B[:, None] + torch.arange(length - first, device=seen_BS.device)
        target_BD = seen_BS.gather(1, index_BD.clamp(max=length - 1))
        logits_BDV, keys_values = self._decode(target_BD, 0, None, memory, is_input_BI)
        offset_BT = torch.arange(length - new, length, device=seen_BS.device) - place_B[:, None]
        chosen_BT1 = offset_BT.clamp(0, length - first - 1)[..., None]
        logits_BTV = logits_BDV.gather(1, chosen_BT1.expand(-1, -1, self.vocab_size))
        logits_BTV = logits_BTV * (offset_BT >= 0)[..., None]
        if first < last:  # targets begin at different places: they are read again next time
            return logits_BTV, ExampleState(seen_BS)
        return logits_BTV, ExampleState(seen_BS, memory, is_input_BI, Cache.of(keys_values))

    def _continue(self, tokens_BT: Tokens, state: ExampleState) -> tuple[Logits, State]:
        """Read more tokens of targets."""
        tokens_BS, memory, is_input_BI, cache = state
        assert memory is not None and is_input_BI is not None and cache is not None
        new = tokens_BT.shape[1]
        cache = ensure_capacity(
            cache, new, context=self.context, limit=2 * self.context, rotary_base=self.rotary_base
        )
        first = cache.end
        views, cache = cache.extend(new, self.context)
        logits_BTV, _ = self._decode(tokens_BT, first, views, memory, is_input_BI)
        seen_BS = torch.cat([tokens_BS, tokens_BT], dim=1)
        return logits_BTV, ExampleState(seen_BS, memory, is_input_BI, cache)

    def _decode(
        self,
        tokens_BD: Int[Tensor, "B D"],
        first: int,
        views: Sequence[CacheView] | None,
        memory: tuple[tuple[Tensor, Tensor], ...],
        is_input_BI: Tensor,
    ) -> tuple[Float[Tensor, "B D V"], list[tuple[Tensor, Tensor]]]:
        """Run the decoder on tokens from a position of the target on."""
        x_BDC, rope = self._embed(tokens_BD, first)
        keys_values = []
        for layer, (block, layer_memory) in enumerate(zip(self.blocks, memory, strict=True)):
            view = None if views is None else views[layer]
            x_BDC, new = block(x_BDC, rope, view, layer_memory, is_input_BI[:, None, None])
            keys_values.append(new)
        logits_BDV = self.head(self.norm(x_BDC))
        if self.softcap:
            logits_BDV = self.softcap * (logits_BDV / self.softcap).tanh()
        return logits_BDV, keys_values

    def _embed(self, tokens_BD: Tensor, first: int) -> tuple[Tensor, Any]:
        last = first + tokens_BD.shape[1]
        position_1D = torch.arange(first, last, device=tokens_BD.device)[None]
        x_BDC, rope = self.embedding(tokens_BD), None
        if self.position is not None:
            x_BDC = x_BDC + self.position(position_1D.clamp(max=self.context - 1))
        if self.rotary_base is not None:
            rope = rope_table(position_1D[:, None], self.head_width, self.rotary_base)
        return self.dropout(x_BDC), rope

    def cross_attention(self, tokens_1S: Int[Tensor, "1 S"]) -> list[Float[Tensor, "H D I"]]:
        """Return, for every block of the decoder, which positions of the input each position of the
        target attends to. The tokens are those of one example."""
        place = int(separate(tokens_1S, self.separator)[0])
        inputs_1I, targets_1D = tokens_1S[:, : max(1, place)], tokens_1S[:, place:]
        is_input_1I = torch.ones_like(inputs_1I, dtype=torch.bool)
        memory_1IC = self.encoder(inputs_1I, is_input_1I)
        x_1DC, rope = self._embed(targets_1D, 0)
        maps = []
        for block in self.blocks:
            assert isinstance(block, DecoderBlock)
            memory, mask = block.cross.keys_values(memory_1IC), is_input_1I[:, None, None]
            weights = block.cross.attention_weights(block.cross_input(x_1DC), memory, mask)
            maps.append(weights[0])
            x_1DC, _ = block(x_1DC, rope, None, memory, mask)
        return maps
