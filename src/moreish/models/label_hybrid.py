"""A network that corrects a classifier that counts.

B batch, R rows of it with a separator, S positions seen, K positions of the network, T positions, E
examples, L labels, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from moreish.data import Batch, TokenDataset
from moreish.models.base import Logits, Model, ModelConfig, State, Tokens
from moreish.models.encoder import EncoderClassifier, EncoderConfig, separate
from moreish.models.interpolated import NetworkWithCountsConfig
from moreish.models.naive_bayes import UNBOUNDED
from moreish.models.nb_svm import NBSVM, NBSVMConfig
from moreish.tokenizers import Ids, Tokenizer


class LabelHybridConfig(NetworkWithCountsConfig):
    NETWORK = "encoder"
    name: Literal["label-hybrid"] = "label-hybrid"
    counts: NBSVMConfig = NBSVMConfig()  # type: ignore[assignment]
    """Settings of the classifier that counts, such as `counts.order`."""
    folds: int = Field(5, ge=2, le=100)
    """Number of folds of the training examples, each of which is classified by the counts of all
    the others."""

    @field_validator("network")
    @classmethod
    def _check_network(cls, value: ModelConfig) -> ModelConfig:
        if not isinstance(value, EncoderConfig):
            raise ValueError(f"this needs an encoder, not {value.name}")
        return value

    def for_examples(self, longest: int) -> ModelConfig:
        return self.model_copy(update={"network": self.network.for_examples(longest)})

    def for_tokenizer(self, tokenizer: Tokenizer) -> ModelConfig:
        parts = {"network": self.network, "counts": self.counts}
        fitted = {name: part.for_tokenizer(tokenizer) for name, part in parts.items()}
        return self.model_copy(update=fitted)


@final
class LabelHybrid(Model):
    """logits = encoder + gate · logits of NB-SVM, for examples whose targets are labels.

    The output of the encoder starts at zero, so training starts at the loss of the counts. In
    training, these are cross-fitted: each example is classified by a model of the other folds.
    """

    Config = LabelHybridConfig
    needs_examples = needs_labels = state_grows = True
    _held_out_EV: Tensor | None = None
    _boundaries: Ids | None = None

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        return {**EncoderClassifier.training_defaults, "eval_at_start": True}

    def __init__(self, config: LabelHybridConfig, vocab_size: int) -> None:
        network, counts = config.network, config.counts
        assert isinstance(network, EncoderConfig)
        super().__init__(
            vocab_size,
            context=UNBOUNDED,
            max_length=None,
            learning_rate=0.64 / max(128, network.width),
        )
        self.network = EncoderClassifier(network, vocab_size)
        self.counts = NBSVM(counts, vocab_size)
        self.folds, self.separator = config.folds, vocab_size - 1
        self.gate = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.network.head.weight)

    def fit_counts(self, tokens: TokenDataset) -> None:
        self.counts.fit_counts(tokens)
        scores_EL = self.counts.cross_fitted_scores(tokens, self.folds)
        self._held_out_EV = self.counts.label_logits(scores_EL)
        self._boundaries = tokens.boundaries

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        counts_BTV, seen_BS = self.counts(tokens_BT, state)
        logits_BTV = self.gate * counts_BTV
        first = seen_BS.shape[1] - tokens_BT.shape[1]
        row_R, place_R = (tokens_BT == self.separator).nonzero(as_tuple=True)
        if len(row_R):
            network_RV = self._run_network(seen_BS[row_R], place_R + first)
            logits_BTV = logits_BTV.index_put((row_R, place_R), network_RV, accumulate=True)
        return logits_BTV, seen_BS

    def training_logits(self, batch: Batch) -> Logits:
        assert batch.start_B is not None
        assert self._held_out_EV is not None and self._boundaries is not None
        number_B = np.searchsorted(self._boundaries, batch.start_B, side="right") - 1
        counts_BV = self._held_out_EV[torch.from_numpy(number_B)].to(self.gate.device)
        place_B, _ = separate(batch.tokens_BT, self.separator)
        logits_BV = self._run_network(batch.tokens_BT, place_B) + self.gate * counts_BV
        logits_BTV = logits_BV.new_zeros(*batch.tokens_BT.shape, logits_BV.shape[1])
        row_B = torch.arange(len(place_B), device=place_B.device)
        return logits_BTV.index_put((row_B, place_B), logits_BV)

    def _run_network(self, seen_RS: Int[Tensor, "R S"], place_R: Int[Tensor, " R"]) -> Tensor:
        """Return the logits of the encoder for inputs that end at a place, (R, V), of which it
        reads as much of the end as it can."""
        start_R = (place_R + 1 - self.network.context).clamp(min=0)
        length = int((place_R - start_R).max()) + 1
        place_RK = start_R[:, None] + torch.arange(length, device=seen_RS.device)
        tokens_RK = seen_RS.gather(1, place_RK.clamp(max=seen_RS.shape[1] - 1))
        logits_RKV, _ = self.network(tokens_RK)
        row_R = torch.arange(len(place_R), device=place_R.device)
        return logits_RKV[row_R, place_R - start_R]
