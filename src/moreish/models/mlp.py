"""The multi-layer perceptron of Bengio et al. 2003, "A Neural Probabilistic Language Model".

B batch, T positions, K context, D embedding width, I inputs of the tanh layer (K·D), V vocabulary.
"""

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.base import Logits, Model, ModelConfig, State, Tokens, zero_linear


class MLPConfig(ModelConfig):
    name: Literal["mlp"] = "mlp"
    context: int = Field(8, ge=1, le=4096)
    """Number of tokens that the network reads."""
    embedding: int = Field(32, ge=1, le=65536)
    """Width of the embedding."""
    hidden: int = Field(512, ge=1, le=1 << 20)
    """Width of the tanh layer."""
    direct: bool = False
    """Whether embeddings are also connected linearly to the output (the paper's W)."""
    shared: bool = True
    """Whether all positions share one embedding (the paper's C)."""


@final
class MLP(Model):
    """The last K tokens, embedded and concatenated, through a tanh layer.

    The start is padded with boundaries, as in makemore part 2 (`...` before `emma`); running text,
    which has none, is padded with token 0, most often the line end.
    """

    Config = MLPConfig
    fixed_window = True
    table_K: Tensor
    training_defaults = {"batch_tokens": 1024, "weight_decay": 0.01}

    def __init__(self, config: MLPConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, context=config.context, max_length=None, learning_rate=2e-3)
        tables = 1 if config.shared else config.context
        self.embedding = nn.Embedding(tables * vocab_size, config.embedding)
        place_K = torch.arange(config.context) * (0 if config.shared else vocab_size)
        self.register_buffer("table_K", place_K, persistent=False)
        inputs = config.context * config.embedding
        self.hidden = nn.Linear(inputs, config.hidden)
        self.head = zero_linear(config.hidden, vocab_size)
        # A gain of 5/3 keeps unit variance through tanh (He et al. 2015; makemore part 3).
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="tanh")
        nn.init.zeros_(self.hidden.bias)
        self.direct: nn.Linear | None = None
        if config.direct:
            self.direct = zero_linear(inputs, vocab_size, bias=False)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        window_BTK, state = self.windows(tokens_BT, state)
        window_BTI = self.embedding(window_BTK + self.table_K).flatten(2)
        logits_BTV = self.head(F.tanh(self.hidden(window_BTI)))
        if self.direct is not None:
            logits_BTV = logits_BTV + self.direct(window_BTI)
        return logits_BTV, state
