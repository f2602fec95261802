"""A network that learns to correct counts.

It follows Bengio et al. 2003 (section 4.2, mixtures with n-grams) and Neubig and Dyer 2016
("Generalizing and Hybridizing Count-based and Neural Language Models").

B batch, R rows of it, T positions, L positions kept, M orders, E experts (orders and heads of the
memory), V vocabulary, F auxiliary features, U outputs of the network: V logits and E gates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.data import Batch, TokenDataset
from moreish.models.base import Logits, ModelConfig, State, Tokens, concat_states, split_states
from moreish.models.hybrid.config import HybridConfig
from moreish.models.hybrid.experts import Experts, SparseExperts, read_candidates, read_rows
from moreish.models.interpolated import NetworkWithCounts
from moreish.models.memory import (
    BEST_HEAD,
    HEADS,
    LONGEST_CONTEXT,
    MULTIPLIER,
    UNKNOWN,
    Memory,
    TextIndex,
    Votes,
    latest_votes,
)
from moreish.models.ngram import Folds, KneserNey, check_order
from moreish.tokenizers import Ids

MAX_FOLD_TOKENS = 1 << 25
"""Maximum number of tokens counted for all folds together; a larger text has fewer folds."""

FRESH_WINDOWS = 8
"""One of so many training windows has no memory of what precedes it."""

LONG_CALL = 4096
"""Tokens of a long text that are read in one call, with one index of the memory."""

LONG_CALL_LOGITS = 1 << 24
"""Maximum logits of such a call."""

CANDIDATE_WIDTH = 64
"""Width of the embeddings of candidates."""


@final
class Hybrid(NetworkWithCounts):
    """logits = network + sum over orders m of gate(m) · log p(counts of order m).

    The network also outputs the gates, as differences from one for the longest order, or a head of
    the memory, and from zero for the others. Its outputs start near zero, so training starts at the
    loss of the counts, or of those and votes. A network that takes features reads what these
    predict after each token, and only has to learn where they are wrong.

    In training, counts are cross-fitted: each fold of the text is looked up in the counts of all
    the others. Otherwise the network would learn to trust counts that have memorized the text.
    """

    Config = HybridConfig
    _held_out: tuple[KneserNey, Folds] | None = None
    _index: TextIndex | None = None

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """Return those of the network, but with Muon, which takes fewer steps. The first evaluation
        is that of the counts, so no training, however short, ends worse than they are."""
        own = {"optimizer": "muon", "weight_decay": 0.1, "batch_tokens": 1024}
        return {**super().defaults_for(config), **own, "eval_at_start": True}

    def __init__(self, config: HybridConfig, vocab_size: int) -> None:
        check_order(config.counts.order, vocab_size, config.folds)
        self.reach = config.memory or 0
        heads = HEADS if self.reach else 0
        width = CANDIDATE_WIDTH if config.candidates else vocab_size
        gates = config.counts.order + heads
        features = gates + (2 if heads else 1) * width
        super().__init__(config, vocab_size, gates=gates, features=features)
        self.folds = config.folds
        self.memory = Memory(vocab_size) if heads else None
        self.start = BEST_HEAD if heads else gates - 1  # the expert whose gate starts at one
        self.candidate_embedding = nn.Embedding(vocab_size, width) if config.candidates else None

    def forward(
        self, tokens_BT: Tokens, state: State = None, votes: Votes | None = None
    ) -> tuple[Logits, State]:
        """See `Model.forward`; `votes`, if they are known, are those of all text that was read, and
        the memory of the state is neither used nor kept."""
        network_state, counts_state, past_BL = state or (None, None, None)
        if votes is None:
            votes, past_BL = self._recall(tokens_BT, past_BL)
        experts, features, counts_state = self._consult(tokens_BT, counts_state, votes)
        outputs_BTU, network_state = self._run_network(tokens_BT, network_state, *features)
        logits_BTV = self.combine_logits(outputs_BTU, experts)
        return logits_BTV, (network_state, counts_state, past_BL)

    def _run_network(
        self, tokens_BT: Tokens, state: State, *features: Tensor
    ) -> tuple[Float[Tensor, "B T U"], State]:
        """Run the network in as many calls as its maximum length takes: to search the memory for
        many tokens at once is faster."""
        size, limit = tokens_BT.shape[1], self.network.max_length
        if limit is None or size <= limit:
            outputs_BTU, state = self.network(tokens_BT, state, *features)
            return outputs_BTU, state
        outputs = []
        # A network that does not slide drops the older half of its context where it is full.
        for part in torch.arange(size).split(max(1, limit // (2 if self.network.slides else 4))):
            first, last = int(part[0]), int(part[-1]) + 1
            parts = (each[:, first:last] for each in features)
            outputs_BTU, state = self.network(tokens_BT[:, first:last], state, *parts)
            outputs.append(outputs_BTU)
        return torch.cat(outputs, dim=1), state

    @property
    def call_length(self) -> int:
        if self.memory is None:
            return super().call_length
        return min(LONG_CALL, max(1, LONG_CALL_LOGITS // self.vocab_size))

    @property
    def slides(self) -> bool:
        return super().slides or self.memory is not None

    def remember(self, tokens_BS: Int[Tensor, "B S"]) -> State:
        if self.memory is None or tokens_BS.shape[1] == 0:
            return None
        return None, None, self._last(tokens_BS.cpu().int())

    def _last(self, seen_BS: Int[Tensor, "B S"]) -> Int[Tensor, "B L"]:
        """Return what the memory keeps of the tokens that have been read."""
        size = self.reach + LONGEST_CONTEXT  # the earliest occurrence has a context too
        return F.pad(seen_BS[:, -size:], (max(0, size - seen_BS.shape[1]), 0), value=UNKNOWN)

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        network_states, counts_states, pasts = map(list, zip(*states, strict=True))
        votes, past_RL = self._recall(token_R[:, None], concat_states(pasts))
        experts, features, counts_state = self._consult(
            token_R[:, None], concat_states(counts_states), votes
        )
        outputs_RU, network_states = self.network.decode_step(token_R, network_states, *features)
        logits_R1V = self.combine_logits(outputs_RU[:, None], experts)
        new_states = zip(
            network_states,
            split_states(counts_state, len(states)),
            split_states(past_RL, len(states)),
            strict=True,
        )
        return logits_R1V[:, 0], list(new_states)

    def _recall(
        self, tokens_BT: Tokens, past_BL: Int[Tensor, "B L"] | None
    ) -> tuple[Votes | None, Int[Tensor, "B L"] | None]:
        """Return the votes of what was read before for what follows each token, and what has now
        been read, as far as the memory reaches."""
        if self.memory is None:
            return None, None
        if past_BL is None:
            seen_BS = tokens_BT.cpu().int()
        else:
            seen_BS = torch.cat([past_BL, tokens_BT.cpu().int()], dim=1)
        rows, new, size = *tokens_BT.shape, seen_BS.shape[1]
        if new == 1:
            votes = latest_votes(seen_BS.numpy(), self.reach)
        else:
            first_B1 = np.arange(rows)[:, None] * size
            place_BT = first_B1 + np.arange(size - new, size)
            first_BT = np.broadcast_to(first_B1, place_BT.shape)
            index = TextIndex(seen_BS.numpy())
            votes = index.votes(place_BT.ravel(), first_BT.ravel(), self.reach)
        return votes, self._last(seen_BS)

    def fit_counts(self, tokens: TokenDataset) -> None:
        super().fit_counts(tokens)
        folds = Folds(tokens, max(2, min(self.folds, MAX_FOLD_TOKENS // tokens.num_predictions)))
        held_out = KneserNey(self.counts.config, self.vocab_size)
        held_out.fit_folds(folds)
        self._held_out = (held_out, folds)  # a tuple, so that it is not a submodule
        if self.memory is not None:
            self._index = TextIndex(np.asarray(tokens.ids_N[:], dtype=np.int32)[None])

    def training_logits(self, batch: Batch) -> Logits:
        assert self._held_out is not None and batch.start_B is not None
        held_out, folds = self._held_out
        place_BT = batch.start_B[:, None] + np.arange(batch.tokens_BT.shape[1])
        fold_BT = torch.from_numpy(folds.of(place_BT)).to(batch.tokens_BT.device)
        held_out.to(fold_BT.device)
        votes = None
        if self._index is not None:
            first_B = np.where(forgets(batch.start_B), batch.start_B, 0)
            first_BT = np.broadcast_to(first_B[:, None], place_BT.shape)
            last = len(self._index.ids_S) - 1
            place_P = np.minimum(place_BT.ravel(), last)  # targets of padding are not predicted
            votes = self._index.votes(place_P, first_BT.ravel(), self.reach)
        experts, features, _ = self._consult(batch.tokens_BT, None, votes, fold_BT)
        outputs_BTU, _ = self.network(batch.tokens_BT, None, *features)
        return self.combine_logits(outputs_BTU, experts)

    def _consult(
        self,
        tokens_BT: Tokens,
        state: State,
        votes: Votes | None,
        fold_BT: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Experts, tuple[Tensor, ...], State]:
        """Return the experts, the features that the network reads of them, and the state of the
        counts; `fold_BT` is the fold that the counts must leave out in training."""
        if votes is not None:
            votes = Votes(*(part.to(tokens_BT.device) for part in votes))
        counts = self.counts
        if fold_BT is not None:
            assert self._held_out is not None
            counts, _ = self._held_out
        if self.candidate_embedding is None:
            logp_BTMV, backoff_BTM, state = counts.log_probs_by_order(
                tokens_BT, state, fold_BT=fold_BT
            )
            return *self.read_counts(logp_BTMV, backoff_BTM, votes), state
        more_F = None if votes is None else votes.position_M * self.vocab_size + votes.token_M
        found, backoff_BTM, state = counts.candidates(
            tokens_BT, state, fold_BT=fold_BT, more_F=more_F
        )
        experts, features_BTF = read_candidates(
            found, backoff_BTM, self.memory, votes, self.candidate_embedding.weight
        )
        return experts, (features_BTF,) if self.network.takes_features else (), state

    def read_counts(
        self,
        logp_BTMV: Float[Tensor, "B T M V"],
        backoff_BTM: Float[Tensor, "B T M"],
        votes: Votes | None,
    ) -> tuple[Float[Tensor, "B T E V"], tuple[Tensor, ...]]:
        """Return the log-probabilities of all experts, those of the longest order last, and the
        features that the network reads of them, if it reads any."""
        experts_BTEV, features_BTF = read_rows(logp_BTMV, backoff_BTM, self.memory, votes)
        return experts_BTEV, (features_BTF,) if self.network.takes_features else ()

    def features(self, tokens_BT: Tokens) -> tuple[Tensor, ...]:
        """Return the features that the network reads of a text, if it reads any."""
        votes, _ = self._recall(tokens_BT, None)
        return self._consult(tokens_BT, None, votes)[1]

    def combine_logits(self, outputs_BTU: Float[Tensor, "B T U"], experts: Experts) -> Logits:
        """Add the network's logits and the gated log-probabilities of the experts."""
        gates = outputs_BTU.shape[-1] - self.vocab_size
        logits_BTV, gates_BTM = outputs_BTU.split([self.vocab_size, gates], dim=-1)
        if isinstance(experts, SparseExperts):
            start_E = F.one_hot(torch.tensor(self.start), gates).to(gates_BTM)
            weight_PE = (gates_BTM + start_E).flatten(0, 1)
            return experts.add_to(logits_BTV.flatten(0, 1), weight_PE).view_as(logits_BTV)
        gated_BTV = (gates_BTM[..., None, :] @ experts)[..., 0, :]
        return logits_BTV + gated_BTV + experts[..., self.start, :]


def forgets(start_B: Ids) -> NDArray[np.bool_]:
    """Return whether training windows that begin at these positions have no memory of what precedes
    them, as a text that begins has none.

    Windows begin at equal distances, so high digits of a product decide, not a remainder.
    """
    number_B = (start_B.astype(np.uint64) * MULTIPLIER) >> np.uint64(32)
    return number_B % np.uint64(FRESH_WINDOWS) == 0
