"""A whole text as one small batch: its unique windows and their counts.

The gradient on this batch is exactly that on the text, at a fraction of the compute: the names have
228,000 letters, but only 627 different pairs of letters.

G unique n-grams, K context.
"""

import numpy as np
import torch

from moreish.data import IGNORE_INDEX, Batch, BatchSampler, TokenDataset
from moreish.models import Model, count_ngrams, max_order


class UniqueWindowSampler(BatchSampler):
    """Serves the same batch at every step: the whole text."""

    is_fixed = True

    def __init__(self, tokens: TokenDataset, model: Model, seed: int) -> None:
        """Count the windows; `model` must have a fixed window."""
        super().__init__(tokens, batch_size=1, length=model.context, overlap=0, seed=seed)
        ngrams_G, counts_G = count_ngrams(tokens, model.context + 1, model.vocab_size)
        digits_K = model.vocab_size ** np.arange(model.context, 0, -1)
        targets_GK = np.full((len(ngrams_G), model.context), IGNORE_INDEX)
        targets_GK[:, -1] = ngrams_G % model.vocab_size
        self._batch = Batch(
            tokens_BT=torch.from_numpy(ngrams_G[:, None] // digits_K % model.vocab_size),
            targets_BT=torch.from_numpy(targets_GK),
            counts_BT=torch.from_numpy(np.where(targets_GK == IGNORE_INDEX, 0, counts_G[:, None])),
        )

    @property
    def steps_per_epoch(self) -> int:
        return 1

    def batch(self, step: int) -> Batch:
        return self._batch


def unique_windows(
    tokens: TokenDataset, model: Model, seed: int, *, positions: int
) -> UniqueWindowSampler | None:
    """Create a sampler of unique windows; None if they take more than `positions`."""
    if (
        tokens.separator is not None
        or not model.fixed_window
        or model.context >= max_order(model.vocab_size)
    ):
        return None
    # If the beginning has too many, so has the whole text, which takes longer to count.
    beginning = TokenDataset(tokens.ids_N[: 4 * positions], items=False)
    ngrams_G, _ = count_ngrams(beginning, model.context + 1, model.vocab_size)
    if len(ngrams_G) * model.context > positions:
        return None
    sampler = UniqueWindowSampler(tokens, model, seed)
    return sampler if sampler.batch(0).tokens_BT.numel() <= positions else None
