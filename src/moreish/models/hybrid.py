"""A network that learns what counting cannot explain.

In the line of Bengio et al. 2003 (section 4.2, mixtures with n-grams) and of Neubig and Dyer 2016
("Generalizing and Hybridizing Count-based and Neural Language Models").

B batch, T time, V vocabulary, U outputs of the network: V logits and a gate.
"""

from typing import Literal, final

from jaxtyping import Float, Int
from torch import Tensor

from moreish.data.tokens import Batch
from moreish.models.base import State
from moreish.models.mixture import NetworkWithCounts, WithCounts


class HybridConfig(WithCounts):
    NETWORK = "gpt"
    name: Literal["hybrid"] = "hybrid"


@final
class Hybrid(NetworkWithCounts):
    """logits = network + (1 + gate) · log p(counts), where the network gives the gate as well.

    A network's outputs begin near zero, so training begins at the loss of the counts. For the text
    that was counted they are asked as if each target had not been counted; otherwise the network
    would learn to trust what was learned by heart.
    """

    Config = HybridConfig

    EXTRA = 1  # the gate

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
