"""N-gram counts with add-k smoothing (Shannon 1948, section 3).

B batch, T positions, P positions (B·T), K context (order - 1), V vocabulary, G distinct n-grams.
"""

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor

from moreish.data import TokenDataset
from moreish.models.base import CountBasedModel, Logits, ModelConfig, State, Tokens
from moreish.models.ngram.counts import check_order, count_ngrams


class NGramConfig(ModelConfig):
    name: Literal["ngram"] = "ngram"
    order: int = Field(2, ge=1, le=64)
    """Length of the n-grams in tokens; 2 counts pairs."""
    add_k: float = Field(0.01, ge=0)
    """Added to every count (Laplace, Lidstone); 0 makes unseen n-grams impossible."""


@final
class NGram(CountBasedModel):
    """p(token | context) = (count + k) / (context count + k·V), from a sorted list of n-grams.

    If the context never occurred and k is 0, every token is equally likely.
    """

    Config = NGramConfig
    renamed_buffers = {"grams_G": "ngrams_G"}

    ngrams_G: Tensor
    counts_G: Tensor

    def __init__(self, config: NGramConfig, vocab_size: int) -> None:
        """Raises MoreishError when an n-gram does not fit into 63 bits."""
        check_order(config.order, vocab_size)
        super().__init__(vocab_size, config.order)
        self.add_k = config.add_k
        self.register_buffer("ngrams_G", torch.empty(0, dtype=torch.int64))
        self.register_buffer("counts_G", torch.empty(0, dtype=torch.int64))

    def fit_counts(self, tokens: TokenDataset) -> None:
        ngrams_G, counts_G = count_ngrams(tokens, self.order, self.vocab_size)
        self.ngrams_G, self.counts_G = torch.from_numpy(ngrams_G), torch.from_numpy(counts_G)

    def num_counts(self) -> int:
        return len(self.counts_G)

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        window_BTK, state = self.windows(tokens_BT, state)
        if self.order == 1:
            context_BT = torch.zeros_like(tokens_BT)
        else:
            digits_K = self.vocab_size ** torch.arange(self.context - 1, -1, -1)
            context_BT = (window_BTK * digits_K.to(window_BTK)).sum(-1)
        logits_BTV = self._log_probabilities(context_BT.flatten()).unflatten(0, context_BT.shape)
        return logits_BTV, state

    def _log_probabilities(self, context_P: Tensor) -> Tensor:
        size = self.vocab_size
        low_P = torch.searchsorted(self.ngrams_G, context_P * size)
        found_P = torch.searchsorted(self.ngrams_G, (context_P + 1) * size) - low_P
        # All n-grams of all contexts, one after another: the position and the index of each.
        place_F = torch.repeat_interleave(found_P)
        first_F = (found_P.cumsum(0) - found_P)[place_F]
        ngram_F = low_P[place_F] + torch.arange(len(place_F), device=place_F.device) - first_F
        counts_PV = torch.zeros(len(context_P), size, dtype=torch.float64, device=context_P.device)
        counts_PV[place_F, self.ngrams_G[ngram_F] % size] = self.counts_G[ngram_F].double()
        counts_PV += self.add_k
        total_P1 = counts_PV.sum(-1, keepdim=True)
        never_P1 = total_P1 == 0
        shares_PV = torch.where(never_P1, 1 / size, counts_PV / total_P1.where(~never_P1, 1.0))
        return shares_PV.log().float()
