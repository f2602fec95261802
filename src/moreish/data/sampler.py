"""Training batches: a pure function of (seed, step, rank, world size), with no loader state."""

import math
from functools import cached_property

import numpy as np

from moreish.data.token_dataset import Batch, TokenDataset, Windows
from moreish.tokenizers import Ids


class Sampler:
    """Cuts the training tokens into pieces and deals them out, every piece once an epoch.

    Items are whole (a longer one than `length` comes in pieces). Running text is cut into windows
    of `length`, and the cuts lie elsewhere in every epoch.
    """

    def __init__(
        self, tokens: TokenDataset, *, batch_size: int, length: int, overlap: int, seed: int
    ) -> None:
        """
        Args:
            batch_size: pieces in a step; the last step of an epoch gets what is left.
            length, overlap: as in `TokenDataset.windows`.
        """
        self.tokens = tokens
        self.batch_size = batch_size
        self.length = length
        self.overlap = overlap
        self.seed = seed
        self._dealt: tuple[int, Ids, int] | None = None  # the latest epoch, kept

    def with_shorter_windows(self, times: int) -> "Sampler":
        """With so many times as many pieces of running text that are as much shorter; where that
        cannot be, this one."""
        whole = self.tokens.items or self.overlap > 0 or type(self) is not Sampler
        if whole or self.length < 8 * times:
            return self
        return Sampler(
            self.tokens,
            batch_size=self.batch_size * times,
            length=self.length // times,
            overlap=0,
            seed=self.seed,
        )

    @cached_property
    def num_windows(self) -> int:
        """How many pieces an epoch deals out."""
        return len(self._items) if self.tokens.items else self._windows

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_windows / self.batch_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rows that process `rank` of `world_size` trains on at `step`.

        The rows of all ranks together are the same whatever the world size.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        pieces, shift = self._deal(epoch)
        first = number * self.batch_size
        chosen = pieces[first : first + self.batch_size][rank::world_size]
        windows = self._items[chosen] if self.tokens.items else self._cut(chosen, shift)
        return self.tokens.gather(windows)

    def _deal(self, epoch: int) -> tuple[Ids, int]:
        """An epoch's pieces in random order, and how far the cuts of running text are shifted."""
        if self._dealt is None or self._dealt[0] != epoch:
            random = np.random.default_rng((self.seed, epoch))
            pieces = random.permutation(self.num_windows)
            shift = 0 if self.tokens.items else int(random.integers(self._slack + 1))
            self._dealt = epoch, pieces, shift
        return self._dealt[1:]

    @cached_property
    def _items(self) -> Windows:
        return self.tokens.windows(self.length, self.overlap)

    @property
    def _step(self) -> int:
        return min(self.length, self.tokens.num_predictions) - self.overlap

    @property
    def _windows(self) -> int:
        """One window fewer than would fit leaves room to shift all of them by up to a window."""
        return max(1, (self.tokens.num_predictions - self.overlap) // self._step - 1)

    @property
    def _slack(self) -> int:
        """Tokens of running text that the windows of an epoch leave over."""
        return self.tokens.num_predictions - self._windows * self._step - self.overlap

    def _cut(self, chosen: Ids, shift: int) -> Windows:
        start = chosen * self._step + shift
        return Windows(
            start_W=start,
            length_W=np.full(len(chosen), self._step + self.overlap),
            # At the very start of the text there is no earlier context, so all of it is scored.
            skip_W=np.where(start > 0, self.overlap, 0),
        )
