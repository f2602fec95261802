"""Training batches: a pure function of (seed, step, rank, world size), with no loader state."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from moreish.data.tokens import Batch, Spans, Tokens
from moreish.tokenizers.base import Ids


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Cuts the training tokens into pieces and deals them out, every piece once an epoch.

    Items are whole (a longer one than `length` comes in pieces). Running text is cut into windows
    of `length`, and the cuts lie elsewhere in every epoch.
    """

    tokens: Tokens
    batch_size: int
    length: int
    overlap: int
    seed: int

    @property
    def pieces(self) -> int:
        """How many pieces an epoch deals out."""
        return len(self._items) if self.tokens.items else self._windows

    @property
    def steps_per_epoch(self) -> float:
        return self.pieces / self.batch_size

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """The rows that process `rank` of `world_size` trains on at `step`.

        The rows of all ranks together are the same whatever the world size.
        """
        places = np.arange(rank, self.batch_size, world_size) + step * self.batch_size
        return self.tokens.gather(self._pieces_at(places))

    def _pieces_at(self, places: Ids) -> Spans:
        """The pieces that come at `places`, counted from the start of the training."""
        epochs, within = places // self.pieces, places % self.pieces
        starts, lengths, skips = (np.empty(len(places), dtype=np.int64) for _ in range(3))
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            chosen = _permutation(self.seed, int(epoch), self.pieces)[within[mine]]
            spans = self._items[chosen] if self.tokens.items else self._cut(int(epoch), chosen)
            starts[mine], lengths[mine], skips[mine] = spans.start_S, spans.length_S, spans.skip_S
        return Spans(start_S=starts, length_S=lengths, skip_S=skips)

    @cached_property
    def _items(self) -> Spans:
        return self.tokens.spans(self.length, self.overlap)

    @property
    def _step(self) -> int:
        return min(self.length, self.tokens.predictions) - self.overlap

    @property
    def _windows(self) -> int:
        """One window fewer than would fit leaves room to shift all of them by up to a window."""
        return max(1, (self.tokens.predictions - self.overlap) // self._step - 1)

    def _cut(self, epoch: int, chosen: Ids) -> Spans:
        covered = self._windows * self._step + self.overlap
        slack = self.tokens.predictions - covered
        shift = int(np.random.default_rng((self.seed, epoch, 1)).integers(slack + 1))
        start = chosen * self._step + shift
        return Spans(
            start_S=start,
            length_S=np.full(len(chosen), self._step + self.overlap),
            # At the very start of the text there is no earlier context, so all of it is scored.
            skip_S=np.where(start > 0, self.overlap, 0),
        )


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, pieces: int) -> Ids:
    return np.random.default_rng((seed, epoch, 0)).permutation(pieces)

