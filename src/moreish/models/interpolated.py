"""A network and counts, averaged (Bengio et al. 2003, section 4.2: "interpolated" models).

B batch, R rows of it, T positions, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import SerializeAsAny, field_validator, model_validator
from torch import Tensor

from moreish.data import Batch, TokenDataset
from moreish.errors import MoreishError
from moreish.models.base import CountBasedModel, Logits, Model, ModelConfig, State, Tokens
from moreish.models.ngram import KneserNey, KneserNeyConfig
from moreish.models.registry import build_model, model_class, model_config


class NetworkWithCountsConfig(ModelConfig):
    """Settings of a network and counts together."""

    NETWORK: ClassVar[str]
    """The default of `network.name`."""
    network: SerializeAsAny[ModelConfig]
    """Settings of the model that is trained by gradients, `name` included."""
    counts: KneserNeyConfig = KneserNeyConfig()
    """Settings of the n-gram counts, such as `counts.order`."""

    @model_validator(mode="before")
    @classmethod
    def _pass_on_to_network(cls, values: Any) -> Any:
        """Accept `model.width`, and so `--context`, as short for `model.network.width`."""
        if not isinstance(values, Mapping) or isinstance(values.get("network"), ModelConfig):
            return values
        own = {key: value for key, value in values.items() if key in cls.model_fields}
        rest = {key: value for key, value in values.items() if key not in own}
        network = own.get("network", {})
        if not isinstance(network, Mapping):
            raise MoreishError(f"setting model.network={network}: it is a group of settings")
        return {**own, "network": {"name": cls.NETWORK, **network, **rest}}

    @field_validator("network", mode="before")
    @classmethod
    def _parse_network(cls, value: Any) -> ModelConfig:
        config = value if isinstance(value, ModelConfig) else model_config(value)
        if issubclass(model_class(config.name), CountBasedModel | NetworkWithCounts):
            raise ValueError(
                f"this needs a network that is trained by gradients, not {config.name}"
            )
        return config

    def for_data(self, longest_item: int | None, vocab_size: int) -> ModelConfig:
        network = self.network.for_data(longest_item, vocab_size)
        counts = self.counts.for_data(longest_item, vocab_size)
        return self.model_copy(update={"network": network, "counts": counts})


class MixtureConfig(NetworkWithCountsConfig):
    NETWORK = "mlp"
    name: Literal["mixture"] = "mixture"


class NetworkWithCounts(Model):
    """The base of mixtures and hybrids: a network, and counts that are fitted before training."""

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """Return those of the network."""
        assert isinstance(config, NetworkWithCountsConfig)
        return model_class(config.network.name).defaults_for(config.network)

    def __init__(
        self, config: NetworkWithCountsConfig, vocab_size: int, *, gates: int = 0, features: int = 0
    ) -> None:
        """
        Args:
            gates: number of outputs of the network beside the logits.
            features: number of auxiliary features, for a network that takes them.
        """
        takes_features = features and model_class(config.network.name).takes_features
        more = {"num_features": features} if takes_features else {}
        network = build_model(config.network, vocab_size + gates, **more)
        counts = KneserNey(config.counts, vocab_size)
        super().__init__(
            vocab_size,
            context=max(network.context, counts.context),
            max_length=network.max_length,
            learning_rate=network.learning_rate,
        )
        self.network, self.counts = network, counts

    @property
    def slides(self) -> bool:
        return self.network.slides

    def fit_counts(self, tokens: TokenDataset) -> None:
        self.counts.fit_counts(tokens)


@final
class Mixture(NetworkWithCounts):
    """p = w · p(network) + (1 - w) · p(counts), with w fitted on validation data after training.

    The network is trained alone: its gradients do not depend on the counts.
    """

    Config = MixtureConfig
    weight: Tensor

    def __init__(self, config: MixtureConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.register_buffer("weight", torch.tensor(0.5))

    def training_logits(self, batch: Batch) -> Logits:
        return self.network.training_logits(batch)

    def fit_weight(
        self, network_losses: NDArray[np.float32], counts_losses: NDArray[np.float32]
    ) -> None:
        """Set the weight with the lowest mean loss, given both parts' losses of each token, by
        expectation maximization, which has one optimum here (Jelinek and Mercer 1980)."""
        network, counts = (np.exp(-x.astype(float)) for x in (network_losses, counts_losses))
        weight = 0.5
        for _ in range(200):
            share = weight * network
            weight = float(np.mean(share / (share + (1 - weight) * counts)))
        self.weight.fill_(weight)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        network_state, counts_state = state or (None, None)
        logits_BTV, network_state = self.network(tokens_BT, network_state)
        counts_BTV, counts_state = self.counts(tokens_BT, counts_state)
        return self.interpolate(logits_BTV, counts_BTV), (network_state, counts_state)

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        network_states, counts_states = map(list, zip(*states, strict=True))
        logits_RV, network_states = self.network.decode_step(token_R, network_states)
        counts_RV, counts_states = self.counts.decode_step(token_R, counts_states)
        new_states = list(zip(network_states, counts_states, strict=True))
        return self.interpolate(logits_RV, counts_RV), new_states

    def interpolate(
        self, logits_BTV: Float[Tensor, "*B V"], counts_BTV: Float[Tensor, "*B V"]
    ) -> Float[Tensor, "*B V"]:
        """Return the logarithm of the weighted mean of both distributions."""
        both = (
            logits_BTV.log_softmax(dim=-1) + self.weight.log(),
            counts_BTV + (1 - self.weight).log(),
        )
        # Unlike this, the result of torch.logaddexp depends on where in memory a number is.
        return torch.stack(both).logsumexp(dim=0)
