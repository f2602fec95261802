"""Training batches of prepared text: dealt as `batches` deals them, but place by place, so that
nothing grows with the text, and mixed from several sources by weight.

B rows, S sources.
"""

import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from moreish.data.permutation import RandomPermutation
from moreish.data.sampler import Sampler
from moreish.data.sharded_array import ShardedArray
from moreish.data.token_dataset import Batch, TokenDataset, Windows
from moreish.errors import MoreishError
from moreish.tokenizers import Ids

BLOCK = 1024
"""Rows of which each source has the same number, in a random order. Shares are exact to one of
them."""


class ShuffledWindows:
    """The windows of a stretch of tokens, every one of them once a round."""

    def __init__(self, bounds: tuple[int, int], length: int, overlap: int, key: tuple[int, ...]):
        """Args:
        bounds: the first token, and the one after the last.
        length, overlap: as in `TokenDataset.windows`.
        key: the seed, and what tells these windows from others.
        """
        self.first, last = bounds
        predictions = last - self.first - 1
        self.step, self.overlap = min(length, predictions) - overlap, overlap
        assert self.step > 0
        # As in `Sampler`: one fewer than would fit, so that all can be shifted.
        self.count = max(1, (predictions - overlap) // self.step - 1)
        self.slack = predictions - overlap - self.count * self.step
        self._key = key

    def dealt(self, place_B: Ids) -> Windows:
        """The windows at some places of the endless deal."""
        round_B, place_B = np.divmod(place_B, self.count)
        start_B = np.empty_like(place_B)
        for number in np.unique(round_B).tolist():
            here = round_B == number
            shift = np.random.default_rng((*self._key, number)).integers(self.slack + 1)
            dealt = RandomPermutation(self.count, *self._key, number)[place_B[here]]
            start_B[here] = self.first + shift + dealt * self.step
        return Windows(
            start_W=start_B,
            length_W=np.full(len(start_B), self.step + self.overlap),
            # At the very start there is no earlier context, so all of it is scored.
            skip_W=np.where(start_B > self.first, self.overlap, 0),
        )


class MixtureSampler(Sampler):
    """Deals out windows of prepared text.

    Without weights, every window comes once an epoch, whatever its source. With weights, of each
    block of rows each source has its share; it deals all of its own windows before it begins anew,
    so that a small one may come round often while a large one has not been through once.
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
            weights: of all sources, or None; they need not add up to one.

        Raises:
            MoreishError: `weights` are not those of the sources, or a source is too short.
        """
        super().__init__(tokens, batch_size=batch_size, length=length, overlap=overlap, seed=seed)
        assert isinstance(tokens.ids_N, ShardedArray)
        self.weights = weights
        bounds = tokens.ids_N.origin.bounds
        quotas = {"": BLOCK} if weights is None else mixture_quotas(weights, list(bounds))
        parts = {"": (0, len(tokens.ids_N))} if weights is None else bounds
        self._windows_S = []
        for number, (name, quota) in enumerate(quotas.items()):
            first, last = parts[name]
            if quota and last - first - 1 < (overlap + 1 if weights is None else length):
                raise MoreishError(
                    f"{name or 'the text'} has {last - first:,} training tokens, fewer than a "
                    f"window of {length}: give a shorter --context, or --weight {name}=0"
                )
            if quota:
                windows = ShuffledWindows((first, last), length, overlap, (seed, number))
                self._windows_S.append(windows)
        self._quota_S = np.array([quota for quota in quotas.values() if quota])
        self._edge_S = np.cumsum(self._quota_S)

    def with_shorter_windows(self, times: int) -> "MixtureSampler":
        if self.overlap > 0 or self.length < 8 * times:
            return self
        return MixtureSampler(
            self.tokens,
            weights=self.weights,
            batch_size=self.batch_size * times,
            length=self.length // times,
            overlap=0,
            seed=self.seed,
        )

    @cached_property
    def num_windows(self) -> int:
        """How many windows there are; with weights, so many rows count as an epoch."""
        return sum(windows.count for windows in self._windows_S)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        rows = self._rows(step)[rank::world_size]
        if self.weights is None:
            return self.tokens.gather(self._windows_S[0].dealt(rows))
        source_B, place_B = self._sources(rows)
        windows = Windows(
            start_W=np.empty_like(rows), length_W=np.empty_like(rows), skip_W=np.empty_like(rows)
        )
        for number in np.unique(source_B).tolist():
            here = source_B == number
            dealt = self._windows_S[number].dealt(place_B[here])
            windows.start_W[here] = dealt.start_W
            windows.length_W[here] = dealt.length_W
            windows.skip_W[here] = dealt.skip_W
        return self.tokens.gather(windows)

    def _rows(self, step: int) -> Ids:
        """The numbers of a step's rows, counted from the beginning of the training. Without weights
        the last step of an epoch gets what is left."""
        if self.weights is not None:
            return np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, number = divmod(step, self.steps_per_epoch)
        first = number * self.batch_size
        last = min(first + self.batch_size, self.num_windows)
        return epoch * self.num_windows + np.arange(first, last)

    def _sources(self, row_B: Ids) -> tuple[Ids, Ids]:
        """Of each row its source, and its place among the rows of that source."""
        block_B, within_B = np.divmod(row_B, BLOCK)
        for block in np.unique(block_B).tolist():
            here = block_B == block
            order = np.random.default_rng((self.seed, len(self._windows_S), block))
            within_B[here] = order.permutation(BLOCK)[within_B[here]]
        source_B = np.searchsorted(self._edge_S, within_B, side="right")
        before_B = (self._edge_S - self._quota_S)[source_B]
        return source_B, block_B * self._quota_S[source_B] + within_B - before_B


def mixture_quotas(weights: Mapping[str, float], sources: list[str]) -> dict[str, int]:
    """Rows of a block for each source, by the largest remainders; none for a weight of zero.

    Raises:
        MoreishError: a source has no weight, a weight no source, or one is too small for a row.
    """
    told = f"the sources are {', '.join(sources)}"
    for name in weights:
        if name not in sources:
            raise MoreishError(f"--weight {name}: there is no such source; {told}")
    if missing := [name for name in sources if name not in weights]:
        raise MoreishError(f"--weight: {', '.join(missing)} has none; {told}")
    total = math.fsum(weights.values())
    if total <= 0:
        raise MoreishError("--weight: give at least one source more than 0")
    exact = {name: BLOCK * weights[name] / total for name in sources}
    quotas = {name: int(share) for name, share in exact.items()}
    by_rest = sorted(sources, key=lambda name: quotas[name] - exact[name])
    for name in by_rest[: BLOCK - sum(quotas.values())]:
        quotas[name] += 1
    for name, quota in quotas.items():
        if not quota and weights[name]:
            raise MoreishError(f"--weight {name}: give 0, or at least one row in {BLOCK}")
    return quotas
