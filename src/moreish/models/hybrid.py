"""A network that learns what counting cannot explain.

In the line of Bengio et al. 2003 (section 4.2, mixtures with n-grams) and of Neubig and Dyer 2016
("Generalizing and Hybridizing Count-based and Neural Language Models").

B batch, T time, V vocabulary, U outputs of the network: V logits and a gate.
"""

from collections.abc import Mapping
from typing import Any, Literal, final

from jaxtyping import Float, Int
from torch import Tensor

from moreish.data.tokens import Batch
from moreish.models.base import Model, ModelConfig, State
from moreish.models.kneser_ney import KneserNey
from moreish.models.mixture import WithCounts


class HybridConfig(WithCounts):
    NETWORK = "gpt"
    name: Literal["hybrid"] = "hybrid"


@final
class Hybrid(Model):
    """logits = network + (1 + gate) · log p(counts), where the network gives the gate as well.

    A network's outputs begin near zero, so training begins at the loss of the counts. For the text
    that was counted they are asked as if each target had not been counted; otherwise the network
    would learn to trust what was learned by heart.
    """

    Config = HybridConfig

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """Those of its network."""
        from moreish.models import model_class

        assert isinstance(config, HybridConfig)
        return model_class(config.network.name).defaults_for(config.network)

    def __init__(self, config: HybridConfig, vocab_size: int) -> None:
        from moreish.models import build_model

        network = build_model(config.network, vocab_size + 1)  # the gate is one output more
        counts = KneserNey(config.counts, vocab_size)
        super().__init__(
            vocab_size,
            context=max(network.context, counts.context),
            max_length=network.max_length,
            learning_rate=network.learning_rate,
        )
        self.network, self.counts = network, counts

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        network_state, counts_state = (None, None) if state is None else state
        outputs_BTU, network_state = self.network(tokens_BT, network_state)
        counts_BTV, counts_state = self.counts(tokens_BT, counts_state)
        return _gated(outputs_BTU, counts_BTV), (network_state, counts_state)

    def training_logits(self, batch: Batch) -> Float[Tensor, "B T V"]:
        outputs_BTU, _ = self.network(batch.tokens_BT)
        return _gated(outputs_BTU, self.counts.without_itself(batch.tokens_BT, batch.targets_BT))


def _gated(
    outputs_BTU: Float[Tensor, "B T U"], counts_BTV: Float[Tensor, "B T V"]
) -> Float[Tensor, "B T V"]:
    return outputs_BTU[..., :-1] + (1 + outputs_BTU[..., -1:]) * counts_BTV
