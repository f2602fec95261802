"""The neural bigram model (makemore, part 1): one row of logits for each previous token.

B batch, T positions, V vocabulary.
"""

from typing import Literal, final

from torch import nn

from moreish.models.base import Logits, Model, ModelConfig, State, Tokens


class BigramConfig(ModelConfig):
    name: Literal["bigram"] = "bigram"


@final
class Bigram(Model):
    """A table of V×V logits, equal to a linear layer on one-hot vectors.

    Its optimum is the log of the bigram frequencies. `train.squared_weights` pulls the table toward
    zero, that is, toward a uniform distribution, as adding to all counts does.
    """

    Config = BigramConfig
    fixed_window = True
    training_defaults = {
        "optimizer": "sgd",
        "batch_tokens": 8192,
        "decay": "linear",
        "clip": 0.0,
        "weight_decay": 0.0,
    }

    def __init__(self, config: BigramConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, context=1, max_length=None, learning_rate=50.0)
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        return self.table(tokens_BT), None
