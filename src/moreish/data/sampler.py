"""Training batches as a pure function of seed and step, without loader state."""

import math
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from moreish.data.token_dataset import Batch, TokenDataset, Windows
from moreish.tokenizers import Ids

MIN_SHORT_LENGTH = 8
"""Smallest window, in tokens, that a warm-up of the length uses."""


class BatchSampler:
    """Cuts the training tokens into windows and serves them in random order, each once per epoch.

    An item is one window (several if it is longer than `length`). Running text is cut into windows
    of `length` tokens, at other positions in every epoch.
    """

    is_fixed: ClassVar[bool] = False
    """Whether the windows cannot have another length."""

    def __init__(
        self, tokens: TokenDataset, *, batch_size: int, length: int, overlap: int, seed: int
    ) -> None:
        """
        Args:
            tokens: the training split.
            batch_size: number of windows per step; the last step of an epoch has the remainder.
            length, overlap: in tokens, as in `TokenDataset.windows`.
            seed: random seed of the order and of the cuts.
        """
        self.tokens = tokens
        self.batch_size = batch_size
        self.length = length
        self.overlap = overlap
        self.seed = seed
        self.options: dict[str, Any] = {}
        """Further arguments of a subclass."""
        self._epoch: tuple[int, Ids, int] | None = None  # cache of the latest one

    def with_shorter_windows(self, times: int) -> "BatchSampler":
        """Return a sampler with `times` as many windows per step, which are `times` shorter.

        Returns this sampler where that is impossible: for items, overlapping or short windows.
        """
        is_fixed = self.tokens.items or self.overlap > 0 or self.is_fixed
        if is_fixed or self.length < MIN_SHORT_LENGTH * times:
            return self
        return type(self)(
            self.tokens,
            batch_size=self.batch_size * times,
            length=self.length // times,
            overlap=0,
            seed=self.seed,
            **self.options,
        )

    @cached_property
    def num_windows(self) -> int:
        """Number of windows in an epoch."""
        return len(self._item_windows) if self.tokens.items else self._grid.count

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_windows / self.batch_size)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order, shift = self._shuffle(epoch)
        first = number * self.batch_size
        chosen = order[first : first + self.batch_size]
        if self.tokens.items:
            return self.tokens.gather(self._item_windows[chosen])
        return self.tokens.gather(self._grid.windows(chosen, shift))

    def _shuffle(self, epoch: int) -> tuple[Ids, int]:
        """Return an epoch's random order of windows, and the shift of the cuts of running text."""
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng((self.seed, epoch))
            order = random.permutation(self.num_windows)
            shift = 0 if self.tokens.items else int(random.integers(self._grid.max_shift + 1))
            self._epoch = epoch, order, shift
        return self._epoch[1:]

    @cached_property
    def _item_windows(self) -> Windows:
        return self.tokens.windows(self.length, self.overlap)

    @cached_property
    def _grid(self) -> "WindowGrid":
        return WindowGrid(0, len(self.tokens.ids_N), self.length, self.overlap)


class WindowGrid:
    """Windows of equal length side by side in a range of tokens, which can be shifted together.

    There is one window fewer than would fit, so that all can be shifted by up to a window.
    """

    def __init__(self, first: int, last: int, length: int, overlap: int) -> None:
        """
        Args:
            first, last: positions of the first token, and of the one after the last.
            length, overlap: in tokens, as in `TokenDataset.windows`.
        """
        predictions = last - first - 1
        self.first, self.overlap = first, overlap
        self.step = min(length, predictions) - overlap
        assert self.step > 0
        self.count = max(1, (predictions - overlap) // self.step - 1)
        self.max_shift = predictions - overlap - self.count * self.step

    def windows(self, index_W: Ids, shift_W: Ids | int) -> Windows:
        """Return the windows at these indices, each shifted by a number of tokens."""
        start_W = self.first + index_W * self.step + shift_W
        return Windows(
            start_W=start_W,
            length_W=np.full(len(start_W), self.step + self.overlap),
            # The very start has no earlier context, so all of it has a loss.
            skip_W=np.where(start_W > self.first, self.overlap, 0),
        )
