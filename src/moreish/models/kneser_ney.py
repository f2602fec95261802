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

    def for_data(self, longest_item: int | None, vocab_size: int) -> "KneserNeyConfig":
        """Unless it is set: 6 for items and 7 for running text, or what fits into an integer."""
        if "order" in self.model_fields_set:
            return self
        suits = 7 if longest_item is None else 6
        return self.model_copy(update={"order": min(suits, longest_order(vocab_size))})


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
        for m in range(1, self.order + 1):
            for name, dtype in TABLES.items():
                self.register_buffer(f"{name}_{m}", torch.empty(0, dtype=dtype))
        self.register_load_state_dict_pre_hook(_make_room)

    def fit(self, tokens: Tokens) -> None:
        grams_G, counts_G = count(tokens, self.order, self.vocab_size)
        for m in range(self.order, 0, -1):
            for name, table in _tables(grams_G, counts_G, self.vocab_size).items():
                setattr(self, f"{name}_{m}", torch.from_numpy(table))
            grams_G, counts_G = distinct(np.sort(grams_G % self.vocab_size ** (m - 1)))

    def counted(self) -> int:
        names = (f"{table}_{m}" for table in ("shares", "gamma") for m in range(1, self.order + 1))
        return sum(self.get_buffer(name).numel() for name in names)

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        past = self.context - 1
        if state is None:
            state = tokens_BT.new_full((len(tokens_BT), past), BOUNDARY)
        seen_BS = torch.cat([state, tokens_BT], dim=1)
        digits_K = self.vocab_size ** torch.arange(self.context - 1, -1, -1)
        context_BT = (seen_BS.unfold(1, self.context, 1) * digits_K.to(seen_BS)).sum(-1)
        # Positions with the same context have the same answer: each is worked out once.
        context_P, where_BT = context_BT.unique(return_inverse=True)
        logits_PV = self._probabilities(context_P).log().float()
        return logits_PV[where_BT], seen_BS[:, seen_BS.shape[1] - past :]

    def _probabilities(self, context_P: Tensor) -> Tensor:
        size = self.vocab_size
        shares_PV = context_P.new_full((len(context_P), size), 1 / size, dtype=torch.float64)
        for m in range(1, self.order + 1):
            tables = (self.get_buffer(f"{name}_{m}") for name in TABLES)
            targets_G, shares_G, contexts_C, first_C, gamma_C = tables
            wanted_P = context_P % size ** (m - 1)
            place_P = torch.searchsorted(contexts_C, wanted_P).clamp(max=len(contexts_C) - 1)
            (seen_S,) = torch.nonzero(contexts_C[place_P] == wanted_P, as_tuple=True)
            place_S = place_P[seen_S]
            shares_PV[seen_S] *= gamma_C[place_S, None].double()
            # The n-grams of all these contexts, one context after another.
            low_S, found_S = first_C[place_S], first_C[place_S + 1] - first_C[place_S]
            row_F = torch.repeat_interleave(found_S)
            ahead_S = found_S.cumsum(0) - found_S
            gram_F = torch.arange(len(row_F), device=row_F.device) + (low_S - ahead_S)[row_F]
            shares_PV[seen_S[row_F], targets_G[gram_F].long()] += shares_G[gram_F].double()
        return shares_PV


TABLES = {
    "targets": torch.int32,
    "shares": torch.float32,
    "contexts": torch.int64,
    "first": torch.int64,
    "gamma": torch.float32,
}
"""Of each order: (G,) last token and share of each n-gram, sorted; (C,) the contexts, (C + 1,)
where the n-grams of each begin, and (C,) what each leaves to the shorter context."""


def _tables(grams_G: Ids, counts_G: Ids, vocab_size: int) -> dict[str, NDArray[np.generic]]:
    discounts_G = _discounts(counts_G)[np.minimum(counts_G, 3)]
    contexts_G = grams_G // vocab_size
    first_C = run_starts(contexts_G)
    total_C = np.add.reduceat(counts_G, first_C)
    total_G = np.repeat(total_C, np.diff(np.append(first_C, len(grams_G))))
    return {
        "targets": (grams_G % vocab_size).astype(np.int32),
        "shares": ((counts_G - discounts_G) / total_G).astype(np.float32),
        "contexts": contexts_G[first_C],
        "first": np.append(first_C, len(grams_G)),
        "gamma": (np.add.reduceat(discounts_G, first_C) / total_C).astype(np.float32),
    }


def _discounts(counts_G: Ids) -> NDArray[np.float64]:
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
