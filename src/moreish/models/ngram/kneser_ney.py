"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, after Kneser and Ney 1995).

B batch, T positions, P positions of all rows (B·T), K context (order - 1), M orders, V vocabulary,
S a selection of the positions, F n-grams found, G distinct n-grams, C distinct contexts,
N candidates of all positions.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from moreish.data import TokenDataset
from moreish.models.base import CountBasedModel, Logits, ModelConfig, State, Tokens
from moreish.models.ngram.counts import Folds, check_order, max_order
from moreish.models.ngram.discounts import TABLE_NAMES, Tables, choose_prior, discounted_tables
from moreish.tokenizers import BOUNDARY_ID

MAX_DENSE_TABLE = 1 << 22
"""Numbers in a table with a row of probabilities for every context of an order. Short contexts are
few and nearly every token follows them, so looking up a row is far cheaper than its n-grams."""

UNKNOWN = -1
"""Stands for a token before the start of a text whose past is unknown."""


class KneserNeyConfig(ModelConfig):
    name: Literal["kneser-ney"] = "kneser-ney"
    order: int = Field(6, ge=1, le=64)
    """Length of the longest n-grams in tokens."""

    start: Literal["boundary", "unknown"] | None = None
    """What precedes the first token: boundaries, as before an item, or unknown tokens, as before a
    window of running text, so that only shorter contexts are looked up. By default what suits the
    data."""

    prior: float | None = Field(None, ge=0, le=1e12)
    """Weight of a prior on the discounts of 1/2, 1 and 3/2 for counts of 1, 2 and more, in counts
    of counts; 0 is the estimate of Chen and Goodman. By default it is chosen by cross-validation,
    and 0 for texts of more than 20,000 tokens."""

    def for_data(self, longest_item: int | None, vocab_size: int) -> ModelConfig:
        """Use order 6 for items and 7 for running text, or the longest whose n-grams fit into an
        integer, unless it is set."""
        order, start = (7, "unknown") if longest_item is None else (6, "boundary")
        return self.with_defaults(order=min(order, max_order(vocab_size)), start=start)


class Candidates(NamedTuple):
    """The tokens with an n-gram of at least two tokens at each position, in order. To all others,
    each order m gives their probability by the shortest order times a factor."""

    entry_N: Int[Tensor, " N"]
    """Position times V plus token."""
    prob_N: Float[Tensor, " N"]
    """The probability by the longest order."""
    log_ratio_NM: Float[Tensor, "N M"]
    """How much higher its log-probability by each order is than if it were one of the others."""
    fold_P: Int[Tensor, " P"]
    """The fold that each position's counts leave out; 0 without folds."""
    shortest_CV: Float[Tensor, "C V"]
    """Log-probabilities by the shortest order, for each fold."""


