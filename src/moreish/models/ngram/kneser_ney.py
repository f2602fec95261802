"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, after Kneser and Ney 1995).

B batch, T time, P positions (B·T), K context (order - 1), M orders, V vocabulary, S some of
the positions, F found n-grams, G distinct n-grams, C distinct contexts.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from moreish.data import TokenDataset
from moreish.models.base import CountBasedModel, ModelConfig, State
from moreish.models.ngram.counts import Folds, check_order, max_order
from moreish.models.ngram.discounts import TABLE_NAMES, Tables, discounted
from moreish.tokenizers import BOUNDARY_ID

DENSE = 1 << 22
"""Numbers in a table of whole rows: the short contexts are few, and nearly every token follows
them, so that a look-up of a row is far cheaper than one of its n-grams."""

UNKNOWN = -1
"""In the place of a token before a text whose past nobody knows."""


class KneserNeyConfig(ModelConfig):
    name: Literal["kneser-ney"] = "kneser-ney"
    order: int = Field(6, ge=1, le=64)
    """Tokens in the longest n-gram."""

    start: Literal["boundary", "unknown"] | None = None
    """What stands before the first token: boundaries, as before an item, or what nobody knows, as
    before a window of running text, so that only shorter contexts can be looked up. None: what
    suits the data."""

    def for_data(self, longest_item: int | None, vocab_size: int) -> "KneserNeyConfig":
        """Unless it is set, an order of 6 for items and 7 for running text, or what fits into an
        integer."""
        text = longest_item is None
        fitting = {
            "order": min(7 if text else 6, max_order(vocab_size)),
            "start": "unknown" if text else "boundary",
        }
        unset = {k: v for k, v in fitting.items() if k not in self.model_fields_set}
        return self.model_copy(update=unset)


