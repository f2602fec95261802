"""The neural bigram (makemore, part 1): one row of logits for each previous token.

B batch, T time, V vocabulary.
"""

from typing import Literal, final

from jaxtyping import Float, Int
from torch import Tensor, nn

from moreish.models.base import Model, ModelConfig, State


class BigramConfig(ModelConfig):
    name: Literal["bigram"] = "bigram"


@final
class Bigram(Model):
    """A table of V×V logits: what a linear layer does to a one-hot vector, without the product.

    Its optimum is the logarithm of the bigram counts' frequencies. `train.squared_weights`
    pulls the table towards zero, that is towards uniform, as adding to all counts does.
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

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        return self.table(tokens_BT), None
