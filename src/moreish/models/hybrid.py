"""A network that learns to correct counts.

It follows Bengio et al. 2003 (section 4.2, mixtures with n-grams) and Neubig and Dyer 2016
("Generalizing and Hybridizing Count-based and Neural Language Models").

B batch, R rows of it, T positions, M orders, V vocabulary, N auxiliary features, U outputs of the
network: V logits and M gates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from moreish.data import Batch, TokenDataset
from moreish.models.base import Logits, ModelConfig, State, Tokens, concat_states, split_states
from moreish.models.interpolated import NetworkWithCounts, NetworkWithCountsConfig
from moreish.models.ngram import Folds, KneserNey, check_order

MAX_FOLD_TOKENS = 1 << 25
"""Maximum number of tokens counted for all folds together; a larger text has fewer folds."""

PROBABILITY_SCALE = 8.0
"""The factor on probabilities as features: a certain token then is as large as an embedding."""


class HybridConfig(NetworkWithCountsConfig):
    NETWORK = "gpt"
    name: Literal["hybrid"] = "hybrid"
    folds: int = Field(20, ge=2, le=1000)
    """Number of folds of the training text, each of which is looked up in the counts of all the
    others; a very large text has fewer."""


@final
class Hybrid(NetworkWithCounts):
    """logits = network + sum over orders m of gate(m) · log p(counts of order m).

    The network also outputs the gates, as differences from one for the longest order and from zero
    for the others. Its outputs start near zero, so training starts at the loss of the counts. A
    network that takes features reads what the counts predict after each token, and only has to
    learn where they are wrong.

    In training, counts are cross-fitted: each fold of the text is looked up in the counts of all
    the others. Otherwise the network would learn to trust counts that have memorized the text.
    """

    Config = HybridConfig
    _held_out: tuple[KneserNey, Folds] | None = None

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """Return those of the network, but with Muon, which takes fewer steps."""
        own = {"optimizer": "muon", "weight_decay": 0.1, "batch_tokens": 1024}
        return {**super().defaults_for(config), **own}

    def __init__(self, config: HybridConfig, vocab_size: int) -> None:
        check_order(config.counts.order, vocab_size, config.folds)
        super().__init__(config, vocab_size, gates=config.counts.order)
        self.folds = config.folds

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        network_state, counts_state = state or (None, None)
        logp_BTMV, backoff_BTM, counts_state = self.counts.log_probs_by_order(
            tokens_BT, counts_state
        )
        features = self.features(logp_BTMV, backoff_BTM)
        outputs_BTU, network_state = self.network(tokens_BT, network_state, *features)
        return self.combine_logits(outputs_BTU, logp_BTMV), (network_state, counts_state)

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        network_states, counts_states = map(list, zip(*states, strict=True))
        logp_R1MV, backoff_R1M, counts_state = self.counts.log_probs_by_order(
            token_R[:, None], concat_states(counts_states)
        )
        features = self.features(logp_R1MV, backoff_R1M)
        outputs_RU, network_states = self.network.decode_step(token_R, network_states, *features)
        logits_R1V = self.combine_logits(outputs_RU[:, None], logp_R1MV)
        counts_states = split_states(counts_state, len(states))
        return logits_R1V[:, 0], list(zip(network_states, counts_states, strict=True))

    def fit_counts(self, tokens: TokenDataset) -> None:
        super().fit_counts(tokens)
        folds = Folds(tokens, max(2, min(self.folds, MAX_FOLD_TOKENS // tokens.num_predictions)))
        held_out = KneserNey(self.counts.config, self.vocab_size)
        held_out.fit_folds(folds)
        self._held_out = (held_out, folds)  # a tuple, so that it is not a submodule

    def training_logits(self, batch: Batch) -> Logits:
        assert self._held_out is not None and batch.start_B is not None
        held_out, folds = self._held_out
        place_BT = batch.start_B[:, None] + np.arange(batch.tokens_BT.shape[1])
        fold_BT = torch.from_numpy(folds.of(place_BT)).to(batch.tokens_BT.device)
        held_out.to(fold_BT.device)
        logp_BTMV, backoff_BTM, _ = held_out.log_probs_by_order(batch.tokens_BT, fold_BT=fold_BT)
        features = self.features(logp_BTMV, backoff_BTM)
        outputs_BTU, _ = self.network(batch.tokens_BT, None, *features)
        return self.combine_logits(outputs_BTU, logp_BTMV)

    def features(
        self, logp_BTMV: Float[Tensor, "B T M V"], backoff_BTM: Float[Tensor, "B T M"]
    ) -> tuple[Tensor, ...]:
        """Return the features that the network reads, (B, T, V + M), if it reads any."""
        if not self.network.takes_features:
            return ()
        return (torch.cat([PROBABILITY_SCALE * logp_BTMV[..., -1, :].exp(), backoff_BTM], dim=-1),)

    def combine_logits(
        self, outputs_BTU: Float[Tensor, "B T U"], logp_BTMV: Float[Tensor, "B T M V"]
    ) -> Logits:
        """Add the network's logits and the gated log-probabilities of the counts."""
        gates = outputs_BTU.shape[-1] - self.vocab_size
        logits_BTV, gates_BTM = outputs_BTU.split([self.vocab_size, gates], dim=-1)
        gated_BTV = (gates_BTM[..., None, :] @ logp_BTMV)[..., 0, :]
        return logits_BTV + gated_BTV + logp_BTMV[..., -1, :]