@final
class KneserNey(CountBasedModel):
    """Every count is discounted, and the mass goes to the next shorter context.

    p(token | context) = (count - D(count)) / total + gamma(context) · p(token | shorter context),
    down to 1/V, where gamma is the backoff mass: 1 for an unseen context. Below the longest order,
    counts are continuation counts: the number of different tokens that precede the n-gram. Each
    order's three discounts, for counts of 1, 2 and more, come from its counts of counts, and in a
    small text also from a prior.
    """

    Config = KneserNeyConfig

    def __init__(self, config: KneserNeyConfig, vocab_size: int) -> None:
        """Raises MoreishError when an n-gram does not fit into 63 bits."""
        check_order(config.order, vocab_size)
        super().__init__(vocab_size, config.order)
        self.config = config
        self.before = UNKNOWN if config.start == "unknown" else BOUNDARY_ID
        self.dense_rows: list[Tensor] = []
        for m in range(1, self.order + 1):
            for name in TABLE_NAMES:
                self.register_buffer(f"{name}_{m}", torch.empty(0))
        self.register_load_state_dict_pre_hook(_drop_dense_rows)

    def fit_counts(self, tokens: TokenDataset) -> None:
        prior = self._prior(tokens)
        self.set_tables([discounted_tables(tokens, self.order, self.vocab_size, prior=prior)])

    def _prior(self, tokens: TokenDataset) -> float:
        if self.config.prior is not None:
            return self.config.prior
        return choose_prior(tokens, self.order, self.vocab_size)

    def fit_folds(self, folds: Folds) -> None:
        """Count the text once for each fold, leaving that fold out; `log_probs_by_order` then needs
        `fold_BT`."""
        tokens = folds.tokens
        count = partial(
            discounted_tables, tokens, self.order, self.vocab_size, folds, prior=self._prior(tokens)
        )
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy releases the GIL
            self.set_tables(list(pool.map(count, range(folds.number))))

    def set_tables(self, folds: list[list[Tables]]) -> None:
        """Concatenate the tables of all folds; a context's first digit is its fold."""
        self.dense_rows = []
        for m in range(1, self.order + 1):
            of_folds = [orders.pop(0) for orders in folds]
            ends = np.cumsum([0] + [len(tables["targets"]) for tables in of_folds])
            for fold, (tables, end) in enumerate(zip(of_folds, ends, strict=False)):
                tables["contexts"] = tables["contexts"] + fold * self.vocab_size ** (m - 1)
                tables["first"] = tables["first"][min(1, fold) :] + end
            for name in TABLE_NAMES:
                parts = [tables[name] for tables in of_folds]
                table = np.concatenate(parts) if len(parts) > 1 else parts[0]
                setattr(self, f"{name}_{m}", torch.from_numpy(table))

    def num_counts(self) -> int:
        return sum(
            self.get_buffer(f"{table}_{m}").numel()
            for table in ("shares", "gammas")
            for m in range(1, self.order + 1)
        )

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        logp_BTMV, _, state = self.log_probs_by_order(tokens_BT, state, orders=1)
        return logp_BTMV[:, :, 0], state

    def log_probs_by_order(
        self,
        tokens_BT: Tokens,
        state: State = None,
        *,
        orders: int | None = None,
        fold_BT: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T M V"], Float[Tensor, "B T M"], State]:
        """Return log-probabilities and backoff mass by order, and the state.

        Args:
            orders: number of longest orders to return, the longest last; None returns all.
            fold_BT: the fold (see `fit_folds`) that each position's counts must leave out.
        """
        found, state = self._look_up(tokens_BT, state, fold_BT)
        orders, rows = orders or self.order, self._compute_dense_rows()
        positions, size = tokens_BT.numel(), self.vocab_size
        probs_PV = torch.full((positions, size), 1 / size, device=tokens_BT.device)
        logp_PMV = probs_PV.new_empty(positions, orders, size)
        backoff_PM = probs_PV.new_ones(positions, orders)
        for m, (seen_P, index_P) in enumerate(found, 1):  # from the shortest context to the longest
            if m <= len(rows):
                probs_PV = torch.where(seen_P[:, None], rows[m - 1][index_P], probs_PV)
            else:
                (row_S,) = torch.nonzero(seen_P, as_tuple=True)
                self._interpolate(m, probs_PV, row_S, index_P[row_S])
            if (column := m - 1 - self.order + orders) >= 0:
                torch.log(probs_PV, out=logp_PMV[:, column])
                gammas_C = self.get_buffer(f"gammas_{m}")
                backoff_PM[:, column] = torch.where(seen_P, gammas_C[index_P], 1.0)
        logp_BTMV, backoff_BTM = (x.unflatten(0, tokens_BT.shape) for x in (logp_PMV, backoff_PM))
        return logp_BTMV, backoff_BTM, state

    def candidates(
        self,
        tokens_BT: Tokens,
        state: State = None,
        *,
        fold_BT: Int[Tensor, "B T"] | None = None,
        more_F: Int[Tensor, " F"] | None = None,
    ) -> tuple[Candidates, Float[Tensor, "B T M"], State]:
        """Return what `log_probs_by_order` does, without rows of the vocabulary's length.

        Args:
            fold_BT: as there.
            more_F: further candidates, as position times V plus token.
        """
        found, state = self._look_up(tokens_BT, state, fold_BT)
        size = self.vocab_size
        entries = [
            self._ngrams(m, row_S := torch.nonzero(seen_P)[:, 0], index_P[row_S])
            for m, (seen_P, index_P) in enumerate(found[1:], 2)
        ]
        # N-grams of one context are sorted, and longer ones end with those of two tokens.
        entry_N = entries[0][0] if entries else tokens_BT.new_empty(0)
        if more_F is not None:
            entry_N = torch.cat([entry_N, more_F]).unique()
        row_N, token_N = entry_N // size, entry_N % size
        shortest_CV, index_P = self._compute_dense_rows()[0], found[0][1]
        shortest_N = shortest_CV[index_P[row_N], token_N]
        prob_N, other_N = shortest_N.clone(), shortest_N
        log_ratios, backoffs = [torch.zeros_like(prob_N)], []
        for m, (seen_P, context_P) in enumerate(found, 1):
            gammas_P = self.get_buffer(f"gammas_{m}")[context_P]
            backoff_P = torch.where(seen_P, gammas_P, 1.0)
            backoffs.append(backoff_P)
            if m == 1:
                continue
            entry_F, share_F = entries[m - 2]
            prob_N *= backoff_P[row_N]
            other_N = other_N * backoff_P[row_N]
            prob_N[torch.searchsorted(entry_N, entry_F)] += share_F
            log_ratios.append((prob_N / other_N).log())
        log_ratio_NM, backoff_PM = torch.stack(log_ratios, dim=1), torch.stack(backoffs, dim=1)
        candidates = Candidates(entry_N, prob_N, log_ratio_NM, index_P, shortest_CV.log())
        return candidates, backoff_PM.unflatten(0, tokens_BT.shape), state

    def _look_up(
        self, tokens_BT: Tokens, state: State, fold_BT: Int[Tensor, "B T"] | None
    ) -> tuple[list[tuple[Tensor, Tensor]], State]:
        """Return for each order (P,) whether the context of each position occurs in its tables and
        (P,) the index of it there, and the new state."""
        if state is None:
            state = tokens_BT.new_full((len(tokens_BT), self.context - 1), self.before)
            if self.config.start == "boundary":  # a window within an item
                state[tokens_BT[:, 0] != BOUNDARY_ID] = UNKNOWN
        window_BTK, state = self.windows(tokens_BT, state)
        digits_K = self.vocab_size ** torch.arange(self.context - 1, -1, -1)
        context_P = (window_BTK.clamp(min=0) * digits_K.to(window_BTK)).sum(-1).flatten()
        length_P = (window_BTK != UNKNOWN).sum(-1).flatten()
        fold_P = torch.zeros_like(context_P) if fold_BT is None else fold_BT.flatten()
        found = []
        for m in range(1, self.order + 1):
            digit = self.vocab_size ** (m - 1)
            contexts_C = self.get_buffer(f"contexts_{m}")
            key_P = context_P % digit + fold_P * digit
            index_P = torch.searchsorted(contexts_C, key_P).clamp_(max=len(contexts_C) - 1)
            found.append(((contexts_C[index_P] == key_P) & (length_P >= m - 1), index_P))
        return found, state

    def _interpolate(
        self,
        m: int,
        probs_PV: Float[Tensor, "P V"],
        row_S: Int[Tensor, " S"],
        context_S: Int[Tensor, " S"],
    ) -> None:
        """Interpolate rows of probabilities of order m - 1 with order m, in place.

        Args:
            row_S: the rows.
            context_S: index of each row's context in the tables of order m.
        """
        probs_PV[row_S] *= self.get_buffer(f"gammas_{m}")[context_S, None]
        # Every n-gram occurs once in a row, so the sum has one term.
        probs_PV.view(-1).index_add_(0, *self._ngrams(m, row_S, context_S))

    def _ngrams(
        self, m: int, row_S: Int[Tensor, " S"], context_S: Int[Tensor, " S"]
    ) -> tuple[Int[Tensor, " F"], Float[Tensor, " F"]]:
        """Return all n-grams of some contexts of order m, one context after another: row times V
        plus the last token, and the share of each."""
        targets_G, shares_G, _, first_C, _ = (self.get_buffer(f"{n}_{m}") for n in TABLE_NAMES)
        low_S, length_S = first_C[context_S], first_C[context_S + 1] - first_C[context_S]
        row_F = torch.repeat_interleave(length_S)
        ahead_S = length_S.cumsum(0) - length_S
        ngram_F = torch.arange(len(row_F), device=row_F.device) + (low_S - ahead_S)[row_F]
        return row_S[row_F] * self.vocab_size + targets_G[ngram_F], shares_G[ngram_F]

    def _compute_dense_rows(self) -> list[Float[Tensor, "C V"]]:
        """Return the shorter orders' probabilities after every context, computed once."""
        size = self.vocab_size
        for m in range(len(self.dense_rows) + 1, self.order + 1):
            contexts_C = self.get_buffer(f"contexts_{m}")
            if m > 1 and len(contexts_C) * size > MAX_DENSE_TABLE:
                break
            if m == 1:
                rows_CV = torch.full((len(contexts_C), size), 1 / size, device=contexts_C.device)
            else:
                digit, shorter = size ** (m - 1), size ** (m - 2)
                key_C = contexts_C % shorter + contexts_C // digit * shorter
                above = torch.searchsorted(self.get_buffer(f"contexts_{m - 1}"), key_C)
                rows_CV = self.dense_rows[-1][above]
            every_C = torch.arange(len(contexts_C), device=contexts_C.device)
            self._interpolate(m, rows_CV, every_C, every_C)
            self.dense_rows.append(rows_CV)
        return self.dense_rows


def _drop_dense_rows(module: KneserNey, *_: object) -> None:
    """Drop what was computed from the tables that are about to be replaced."""
    module.dense_rows = []
