"""The model of the GPT lecture, which grows from one attention head to a Transformer.

Karpathy 2023, "Let's build GPT: from scratch, in code, spelled out". Read it from top to bottom:
attention, feed-forward, block, model. The setting `stage` selects how much of it is used.
All weights keep PyTorch's default initialization, as in the lecture, so that a new model predicts
somewhat worse than a uniform guess.

B batch, T time (positions), C width, D head width, H heads, V vocabulary.
"""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from moreish.models.base import Logits, Model, ModelConfig, State, Tokens

Stage = Literal["unscaled-head", "head", "heads", "feed-forward", "residual", "norm"]


class LectureGPTConfig(ModelConfig):
    name: Literal["lecture-gpt"] = "lecture-gpt"
    stage: Stage = "norm"
    """How far the model has grown. Each stage keeps what earlier ones add: one attention head,
    scaled affinities, several heads, a feed-forward, residual connections (with a projection after
    the heads and a feed-forward that is four times as wide inside), and layer norm."""
    layers: int | None = Field(None, ge=1, le=1000)
    """Number of blocks (default: 3 from the stage "residual" on, as in the lecture; before it 1,
    since a deeper stack without residual connections barely trains)."""
    heads: int = Field(4, ge=1, le=1000)
    """Number of attention heads from the stage "heads" on; before it there is one."""
    width: int = Field(32, ge=1, le=1 << 20)
    """Model width: the size of embeddings and of the residual stream."""
    context: int = Field(8, ge=1, le=1 << 24)
    """Number of positions that the model can see."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "LectureGPTConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self

    def includes(self, stage: Stage) -> bool:
        """Return whether the model has what `stage` adds."""
        stages = get_args(Stage)
        return stages.index(self.stage) >= stages.index(stage)

    def for_data(self, longest_item: int | None, vocab_size: int) -> ModelConfig:
        """For items, use a context that holds the longest (at most 64), unless it is set."""
        if longest_item is None:
            return self
        return self.with_defaults(context=min(64, longest_item + 1))


class LectureAttention(nn.Module):
    """Causal self-attention with one head or several, each of an equal share of the width (Vaswani
    et al. 2017, sections 3.2.1 and 3.2.2).

    The lecture writes one module per head. Here one linear layer computes the queries of all heads,
    another the keys, another the values: the same function with the same initialization, in less
    than half the time.
    """

    future_TT: Tensor

    def __init__(self, config: LectureGPTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads if config.includes("heads") else 1
        self.key = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        # The dot product of D numbers of unit variance has variance D. Without the scale, softmax
        # would start close to one-hot.
        self.scale = (width // self.heads) ** -0.5 if config.includes("head") else 1.0
        self.projection = nn.Linear(width, width) if config.includes("residual") else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        future_TT = torch.ones(config.context, config.context, dtype=torch.bool).triu(1)
        self.register_buffer("future_TT", future_TT, persistent=False)

    def weights(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T T"]:
        """Return how much each position attends to each earlier one; rows sum to 1."""
        q_BHTD, k_BHTD = self._split_heads(self.query(x_BTC)), self._split_heads(self.key(x_BTC))
        affinity_BHTT = q_BHTD @ k_BHTD.mT * self.scale
        future_TT = self.future_TT[: x_BTC.shape[1], : x_BTC.shape[1]]
        return affinity_BHTT.masked_fill(future_TT, -torch.inf).softmax(dim=-1)

    def forward(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        v_BHTD = self._split_heads(self.value(x_BTC))
        y_BHTD = self.dropout(self.weights(x_BTC)) @ v_BHTD
        return self.dropout(self.projection(y_BHTD.transpose(1, 2).flatten(2)))

    def _split_heads(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T D"]:
        return x_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def feed_forward(config: LectureGPTConfig) -> nn.Module:
    """Return a perceptron that is applied to each position separately (section 3.3).

    It ends in a linear layer where it adds to a residual stream, since ReLU alone only adds.
    """
    width = config.width
    if not config.includes("feed-forward"):
        return nn.Identity()
    if not config.includes("residual"):
        return nn.Sequential(nn.Linear(width, width), nn.ReLU())
    up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    return nn.Sequential(up, nn.ReLU(), down, nn.Dropout(config.dropout))


def layer_norm(config: LectureGPTConfig) -> nn.Module:
    """Return a layer norm (Ba et al. 2016), which is applied before each part, as in GPT-2."""
    return nn.LayerNorm(config.width) if config.includes("norm") else nn.Identity()


class LectureBlock(nn.Module):
    """Attention lets positions communicate; the feed-forward network is then applied to each
    separately."""

    def __init__(self, config: LectureGPTConfig) -> None:
        super().__init__()
        self.residual = config.includes("residual")
        self.attention_norm = layer_norm(config)
        self.attention = LectureAttention(config)
        self.feed_forward_norm = layer_norm(config)
        self.feed_forward = feed_forward(config)

    def forward(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        if not self.residual:
            return self.feed_forward(self.attention(x_BTC))
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC))
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


@final
class LectureGPT(Model):
    """Token and position embeddings, blocks, a final norm, and a linear layer to the logits.

    The state is the last tokens, which are read again with each new one; beyond the context the
    oldest are cropped, as in the lecture.
    """

    Config = LectureGPTConfig
    state_grows = True
    # The lecture's recipe: 32 windows a step, AdamW with PyTorch's defaults, a constant learning
    # rate, no early stopping.
    training_defaults = {
        "batch_size": 32,
        "decay": "constant",
        "warmup": 0.0,
        "beta2": 0.999,
        "weight_decay": 0.01,
        "clip": 0.0,
        "patience": 0,
    }

    def __init__(self, config: LectureGPTConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, context=config.context, max_length=config.context)
        layers = config.layers or (3 if config.includes("residual") else 1)
        self.token_embedding_table = nn.Embedding(vocab_size, config.width)
        self.position_embedding_table = nn.Embedding(config.context, config.width)
        self.blocks = nn.Sequential(*(LectureBlock(config) for _ in range(layers)))
        self.final_norm = layer_norm(config)
        self.lm_head = nn.Linear(config.width, vocab_size)

    @property
    def slides(self) -> bool:
        return False

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        new = tokens_BT.shape[1]
        if new > self.context:
            raise ValueError(f"{new} tokens at once, but the context holds {self.context}")
        if state is not None:
            tokens_BT = torch.cat([state, tokens_BT], dim=1)[:, -self.context :]
        x_BTC = self.blocks(self._embed(tokens_BT))
        return self.lm_head(self.final_norm(x_BTC))[:, -new:], tokens_BT

    def _embed(self, tokens_BT: Tokens) -> Float[Tensor, "B T C"]:
        position_TC = self.position_embedding_table.weight[: tokens_BT.shape[1]]
        return self.token_embedding_table(tokens_BT) + position_TC

    def attention_maps(self, tokens_BT: Tokens) -> list[Float[Tensor, "B H T T"]]:
        """Return the attention weights of each block."""
        x_BTC, maps = self._embed(tokens_BT), []
        for block in self.blocks:
            assert isinstance(block, LectureBlock)
            maps.append(block.attention.weights(block.attention_norm(x_BTC)))
            x_BTC = block(x_BTC)
        return maps
