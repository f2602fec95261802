"""A network that learns what counting cannot explain.

In the line of Bengio et al. 2003 (section 4.2, mixtures with n-grams) and of Neubig and Dyer 2016
("Generalizing and Hybridizing Count-based and Neural Language Models").

B batch, T time, M orders, V vocabulary, U outputs of the network: V logits and M gates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from moreish.data import Batch, TokenDataset
from moreish.models.base import ModelConfig, State, concat_states, split_states
from moreish.models.interpolated import NetworkWithCounts, NetworkWithCountsConfig
from moreish.models.ngram import Folds, KneserNey, check_order

MAX_COUNTED_TOKENS = 1 << 25
"""Tokens that are counted for all parts together: a larger text has fewer."""

SURE = 8.0
"""What a hint says of a token that is certain: the counts speak as loud as an embedding."""


class HybridConfig(NetworkWithCountsConfig):
    NETWORK = "gpt"
    name: Literal["hybrid"] = "hybrid"
    folds: int = Field(20, ge=2, le=1000)
    """Parts of the training text that are each looked up in the counts of all the others; fewer of
    a very large text."""


@final
class Hybrid(NetworkWithCounts):
    """logits = network + sum over orders m of gate(m) · log p(counts of order m).

    The network gives the gates as well, as differences from one for the longest order and from zero
    for the others. Its outputs begin near zero, so training begins at the loss of the counts. A
    network that takes features reads beside each token what the counts expect after it, and has to
    learn no more than where they go wrong.

    Those of the text that it is trained on are cross-fitted: each part of the text is looked up in
    the counts of all the others. Otherwise the network would learn to trust what was learned by
    heart.
    """

    Config = HybridConfig
    _held_out: tuple[KneserNey, Folds] | None = None

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """By Muon: it begins where others end, so every step counts."""
        own = {"optimizer": "muon", "weight_decay": 0.1, "batch_tokens": 1024}
        return {**super().defaults_for(config), **own}

    def __init__(self, config: HybridConfig, vocab_size: int) -> None:
        check_order(config.counts.order, vocab_size, config.folds)
        super().__init__(config, vocab_size, gates=config.counts.order)
        self.folds = config.folds

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        network_state, counts_state = (None, None) if state is None else state
        logp_BTMV, backoff_BTM, counts_state = self.counts.log_probs_by_order(
            tokens_BT, counts_state
        )
        logits_BTV, network_state = self._corrected(
            tokens_BT, logp_BTMV, backoff_BTM, network_state
        )
        return logits_BTV, (network_state, counts_state)

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        of_network, of_counts = zip(*states, strict=True)
        logp_R1MV, backoff_R1M, counts_state = self.counts.log_probs_by_order(
            token_R[:, None], concat_states(of_counts)
        )
        features = (features_R1N[:, 0] for features_R1N in self.features(logp_R1MV, backoff_R1M))
        outputs_RU, network_states = self.network.decode_step(token_R, of_network, *features)
        logits_RV = self.combine_logits(outputs_RU[:, None], logp_R1MV)[:, 0]
        together = zip(network_states, split_states(counts_state, len(states)), strict=True)
        return logits_RV, list(together)

    def fit_counts(self, tokens: TokenDataset) -> None:
        super().fit_counts(tokens)
        folds = Folds(tokens, max(2, min(self.folds, MAX_COUNTED_TOKENS // tokens.num_predictions)))
        held_out = KneserNey(self.counts.config, self.vocab_size)
        held_out.fit_folds(folds)
        self._held_out = (held_out, folds)  # in a tuple, so that it is no part of the model

    def training_logits(self, batch: Batch) -> Float[Tensor, "B T V"]:
        assert self._held_out is not None and batch.start_B is not None
        held_out, folds = self._held_out
        place_BT = batch.start_B[:, None] + np.arange(batch.tokens_BT.shape[1])
        fold_BT = torch.from_numpy(folds.of(place_BT)).to(batch.tokens_BT.device)
        held_out.to(fold_BT.device)
        logp_BTMV, backoff_BTM, _ = held_out.log_probs_by_order(batch.tokens_BT, fold_BT=fold_BT)
        return self._corrected(batch.tokens_BT, logp_BTMV, backoff_BTM, None)[0]

    def _corrected(
        self,
        tokens_BT: Tensor,
        logp_BTMV: Float[Tensor, "B T M V"],
        backoff_BTM: Float[Tensor, "B T M"],
        state: State,
    ) -> tuple[Float[Tensor, "B T V"], State]:
        outputs_BTU, state = self.network(tokens_BT, state, *self.features(logp_BTMV, backoff_BTM))
        return self.combine_logits(outputs_BTU, logp_BTMV), state

    def features(
        self, logp_BTMV: Float[Tensor, "B T M V"], backoff_BTM: Float[Tensor, "B T M"]
    ) -> tuple[Tensor, ...]:
        """What the network is told of the counts: (B, T, V + M), or nothing."""
        if not self.network.takes_features:
            return ()
        return (torch.cat([SURE * logp_BTMV[..., -1, :].exp(), backoff_BTM], dim=-1),)

    def combine_logits(
        self, outputs_BTU: Float[Tensor, "B T U"], logp_BTMV: Float[Tensor, "B T M V"]
    ) -> Float[Tensor, "B T V"]:
        """The logits of both, through the gates."""
        gates = outputs_BTU.shape[-1] - self.vocab_size
        logits_BTV, gates_BTM = outputs_BTU.split([self.vocab_size, gates], dim=-1)
        explained_BTV = (gates_BTM[..., None, :] @ logp_BTMV)[..., 0, :]
        return logits_BTV + explained_BTV + logp_BTMV[..., -1, :]
