"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, after Kneser and Ney 1995).

B batch, T time, P positions (B·T), K context (order - 1), V vocabulary, G distinct n-grams,
C distinct contexts.
"""

from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from moreish.data.tokens import Tokens
from moreish.models.base import CountedModel, ModelConfig, State
from moreish.models.grams import check_order, count, distinct, longest_order, run_starts
from moreish.tokenizers.base import BOUNDARY, Ids

LEAST_DISCOUNT = 0.05
"""Something is set aside even where counts of counts are too few to say how much."""


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
            "order": min(7 if text else 6, longest_order(vocab_size)),
            "start": "unknown" if text else "boundary",
        }
        unset = {k: v for k, v in fitting.items() if k not in self.model_fields_set}
        return self.model_copy(update=unset)


@final
class KneserNey(CountedModel):
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
        self.order = config.order
        self.before = UNKNOWN if config.start == "unknown" else BOUNDARY
        for m in range(1, self.order + 1):
            for name, dtype in TABLES.items():
                self.register_buffer(f"{name}_{m}", torch.empty(0, dtype=dtype))
        self.register_load_state_dict_pre_hook(_make_room)

    def fit(self, tokens: Tokens) -> None:
        grams_G, counts_G = count(tokens, self.order, self.vocab_size)
        for m in range(self.order, 0, -1):
            tables = _tables(grams_G, counts_G, self.vocab_size, discounts(counts_G))
            for name, table in tables.items():
                setattr(self, f"{name}_{m}", torch.from_numpy(table))
            grams_G, counts_G = distinct(np.sort(grams_G % self.vocab_size ** (m - 1)))

    def counted(self) -> int:
        names = (f"{table}_{m}" for table in ("counts", "left") for m in range(1, self.order + 1))
        return sum(self.get_buffer(name).numel() for name in names)

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        key_BT, state = self._keys(tokens_BT, state)
        # Positions with the same context have the same answer: each is worked out once.
        key_P, where_BT = key_BT.unique(return_inverse=True)
        return self._probabilities(key_P).log().float()[where_BT], state

    def without_itself(
        self, tokens_BT: Int[Tensor, "B T"], targets_BT: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """What `forward` would say had this one occurrence of each target not been counted.

        That is exact but for the discounts, which stay those of all counts, and where the past is
        unknown: there the longest context that is known loses one count too. It is meant for the
        text that was counted; a target below zero stands for none.
        """
        key_BT, _ = self._keys(tokens_BT, None)
        shares_PV = self._probabilities(key_BT.flatten(), targets_BT.flatten())
        return shares_PV.log().float().unflatten(0, tokens_BT.shape)

    def _keys(
        self, tokens_BT: Int[Tensor, "B T"], state: State
    ) -> tuple[Int[Tensor, "B T"], Tensor]:
        """An integer for each position's context and how much of it is known; and the state."""
        past = self.context - 1
        if state is None:
            state = tokens_BT.new_full((len(tokens_BT), past), self.before)
        seen_BS = torch.cat([state, tokens_BT], dim=1)
        window_BTK = seen_BS.unfold(1, self.context, 1)
        digits_K = self.vocab_size ** torch.arange(self.context - 1, -1, -1)
        context_BT = (window_BTK.clamp(min=0) * digits_K.to(seen_BS)).sum(-1)
        known_BT = (window_BTK != UNKNOWN).sum(-1)
        return context_BT * (self.context + 1) + known_BT, seen_BS[:, seen_BS.shape[1] - past :]

    def _probabilities(
        self, key_P: Int[Tensor, " P"], left_out_P: Int[Tensor, " P"] | None = None
    ) -> Float[Tensor, "P V"]:
        """From the longest context to the shortest, each filling what the longer ones left.

        Args:
            left_out_P: a token of which one occurrence is taken out. A shorter context has counted
                it only where the longer one has none of it left then.
        """
        size = self.vocab_size
        context_P, known_P = key_P // (self.context + 1), key_P % (self.context + 1)
        # Every training step leaves one out, and there single precision will do.
        dtype = torch.float64 if left_out_P is None else torch.float32
        shares_PV = key_P.new_zeros((len(key_P), size), dtype=dtype)
        rest_P = key_P.new_ones(len(key_P), dtype=dtype)
        for m in range(self.order, 0, -1):
            tables = (self.get_buffer(f"{name}_{m}") for name in TABLES)
            targets_G, counts_G, kept_G, discounts_4, contexts_C, first_C, totals_C, left_C = tables
            wanted_P = context_P % size ** (m - 1)
            place_P = torch.searchsorted(contexts_C, wanted_P).clamp(max=len(contexts_C) - 1)
            there_P = (contexts_C[place_P] == wanted_P) & (known_P >= m - 1)
            (seen_S,) = torch.nonzero(there_P, as_tuple=True)
            place_S = place_P[seen_S]
            # The n-grams of all these contexts, one context after another.
            low_S, found_S = first_C[place_S], first_C[place_S + 1] - first_C[place_S]
            row_F = torch.repeat_interleave(found_S)
            ahead_S = found_S.cumsum(0) - found_S
            gram_F = torch.arange(len(row_F), device=row_F.device) + (low_S - ahead_S)[row_F]
            target_F, kept_F = targets_G[gram_F].long(), kept_G[gram_F]
            total_S, left_S = totals_C[place_S], left_C[place_S]
            if left_out_P is not None:
                (hit_H,) = torch.nonzero(target_F == left_out_P[seen_S][row_F], as_tuple=True)
                row_H, before_H = row_F[hit_H], counts_G[gram_F[hit_H]]
                less_H, more_H = (discounts_4[c.clamp(max=3)] for c in (before_H - 1, before_H))
                kept_F[hit_H] = before_H - 1 - less_H
                total_S[row_H] -= 1
                left_S[row_H] += less_H - more_H
                left_out_P = left_out_P.index_fill(0, seen_S[row_H[before_H > 1]], -1)
            total_S = total_S.to(dtype)
            emptied_S = total_S == 0
            scale_S = torch.where(emptied_S, 0.0, rest_P[seen_S] / total_S)
            # No n-gram comes twice, so adding is putting.
            place_F = seen_S[row_F] * size + target_F
            shares_PV.view(-1).index_add_(0, place_F, kept_F * scale_S[row_F])
            rest_P[seen_S] *= torch.where(emptied_S, 1.0, left_S / total_S)
        return shares_PV + rest_P[:, None] / size


