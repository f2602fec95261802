"""The causal bag of words: each position sees the average of what came before (the GPT lecture;
makemore's BoW).

B batch, T positions, S positions seen (kept and new), K context, C width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.base import Model, ModelConfig, State


class BagOfWordsConfig(ModelConfig):
    name: Literal["bow"] = "bow"
    context: int = Field(8, ge=1, le=4096)
    """Number of tokens that are averaged."""
    width: int = Field(64, ge=1, le=65536)
    """Width of the embedding."""
    hidden: int = Field(256, ge=1, le=1 << 20)
    """Width of the tanh layer."""


def average_by_loop(x_BTC: Float[Tensor, "B T C"], context: int) -> Float[Tensor, "B T C"]:
    """Average each position with up to `context` - 1 before it, one position at a time."""
    means = [x_BTC[:, max(0, t + 1 - context) : t + 1].mean(dim=1) for t in range(x_BTC.shape[1])]
    return torch.stack(means, dim=1)


def average_by_product(x_BTC: Float[Tensor, "B T C"], context: int) -> Float[Tensor, "B T C"]:
    """Compute the same by a product with a triangular matrix whose rows sum to one."""
    band_TT = x_BTC.new_ones(x_BTC.shape[1], x_BTC.shape[1]).tril().triu(1 - context)
    return (band_TT / band_TT.sum(dim=1, keepdim=True)) @ x_BTC


def average_by_softmax(x_BTC: Float[Tensor, "B T C"], context: int) -> Float[Tensor, "B T C"]:
    """Compute the same by attention in which all affinities are zero or masked."""
    band_TT = x_BTC.new_ones(x_BTC.shape[1], x_BTC.shape[1]).tril().triu(1 - context)
    affinity_TT = torch.zeros_like(band_TT).masked_fill(band_TT == 0, -torch.inf)
    return affinity_TT.softmax(dim=-1) @ x_BTC


@final
class BagOfWords(Model):
    """The last token and the average of the last K, without their order, through a tanh layer."""

    Config = BagOfWordsConfig
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.01}

    def __init__(self, config: BagOfWordsConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, context=config.context, max_length=None, learning_rate=3e-3)
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.hidden = nn.Linear(2 * config.width, config.hidden)
        self.head = nn.Linear(config.hidden, vocab_size)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="tanh")
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        both_BTC, state = self._read(tokens_BT, state)
        return self.head(F.tanh(self.hidden(both_BTC))), state

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        """Texts are averaged one by one, since at first they have different lengths."""
        read = [self._read(token_R[r : r + 1, None], state) for r, state in enumerate(states)]
        both_RC = torch.cat([both_B1C[:, 0] for both_B1C, _ in read])
        return self.head(F.tanh(self.hidden(both_RC))), [state for _, state in read]

    def _read(self, tokens_BT: Tensor, state: State) -> tuple[Float[Tensor, "B T C"], State]:
        """Return the new tokens' embeddings and averages, and the tokens that later ones need."""
        seen_BS = tokens_BT if state is None else torch.cat([state, tokens_BT], dim=1)
        x_BSC = self.embedding(seen_BS)
        both_BSC = torch.cat([x_BSC, average_by_product(x_BSC, self.context)], dim=-1)
        kept_BS = seen_BS[:, max(0, seen_BS.shape[1] + 1 - self.context) :]
        return both_BSC[:, -tokens_BT.shape[1] :], kept_BS
