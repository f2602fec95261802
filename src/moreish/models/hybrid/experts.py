"""What a hybrid mixes: the predictions of counts and of a memory, for all tokens or for candidates.

B batch, T positions, P positions of all rows (B·T), M orders, H heads of the memory, E experts
(heads, then orders), V vocabulary, C folds, F auxiliary features, N candidates of all positions,
D width of their embeddings.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moreish.models.memory import Votes
from moreish.models.ngram import Candidates

PROBABILITY_SCALE = 8.0
"""The factor on probabilities as features: a certain token then is as large as an embedding."""


class SparseExperts(NamedTuple):
    """Experts that tell candidates apart; for all other tokens each has the shortest order's
    probabilities, times a factor that is of no importance to logits."""

    entry_N: Int[Tensor, " N"]
    """Position times V plus token of each candidate."""
    log_ratio_NE: Float[Tensor, "N E"]
    """How much higher its log-probability is than that of the shortest order times the factor."""
    fold_P: Int[Tensor, " P"]
    """The fold of each position, as in `Candidates`."""
    shortest_CV: Float[Tensor, "C V"]
    """Log-probabilities of the shortest order, for each fold."""

    def add_to(self, logits_PV: Float[Tensor, "P V"], weight_PE: Float[Tensor, "P E"]) -> Tensor:
        """Return (P, V) the sum of logits and weighted log-probabilities."""
        total_P1 = weight_PE.sum(dim=-1, keepdim=True)
        if len(self.shortest_CV) == 1:
            sum_PV = torch.addcmul(logits_PV, total_P1, self.shortest_CV)
        else:
            sum_PV = torch.addcmul(logits_PV, total_P1, self.shortest_CV[self.fold_P])
        row_N = self.entry_N // logits_PV.shape[1]
        gain_N = (weight_PE.index_select(0, row_N) * self.log_ratio_NE).sum(dim=-1)
        sum_PV.view(-1).index_add_(0, self.entry_N, gain_N)
        return sum_PV


Experts = Float[Tensor, "B T E V"] | SparseExperts
"""Log-probabilities of all experts, those of the longest order last."""


def read_rows(
    logp_BTMV: Float[Tensor, "B T M V"],
    backoff_BTM: Float[Tensor, "B T M"],
    memory: Any,
    votes: Votes | None,
) -> tuple[Float[Tensor, "B T E V"], Float[Tensor, "B T F"]]:
    """Return the log-probabilities of all experts, those of the longest order last, and features
    that a network may read.

    Args:
        logp_BTMV, backoff_BTM: what `KneserNey.log_probs_by_order` returns.
        memory: the memory, or what calls it faster in decoding; None for none.
        votes: those of the memory, if there is one.
    """
    longest_BTV = logp_BTMV[..., -1, :].exp()
    features = [PROBABILITY_SCALE * longest_BTV, backoff_BTM]
    if memory is not None and votes is not None:
        logp_PHV, total_PH = memory(votes, longest_BTV.flatten(0, 1))
        logp_BTHV = logp_PHV.unflatten(0, longest_BTV.shape[:2])
        features += [
            PROBABILITY_SCALE * logp_BTHV.exp().mean(dim=-2),
            total_PH.unflatten(0, longest_BTV.shape[:2]),
        ]
        logp_BTMV = torch.cat([logp_BTHV, logp_BTMV], dim=-2)
    return logp_BTMV, torch.cat(features, dim=-1)


def read_candidates(
    found: Candidates,
    backoff_BTM: Float[Tensor, "B T M"],
    memory: Any,
    votes: Votes | None,
    table_VD: Float[Tensor, "V D"],
) -> tuple[SparseExperts, Float[Tensor, "B T F"]]:
    """Do the same with candidates, whose embeddings are summed for the features.

    Args:
        found, backoff_BTM: what `KneserNey.candidates` returns.
        table_VD: the embeddings.
    """
    shape, size = backoff_BTM.shape[:2], len(table_VD)
    row_N, token_N = found.entry_N // size, found.entry_N % size
    offset_P = torch.searchsorted(row_N, torch.arange(shape.numel(), device=row_N.device))

    def embed(prob_N: Float[Tensor, " N"]) -> Float[Tensor, "B T D"]:
        weight_N = PROBABILITY_SCALE * prob_N
        sum_PD = F.embedding_bag(
            token_N, table_VD, offset_P, mode="sum", per_sample_weights=weight_N
        )
        return sum_PD.unflatten(0, shape)

    log_ratio_NE, features = found.log_ratio_NM, [embed(found.prob_N), backoff_BTM]
    if memory is not None and votes is not None:
        gain_NH, total_PH = memory.of_candidates(votes, found.entry_N, found.prob_N, shape.numel())
        share_NH = (gain_NH - total_PH.index_select(0, row_N)).exp()
        features += [
            embed(found.prob_N * share_NH.mean(dim=-1)),
            total_PH.unflatten(0, shape),
        ]
        log_ratio_NE = torch.cat([log_ratio_NE[:, -1:] + gain_NH, log_ratio_NE], dim=1)
    experts = SparseExperts(found.entry_N, log_ratio_NE, found.fold_P, found.shortest_CV)
    return experts, torch.cat(features, dim=-1)
