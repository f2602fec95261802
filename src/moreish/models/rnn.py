"""Recurrent networks: RNN, LSTM and GRU.

B batch, T positions, C width, V vocabulary, G gates.
"""

import math
from abc import abstractmethod
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.base import Logits, Model, ModelConfig, State, Tokens, zero_linear


class RecurrentConfig(ModelConfig):
    width: int = Field(128, ge=1, le=65536)
    """Width of the embedding and of the hidden vector."""
    context: int = Field(64, ge=1, le=1 << 20)
    """Number of tokens after which the gradient is truncated, and training and evaluation start
    from an empty state. Sampling keeps its state without limit."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate of the layer's input and output, not of its state (Zaremba et al. 2014)."""

    def for_data(self, longest_item: int | None, vocab_size: int) -> ModelConfig:
        """For items, use a context that just holds the longest, unless it is set."""
        return self if longest_item is None else self.with_defaults(context=longest_item + 1)


class RNNConfig(RecurrentConfig):
    name: Literal["rnn"] = "rnn"


class LSTMConfig(RecurrentConfig):
    name: Literal["lstm"] = "lstm"


class GRUConfig(RecurrentConfig):
    name: Literal["gru"] = "gru"


class Recurrent(Model):
    """An embedding, one recurrent layer and a linear layer. The state has a fixed size, so the cost
    of a sampled token does not depend on the length of the text."""

    gates: ClassVar[int]
    num_states: ClassVar[int] = 1
    """Number of vectors in the state."""
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.01}

    def __init__(self, config: RecurrentConfig, vocab_size: int) -> None:
        super().__init__(
            vocab_size, context=config.context, max_length=config.context, learning_rate=8e-3
        )
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.input = nn.Linear(config.width, self.gates * config.width)
        self.recurrent = nn.Linear(config.width, self.gates * config.width)
        self.head = zero_linear(config.width, vocab_size)
        self.dropout = nn.Dropout(config.dropout)
        for gate in self.recurrent.weight.chunk(self.gates):
            # An orthogonal matrix preserves the norm of the state (Saxe et al. 2014).
            nn.init.orthogonal_(gate)
        nn.init.normal_(self.input.weight, std=1 / math.sqrt(config.width))
        for bias in (self.input.bias, self.recurrent.bias):
            nn.init.zeros_(bias)

    @abstractmethod
    def step(self, input_BG: Float[Tensor, "B G"], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the state after one token, the hidden vector first, given the token's contribution
        to each gate."""

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        x_BTC = self.dropout(self.embedding(tokens_BT))
        input_BTG = self.input(x_BTC)  # all positions at once: only the rest is sequential
        if state is None:
            state = (torch.zeros_like(x_BTC[:, 0]),) * self.num_states
        hidden = []
        for input_BG in input_BTG.unbind(dim=1):
            state = self.step(input_BG, state)
            hidden.append(state[0])
        return self.head(self.dropout(torch.stack(hidden, dim=1))), state


@final
class RNN(Recurrent):
    """h' = tanh(W x + U h) (Elman 1990; as a language model Mikolov et al. 2010)."""

    Config = RNNConfig
    gates = 1

    def step(self, input_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (F.tanh(input_BG + self.recurrent(state[0])),)


@final
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000)."""

    Config = LSTMConfig
    gates = 4
    num_states = 2

    def __init__(self, config: LSTMConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        with torch.no_grad():  # forget gates start open (Jozefowicz et al. 2015)
            self.input.bias[config.width : 2 * config.width] = 1.0

    def step(self, input_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BC, cell_BC = state
        enter, forget, new, leave = (input_BG + self.recurrent(hidden_BC)).chunk(4, dim=-1)
        cell_BC = forget.sigmoid() * cell_BC + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell_BC.tanh(), cell_BC


@final
class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), its reset after the product, as in cuDNN."""

    Config = GRUConfig
    gates = 3

    def step(self, input_BG: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        input_reset, input_keep, input_new = input_BG.chunk(3, dim=-1)
        past_reset, past_keep, past_new = self.recurrent(state[0]).chunk(3, dim=-1)
        reset_BC = (input_reset + past_reset).sigmoid()
        new_BC = (input_new + reset_BC * past_new).tanh()
        return (torch.lerp(new_BC, state[0], (input_keep + past_keep).sigmoid()),)