@final
class KneserNey(CountBasedModel):
    """A discount is taken from every count and goes to the next shorter context.

    p(token | context) = (count - D(count)) / total + gamma(context) · p(token | shorter context),
    down to 1/V. Below the longest n-grams a count is not how often but after how many different
    tokens. The three discounts of an order, for counts of 1, 2 and more, come from its counts of
    counts. What a context never seen would add goes to the shorter one whole.
    """

    Config = KneserNeyConfig
    training_defaults = {}

    def __init__(self, config: KneserNeyConfig, vocab_size: int) -> None:
        """Raises MoreishError when an n-gram does not fit into 63 bits."""
        check_order(config.order, vocab_size)
        super().__init__(vocab_size, context=max(1, config.order - 1), max_length=None)
        self.config, self.order = config, config.order
        self.before = UNKNOWN if config.start == "unknown" else BOUNDARY_ID
        self._rows: list[Tensor] = []
        for m in range(1, self.order + 1):
            for name in TABLE_NAMES:
                self.register_buffer(f"{name}_{m}", torch.empty(0))
        self.register_load_state_dict_pre_hook(_make_room)

    def fit_counts(self, tokens: TokenDataset) -> None:
        self._take([discounted(tokens, self.order, self.vocab_size)])

    def fit_folds(self, folds: Folds) -> None:
        """Count the text once for each fold, leaving that fold out; `log_probs_by_order` then needs
        `fold_BT`."""
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:  # NumPy lets go
            counted = pool.map(
                lambda part: discounted(folds.tokens, self.order, self.vocab_size, folds, part),
                range(folds.number),
            )
            self._take(list(counted))

    def _take(self, folds: list[list[Tables]]) -> None:
        """The tables of all folds in one: the fold is the first digit of a context."""
        self._rows = []
        for m in range(1, self.order + 1):
            of_folds = [orders.pop(0) for orders in folds]
            ends = np.cumsum([0] + [len(tables["targets"]) for tables in of_folds])
            for fold, (tables, end) in enumerate(zip(of_folds, ends, strict=False)):
                tables["contexts"] = tables["contexts"] + fold * self.vocab_size ** (m - 1)
                tables["first"] = tables["first"][min(1, fold) :] + end
            for name in TABLE_NAMES:
                pieces = [tables[name] for tables in of_folds]
                whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                setattr(self, f"{name}_{m}", torch.from_numpy(whole))

    def num_counts(self) -> int:
        return sum(
            self.get_buffer(f"{table}_{m}").numel()
            for table in ("shares", "gammas")
            for m in range(1, self.order + 1)
        )

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        logp_BTMV, _, state = self.log_probs_by_order(tokens_BT, state, orders=1)
        return logp_BTMV[:, :, 0], state

    def log_probs_by_order(
        self,
        tokens_BT: Int[Tensor, "B T"],
        state: State = None,
        *,
        orders: int | None = None,
        fold_BT: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T M V"], Float[Tensor, "B T M"], State]:
        """Log-probabilities of the longest `orders` (None: all), the longest last; how much of them
        each leaves to the shorter ones (all of it, where its context was never seen); the state.

        Args:
            fold_BT: the part of `fit_folds` without which the counts of a position are to be.
        """
        past = self.context - 1
        if state is None:
            state = tokens_BT.new_full((len(tokens_BT), past), self.before)
            if self.config.start == "boundary":  # a piece of an item is no beginning
                state[tokens_BT[:, 0] != BOUNDARY_ID] = UNKNOWN
        seen_BS = torch.cat([state, tokens_BT], dim=1)
        window_BTK = seen_BS.unfold(1, self.context, 1)
        digits_K = self.vocab_size ** torch.arange(self.context - 1, -1, -1)
        context_P = (window_BTK.clamp(min=0) * digits_K.to(seen_BS)).sum(-1).flatten()
        known_P = (window_BTK != UNKNOWN).sum(-1).flatten()
        fold_P = torch.zeros_like(context_P) if fold_BT is None else fold_BT.flatten()
        logp_PMV, backoff_PM = self._looked_up(context_P, known_P, fold_P, orders or self.order)
        logp_BTMV, backoff_BTM = (x.unflatten(0, tokens_BT.shape) for x in (logp_PMV, backoff_PM))
        return logp_BTMV, backoff_BTM, seen_BS[:, seen_BS.shape[1] - past :]

    def _looked_up(
        self,
        context_P: Int[Tensor, " P"],
        known_P: Int[Tensor, " P"],
        fold_P: Int[Tensor, " P"],
        orders: int,
    ) -> tuple[Float[Tensor, "P M V"], Float[Tensor, "P M"]]:
        """From the shortest context to the longest, each giving way to the longer one."""
        rows = self._dense_rows()
        shares_PV = torch.full((len(context_P), self.vocab_size), 1 / self.vocab_size)
        shares_PV = shares_PV.to(context_P.device)
        logp_PMV = shares_PV.new_empty(len(context_P), orders, self.vocab_size)
        backoff_PM = shares_PV.new_ones(len(context_P), orders)
        for m in range(1, self.order + 1):
            digit = self.vocab_size ** (m - 1)
            contexts_C = self.get_buffer(f"contexts_{m}")
            wanted_P = context_P % digit + fold_P * digit
            place_P = torch.searchsorted(contexts_C, wanted_P).clamp_(max=len(contexts_C) - 1)
            there_P = (contexts_C[place_P] == wanted_P) & (known_P >= m - 1)
            if m <= len(rows):
                shares_PV = torch.where(there_P[:, None], rows[m - 1][place_P], shares_PV)
            else:
                (seen_S,) = torch.nonzero(there_P, as_tuple=True)
                self._lengthen(m, shares_PV, seen_S, place_P[seen_S])
            if m > self.order - orders:
                column = m - 1 - self.order + orders
                torch.log(shares_PV, out=logp_PMV[:, column])
                gammas_C = self.get_buffer(f"gammas_{m}")
                backoff_PM[:, column] = torch.where(there_P, gammas_C[place_P], 1.0)
        return logp_PMV, backoff_PM

    def _lengthen(
        self,
        m: int,
        shares_PV: Float[Tensor, "P V"],
        row_S: Int[Tensor, " S"],
        place_S: Int[Tensor, " S"],
    ) -> None:
        """In each of these rows, go from order m - 1 to order m, in place.

        Args:
            place_S: of the context of each row in the tables of order m.
        """
        targets_G, shares_G, _, first_C, gammas_C = (
            self.get_buffer(f"{n}_{m}") for n in TABLE_NAMES
        )
        shares_PV[row_S] *= gammas_C[place_S, None]
        # The n-grams of all these contexts, one context after another.
        low_S, found_S = first_C[place_S], first_C[place_S + 1] - first_C[place_S]
        row_F = torch.repeat_interleave(found_S)
        ahead_S = found_S.cumsum(0) - found_S
        gram_F = torch.arange(len(row_F), device=row_F.device) + (low_S - ahead_S)[row_F]
        # No n-gram comes twice in a row, so adding is putting.
        place_F = row_S[row_F] * self.vocab_size + targets_G[gram_F]
        shares_PV.view(-1).index_add_(0, place_F, shares_G[gram_F])

    def _dense_rows(self) -> list[Float[Tensor, "C V"]]:
        """Of the shorter orders, the probabilities after every context: made once."""
        size = self.vocab_size
        for m in range(len(self._rows) + 1, self.order + 1):
            contexts_C = self.get_buffer(f"contexts_{m}")
            if len(contexts_C) * size > DENSE:
                break
            if m == 1:
                rows_CV = torch.full((len(contexts_C), size), 1 / size, device=contexts_C.device)
            else:
                digit, shorter = size ** (m - 1), size ** (m - 2)
                wanted_C = contexts_C % shorter + contexts_C // digit * shorter
                above = torch.searchsorted(self.get_buffer(f"contexts_{m - 1}"), wanted_C)
                rows_CV = self._rows[-1][above]
            every_C = torch.arange(len(contexts_C), device=contexts_C.device)
            self._lengthen(m, rows_CV, every_C, every_C)
            self._rows.append(rows_CV)
        return self._rows


def _make_room(module: KneserNey, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """How long the tables are is known only to the saved ones."""
    module._rows = []
    for name, _buffer in list(module.named_buffers(recurse=False)):
        if (saved := state.get(prefix + name)) is not None:
            setattr(module, name, torch.empty_like(saved))
