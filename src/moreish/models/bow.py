"""The causal bag of words: each position reads the average of the positions up to it (the GPT
lecture; makemore's BoW).

B batch, T positions, S positions seen (kept and new), K context, C width, V vocabulary.
"""

from typing import Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.base import Logits, Model, ModelConfig, State, Tokens, zero_linear


class BagOfWordsConfig(ModelConfig):
    name: Literal["bow"] = "bow"
    context: int = Field(8, ge=1, le=4096)
    """Number of tokens that are averaged."""
    width: int = Field(64, ge=1, le=65536)
    """Width of the embedding."""
    hidden: int = Field(256, ge=1, le=1 << 20)
    """Width of the tanh layer."""


def causal_average(x_BTC: Float[Tensor, "B T C"], context: int) -> Float[Tensor, "B T C"]:
    """Average each position with up to `context` - 1 before it.

    This is a product with a triangular matrix whose rows sum to one, or attention in which all
    affinities are zero or masked.
    """
    band_TT = x_BTC.new_ones(x_BTC.shape[1], x_BTC.shape[1]).tril().triu(1 - context)
    return (band_TT / band_TT.sum(dim=1, keepdim=True)) @ x_BTC


@final
class BagOfWords(Model):
    """The last token and the average of the last K, without their order, through a tanh layer."""

    Config = BagOfWordsConfig
    state_grows = True
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.01}

    def __init__(self, config: BagOfWordsConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, context=config.context, max_length=None, learning_rate=3e-3)
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.hidden = nn.Linear(2 * config.width, config.hidden)
        self.head = zero_linear(config.hidden, vocab_size)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="tanh")
        nn.init.zeros_(self.hidden.bias)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        seen_BS = tokens_BT if state is None else torch.cat([state, tokens_BT], dim=1)
        x_BSC = self.embedding(seen_BS)
        both_BSC = torch.cat([x_BSC, causal_average(x_BSC, self.context)], dim=-1)
        both_BTC = both_BSC[:, -tokens_BT.shape[1] :]
        kept_BS = seen_BS[:, max(0, seen_BS.shape[1] + 1 - self.context) :]
        return self.head(F.tanh(self.hidden(both_BTC))), kept_BS
