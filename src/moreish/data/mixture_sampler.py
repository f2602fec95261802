"""Training batches of prepared text, mixed from several sources by weight.

Windows are computed on demand, so that no state grows with the text.

B rows, S sources.
"""

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from moreish.data.permutation import RandomPermutation
from moreish.data.sampler import BatchSampler, WindowGrid
from moreish.data.sharded_array import ShardedArray
from moreish.data.token_dataset import Batch, TokenDataset, Windows
from moreish.errors import MoreishError
from moreish.tokenizers import Ids

BLOCK_ROWS = 1024
"""Every block of this many consecutive rows has the same number of rows of each source, in random
order: weights are rounded to one row of a block."""


class ShuffledWindows:
    """An endless sequence of the windows of a grid, each once per round in random order."""

    def __init__(self, grid: WindowGrid, *key: int) -> None:
        """`key` is the random seed, and the number of the source."""
        self.grid, self.count, self._key = grid, grid.count, key

    def __getitem__(self, index_B: Ids) -> Windows:
        """Return the windows at these indices of the sequence."""
        round_B, index_B = np.divmod(index_B, self.count)
        shift_B, window_B = np.empty_like(index_B), np.empty_like(index_B)
        for number in np.unique(round_B).tolist():
            chosen = round_B == number
            random = np.random.default_rng((*self._key, number))
            shift_B[chosen] = random.integers(self.grid.max_shift + 1)
            order = RandomPermutation(self.count, *self._key, number)
            window_B[chosen] = order[index_B[chosen]]
        return self.grid.windows(window_B, shift_B)


class MixtureSampler(BatchSampler):
    """Serves windows of prepared text.

    Without weights, every window is served once per epoch, whatever its source. With weights, each
    source has its fraction of every block of rows and serves all of its windows before it repeats
    any: a small source may repeat often while a large one has not been read once.
    """

    def __init__(
        self,
        tokens: TokenDataset,
        *,
        weights: Mapping[str, float] | None,
        batch_size: int,
        length: int,
        overlap: int,
        seed: int,
    ) -> None:
        """
        Args:
            weights: one for each source, or None; they are normalized.
            tokens, batch_size, length, overlap, seed: as in `BatchSampler`.

        Raises:
            MoreishError: `weights` do not match the sources, or a source is too short.
        """
        super().__init__(tokens, batch_size=batch_size, length=length, overlap=overlap, seed=seed)
        assert isinstance(tokens.ids_N, ShardedArray)
        self.weights, self.options = weights, {"weights": weights}
        bounds = tokens.ids_N.reference.bounds
        quotas = {"": BLOCK_ROWS} if weights is None else mixture_quotas(weights, list(bounds))
        ranges = {"": (0, len(tokens.ids_N))} if weights is None else bounds
        self._windows_S = []
        for number, (name, quota) in enumerate(quotas.items()):
            first, last = ranges[name]
            if quota and last - first - 1 < (overlap + 1 if weights is None else length):
                raise MoreishError(
                    f"{name or 'the text'} has {last - first:,} training tokens, fewer than a "
                    f"window of {length}: give a shorter --context, or --weight {name}=0"
                )
            if quota:
                grid = WindowGrid(first, last, length, overlap)
                self._windows_S.append(ShuffledWindows(grid, seed, number))
        self._quota_S = np.array([quota for quota in quotas.values() if quota])
        self._edge_S = np.cumsum(self._quota_S)

    @cached_property
    def num_windows(self) -> int:
        """Number of windows; with weights, an epoch has as many rows."""
        return sum(windows.count for windows in self._windows_S)

    def batch(self, step: int) -> Batch:
        rows = self._rows(step)
        if self.weights is None:
            return self.tokens.gather(self._windows_S[0][rows])
        source_B, index_B = self._assign_sources(rows)
        windows = Windows(
            start_W=np.empty_like(rows), length_W=np.empty_like(rows), skip_W=np.empty_like(rows)
        )
        for number in np.unique(source_B).tolist():
            chosen = source_B == number
            served = self._windows_S[number][index_B[chosen]]
            windows.start_W[chosen] = served.start_W
            windows.length_W[chosen] = served.length_W
            windows.skip_W[chosen] = served.skip_W
        return self.tokens.gather(windows)

    def _rows(self, step: int) -> Ids:
        """Return the numbers of a step's rows, counted from the start of the run.

        Without weights, the last step of an epoch has the remainder.
        """
        if self.weights is not None:
            return np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, number = divmod(step, self.steps_per_epoch)
        first = number * self.batch_size
        last = min(first + self.batch_size, self.num_windows)
        return epoch * self.num_windows + np.arange(first, last)

    def _assign_sources(self, row_B: Ids) -> tuple[Ids, Ids]:
        """Return the source of each row, and its index among the rows of that source."""
        block_B, within_B = np.divmod(row_B, BLOCK_ROWS)
        for block in np.unique(block_B).tolist():
            chosen = block_B == block
            random = np.random.default_rng((self.seed, len(self._windows_S), block))
            within_B[chosen] = random.permutation(BLOCK_ROWS)[within_B[chosen]]
        source_B = np.searchsorted(self._edge_S, within_B, side="right")
        before_B = (self._edge_S - self._quota_S)[source_B]
        return source_B, block_B * self._quota_S[source_B] + within_B - before_B


def mixture_quotas(weights: Mapping[str, float], sources: list[str]) -> dict[str, int]:
    """Return the number of rows of each source per block, by the method of largest remainders.

    Args:
        weights: one for each source; 0 leaves a source out.
        sources: the names of all sources.

    Raises:
        MoreishError: a source has no weight, a weight has no source, or one is less than a row.
    """
    known = f"the sources are {', '.join(sources)}"
    for name in weights:
        if name not in sources:
            raise MoreishError(f"--weight {name}: there is no such source; {known}")
    if missing := [name for name in sources if name not in weights]:
        raise MoreishError(f"--weight: {', '.join(missing)} has none; {known}")
    total = math.fsum(weights.values())
    if total <= 0:
        raise MoreishError("--weight: give at least one source more than 0")
    exact = {name: BLOCK_ROWS * weights[name] / total for name in sources}
    quotas = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(sources, key=lambda name: quotas[name] - exact[name])
    for name in by_remainder[: BLOCK_ROWS - sum(quotas.values())]:
        quotas[name] += 1
    for name, quota in quotas.items():
        if not quota and weights[name]:
            raise MoreishError(f"--weight {name}: give 0, or at least one row in {BLOCK_ROWS}")
    return quotas