UNKNOWN = -1
"""In the place of a token before a text whose past nobody knows."""

TABLES = {
    "targets": torch.int32,
    "counts": torch.int32,
    "kept": torch.float32,
    "discounts": torch.float32,
    "contexts": torch.int64,
    "first": torch.int64,
    "totals": torch.int64,
    "left": torch.float32,
}
"""Of each order: (G,) last token and count of each n-gram, sorted, and what the discount keeps of
the count; (4,) discounts by count; (C,) the contexts, (C + 1,) where the n-grams of each begin,
(C,) their counts together, and how much of these the discounts leave to the shorter context."""


def _tables(
    grams_G: Ids, counts_G: Ids, vocab_size: int, discounts_4: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    contexts_G = grams_G // vocab_size
    first_C = run_starts(contexts_G)
    discounts_G = discounts_4[np.minimum(counts_G, 3)]
    return {
        "targets": (grams_G % vocab_size).astype(np.int32),
        "counts": counts_G.astype(np.int32),
        "kept": (counts_G - discounts_G).astype(np.float32),
        "discounts": discounts_4.astype(np.float32),
        "contexts": contexts_G[first_C],
        "first": np.append(first_C, len(grams_G)),
        "totals": np.add.reduceat(counts_G, first_C),
        "left": np.add.reduceat(discounts_G, first_C).astype(np.float32),
    }


def discounts(counts_G: Ids) -> NDArray[np.float64]:
    """By count: 0, 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (max(1, int((counts_G == k).sum())) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # A discount takes no more than the count that it is taken from.
    return np.array([0.0] + [min(k + 1, max(LEAST_DISCOUNT, d)) for k, d in enumerate(found)])


def _make_room(module: KneserNey, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """How long the tables are is known only to the saved ones."""
    for name, _buffer in list(module.named_buffers(recurse=False)):
        if (saved := state.get(prefix + name)) is not None:
            setattr(module, name, torch.empty_like(saved))
