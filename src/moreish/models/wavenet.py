"""Dilated causal convolutions (van den Oord et al. 2016, "WaveNet"; makemore, part 5).

B batch, T positions, S positions seen (kept and new), K context, C width, V vocabulary.
"""

from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.base import Logits, Model, ModelConfig, State, Tokens, zero_linear
from moreish.tokenizers import BOUNDARY_ID


class WaveNetConfig(ModelConfig):
    name: Literal["wavenet"] = "wavenet"
    layers: int = Field(4, ge=1, le=20)
    """Number of layers; each doubles the context, which is 2^layers tokens."""
    width: int = Field(64, ge=1, le=65536)
    """Width of the embedding and of every layer."""


class Convolution(nn.Module):
    """A gated convolution of two taps, `dilation` apart, with a residual path (section 2.3)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BSC: Float[Tensor, "B S C"]) -> Float[Tensor, "B R C"]:
        """Return `dilation` fewer positions: the first ones have no past."""
        old_BRC, new_BRC = x_BSC[:, : -self.dilation], x_BSC[:, self.dilation :]
        filter_BRC, gate_BRC = self.taps(torch.cat([old_BRC, new_BRC], -1)).chunk(2, dim=-1)
        return new_BRC + self.out(F.tanh(filter_BRC) * F.sigmoid(gate_BRC))


@final
class WaveNet(Model):
    """A stack of convolutions with doubling dilations and a receptive field of K = 2^layers tokens.

    The start is padded with boundaries (running text: token 0). The state holds each layer's past
    inputs, so that nothing is computed twice (Le Paine et al. 2016).
    """

    Config = WaveNetConfig
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.01}

    def __init__(self, config: WaveNetConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, context=2**config.layers, max_length=None, learning_rate=3e-3)
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(
            Convolution(config.width, 2**layer) for layer in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = zero_linear(config.width, vocab_size)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        if state is None:
            before_BS = tokens_BT.new_full((len(tokens_BT), self.context - 1), BOUNDARY_ID)
            tokens_BT = torch.cat([before_BS, tokens_BT], dim=1)
        x_BSC = self.embedding(tokens_BT)
        pasts = []
        for i, layer in enumerate(self.layers):
            if state is not None:
                x_BSC = torch.cat([state[i], x_BSC], dim=1)
            pasts.append(x_BSC[:, -(2**i) :])
            x_BSC = layer(x_BSC)
        return self.head(self.norm(x_BSC)), pasts
