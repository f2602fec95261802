"""Token files that are read as one array, without being copied into one.

N tokens, S shards.
"""

import mmap
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True)
class PreparedReference:
    """The prepared dataset that an array belongs to; a run stores it in place of the tokens."""

    folder: Path
    manifest: str
    """The sha256 of its manifest.json."""
    bounds: dict[str, tuple[int, int]]
    """For each source, the position of its first token and the one after its last token."""

    def as_json(self) -> dict[str, str]:
        """Return the reference as a run folder stores it."""
        return {"folder": str(self.folder.resolve()), "manifest": self.manifest}


class ShardedArray:
    """A read-only one-dimensional array whose parts lie in several files.

    It supports what readers of tokens need of NumPy: `len`, integers, slices without a step, and
    index arrays of any shape.
    """

    def __init__(self, shards: list[Array], reference: PreparedReference) -> None:
        """
        Args:
            shards: one-dimensional memory-mapped arrays of one type, at least one.
            reference: where they are stored.
        """
        self.shards, self.reference = shards, reference
        self._edge_S = np.cumsum([0, *map(len, shards)])
        self.dtype = shards[0].dtype
        self.nbytes = len(self) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self._edge_S[-1])

    @overload
    def __getitem__(self, index: int) -> np.unsignedinteger: ...
    @overload
    def __getitem__(self, index: slice | NDArray[np.integer]) -> Array: ...
    def __getitem__(self, index: int | slice | NDArray[np.integer]) -> np.unsignedinteger | Array:
        """Read tokens; a slice within one shard is a view of it.

        Raises:
            IndexError: an index is out of range.
        """
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            assert step == 1
            return self._slice(first, max(first, last))
        if isinstance(index, np.ndarray):
            return self._take(index)
        index = range(len(self))[index]
        return self._slice(index, index + 1)[0]

    def _slice(self, first: int, last: int) -> Array:
        parts = []
        while first < last:
            shard = int(np.searchsorted(self._edge_S, first, side="right")) - 1
            start, end = int(self._edge_S[shard]), min(last, int(self._edge_S[shard + 1]))
            parts.append(self.shards[shard][first - start : end - start])
            first = end
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty(0, self.dtype), *parts])

    def _take(self, indices: NDArray[np.integer]) -> Array:
        flat = indices.ravel()
        if not len(flat):
            return np.empty(indices.shape, self.dtype)
        if flat.min() < 0 or flat.max() >= len(self):
            raise IndexError(f"index out of range: the array has {len(self):,} tokens")
        shards = np.searchsorted(self._edge_S, flat, side="right") - 1
        taken = np.empty(len(flat), self.dtype)
        # The rows of a batch are contiguous, so there are about as many runs of indices in one
        # shard as rows.
        edges = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(flat)]
        for first, last in pairwise(edges):
            shard = int(shards[first])
            taken[first:last] = self.shards[shard][flat[first:last] - self._edge_S[shard]]
        return taken.reshape(indices.shape)


def release_pages(ids_N: NDArray[np.integer] | ShardedArray) -> None:
    """Let the system drop the pages of a mapped file that were read: they count as used memory."""
    if isinstance(ids_N, ShardedArray):
        for shard in ids_N.shards:
            release_pages(shard)
    elif sys.platform != "win32" and isinstance(ids_N.base, mmap.mmap):
        ids_N.base.madvise(mmap.MADV_DONTNEED)
