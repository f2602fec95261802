"""An encoder: a Transformer whose positions all see each other, and a classifier on top of it.

B batch, T new positions, S positions of the input, C model width, V vocabulary.
"""

from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from moreish.models.base import Logits, Model, State, Tokens
from moreish.models.gpt import (
    Block,
    NgramEmbedding,
    TransformerConfig,
    init_weights,
    norm_layer,
    rope_table,
)

Pooling = Literal["first", "last", "mean", "max"]


class ExampleModelConfig(TransformerConfig):
    """Settings of a Transformer that reads the inputs of examples at once."""

    positions: Literal["learned", "rotary", "none"] = "rotary"
    """Position information: learned embeddings, rotary embedding (RoPE), or none at all."""
    outputs: int | None = Field(None, ge=1, le=1 << 24)
    """Number of tokens that can be predicted, the first ones of the vocabulary; by default all, or
    the labels where targets are labels."""


class Encoder(nn.Module):
    """Embeddings and blocks of bidirectional attention."""

    def __init__(self, config: TransformerConfig, vocab_size: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        learned = config.positions == "learned"
        self.position = nn.Embedding(config.context, config.width) if learned else None
        self.ngram_embeddings = nn.ModuleList(
            NgramEmbedding(length, vocab_size, config)
            for length in range(2, config.ngram_embedding + 1)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(layers))
        self.norm = norm_layer(config) if config.norm_place == "before" else nn.Identity()
        self.head_width = config.width // config.heads
        self.rotary_base = config.rotary_base if config.positions == "rotary" else None

    def forward(
        self, tokens_BS: Int[Tensor, "B S"], is_input_BS: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B S C"]:
        """Return the output for each position; those that are not of the input have no meaning."""
        x_BSC = self.embedding(tokens_BS)
        for ngram_embedding in self.ngram_embeddings:
            x_BSC = x_BSC + ngram_embedding(tokens_BS, tokens_BS.shape[1])
        position_1S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)[None]
        if self.position is not None:
            x_BSC = x_BSC + self.position(position_1S)
        rope = None
        if self.rotary_base is not None:
            rope = rope_table(position_1S[:, None], self.head_width, self.rotary_base)
        x_BSC = self.dropout(x_BSC)
        for block in self.blocks:
            x_BSC, _ = block(x_BSC, rope, None, is_input_BS[:, None, None])
        return self.norm(x_BSC)


def separate(
    tokens_BS: Int[Tensor, "B S"], separator: int
) -> tuple[Int[Tensor, " B"], Bool[Tensor, "B S"]]:
    """Return the position of each row's separator, or the length where there is none, and which
    positions are before it. The first position counts as input in any case, so that there is
    something to attend to."""
    is_separator_BS = tokens_BS == separator
    length = tokens_BS.shape[1]
    place_B = torch.where(is_separator_BS.any(1), is_separator_BS.int().argmax(1), length)
    position_S = torch.arange(length, device=tokens_BS.device)
    return place_B, position_S < place_B[:, None].clamp(min=1)


class EncoderConfig(ExampleModelConfig):
    name: Literal["encoder"] = "encoder"
    layers: int = Field(4, ge=0, le=1000)
    """Number of blocks; 0: embeddings and pooling alone, which with `ngram_embedding` is fastText
    (Joulin et al. 2017)."""
    pooling: Pooling = "mean"
    """How the positions of the input become one vector: the first or the last of them, their mean,
    or their maximum."""

    @field_validator("tied")
    @classmethod
    def _check_tied(cls, value: bool) -> bool:
        if value:
            raise ValueError("the labels that it predicts have no embeddings to share")
        return value


@final
class EncoderClassifier(Model):
    """An encoder (Devlin et al. 2019, without its pretraining), pooling and a linear layer, for
    examples whose targets are labels.

    It predicts at the separator; its logits elsewhere are equal for all tokens.
    """

    Config = EncoderConfig
    needs_examples = needs_labels = state_grows = True
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.1}

    def __init__(self, config: EncoderConfig, vocab_size: int) -> None:
        super().__init__(
            vocab_size,
            context=config.context,
            max_length=config.context,
            learning_rate=0.64 / max(128, config.width),
        )
        self.encoder = Encoder(config, vocab_size, config.layers)
        self.head = nn.Linear(config.width, config.outputs or vocab_size, bias=False)
        self.pooling, self.separator = config.pooling, vocab_size - 1
        init_example_model(self, config)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        new = tokens_BT.shape[1]
        seen_BS = tokens_BT if state is None else torch.cat([state, tokens_BT], dim=1)
        place_B, is_input_BS = separate(seen_BS, self.separator)
        logits_BTV = self.head.weight.new_zeros(len(seen_BS), new, self.head.out_features)
        offset_B = place_B - (seen_BS.shape[1] - new)
        row_R = ((offset_B >= 0) & (offset_B < new)).nonzero()[:, 0]
        if len(row_R):
            length = max(1, int(place_B[row_R].max()))
            is_input_RS = is_input_BS[row_R, :length]
            x_RSC = self.encoder(seen_BS[row_R, :length], is_input_RS)
            logits_RV = self.head(self._pool(x_RSC, is_input_RS))
            logits_BTV = logits_BTV.index_put((row_R, offset_B[row_R]), logits_RV)
        return logits_BTV, seen_BS

    def _pool(
        self, x_BSC: Float[Tensor, "B S C"], is_input_BS: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B C"]:
        is_input_BS1 = is_input_BS[..., None]
        match self.pooling:
            case "first":
                return x_BSC[:, 0]
            case "last":
                row_B = torch.arange(len(x_BSC), device=x_BSC.device)
                return x_BSC[row_B, is_input_BS.sum(1) - 1]
            case "max":
                return x_BSC.masked_fill(~is_input_BS1, -torch.inf).amax(1)
            case "mean":
                return (x_BSC * is_input_BS1).sum(1) / is_input_BS1.sum(1)


def init_example_model(model: nn.Module, config: TransformerConfig) -> None:
    """Initialize like a GPT: every layer keeps the scale of its input, and the first prediction is
    uniform; see `moreish.models.gpt.init_weights`."""
    init_weights(model, config)
    for name, parameter in model.named_parameters():
        if name.endswith(("embedding.weight", "position.weight")) and config.init == "scaled":
            nn.init.normal_(parameter)
        elif ".ngram_embeddings." in f".{name}" and config.init == "scaled":
            nn.init.zeros_(parameter)
