"""A whole text in one small batch: its distinct windows, each with how often it occurs.

The gradient on it is exactly that of the text, at a fraction of the work (27 letters have 627 pairs
in 228,000 letters of names).

G distinct n-grams, K context.
"""

import numpy as np
import torch

from moreish.data import IGNORE_INDEX, Batch, Sampler, TokenDataset
from moreish.models import Model, count_ngrams, max_order


class UniqueWindowSampler(Sampler):
    """Deals out the same batch at every step: all of the text."""

    def __init__(self, tokens: TokenDataset, model: Model, seed: int) -> None:
        """`model` must be one of windows."""
        super().__init__(tokens, batch_size=1, length=model.context, overlap=0, seed=seed)
        grams_G, counts_G = count_ngrams(tokens, model.context + 1, model.vocab_size)
        digits_K = model.vocab_size ** np.arange(model.context, 0, -1)
        targets_GK = np.full((len(grams_G), model.context), IGNORE_INDEX)
        targets_GK[:, -1] = grams_G % model.vocab_size
        self._batch = Batch(
            tokens_BT=torch.from_numpy(grams_G[:, None] // digits_K % model.vocab_size),
            targets_BT=torch.from_numpy(targets_GK),
            counts_BT=torch.from_numpy(np.where(targets_GK == IGNORE_INDEX, 0, counts_G[:, None])),
        )

    @property
    def steps_per_epoch(self) -> int:
        return 1

    @property
    def positions(self) -> int:
        return self._batch.tokens_BT.numel()

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rows of process `rank`: every `world_size`-th."""
        if world_size == 1:
            return self._batch
        counts_BT = self._batch.counts_BT
        assert counts_BT is not None
        return Batch(
            tokens_BT=self._batch.tokens_BT[rank::world_size],
            targets_BT=self._batch.targets_BT[rank::world_size],
            counts_BT=counts_BT[rank::world_size],
        )


def unique_windows(
    tokens: TokenDataset, model: Model, seed: int, *, positions: int
) -> UniqueWindowSampler | None:
    """The whole text as distinct windows, if these take no more than so many positions."""
    if not model.fixed_window or model.context >= max_order(model.vocab_size):
        return None
    # More of the beginning's windows than that are more of the whole text's, and dear to count.
    some = TokenDataset(tokens.ids_N[: 4 * positions], items=False)
    grams_G, _ = count_ngrams(some, model.context + 1, model.vocab_size)
    if len(grams_G) * model.context > positions:
        return None
    found = UniqueWindowSampler(tokens, model, seed)
    return found if found.positions <= positions else None
