"""Token files that lie one after another as one array, without being copied into one.

N tokens, S shards.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True)
class PreparedReference:
    """Where tokens lie that a run only refers to."""

    folder: Path
    manifest: str
    """Its sha256."""
    bounds: dict[str, tuple[int, int]]
    """The first token of each source, and the one after its last."""

    def as_json(self) -> dict[str, str]:
        """What finds it again."""
        return {"folder": str(self.folder.resolve()), "manifest": self.manifest}


class ShardedArray:
    """As much of a NumPy array as readers of tokens need: slices without steps, integers, and
    arrays of places, which are read from the shards that hold them. All shards have one type.
    """

    def __init__(self, shards: list[Array], origin: PreparedReference) -> None:
        """`shards`: one-dimensional, mapped from their files."""
        self.shards, self.origin = shards, origin
        self._edge_S = np.cumsum([0, *map(len, shards)])
        self.dtype = shards[0].dtype
        self.itemsize = self.dtype.itemsize
        self.nbytes = len(self) * self.itemsize

    def __len__(self) -> int:
        return int(self._edge_S[-1])

    @overload
    def __getitem__(self, place: int) -> np.unsignedinteger: ...
    @overload
    def __getitem__(self, place: slice | NDArray[np.integer]) -> Array: ...
    def __getitem__(self, place: int | slice | NDArray[np.integer]) -> np.unsignedinteger | Array:
        """Raises IndexError beyond the end. A slice within one shard is a view of it."""
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            assert step == 1
            return self._between(first, max(first, last))
        if isinstance(place, np.ndarray):
            return self._at(place)
        place = range(len(self))[place]
        which = self._shard_of(place)
        found: np.unsignedinteger = self.shards[which][place - int(self._edge_S[which])]
        return found

    def _shard_of(self, place: int) -> int:
        return int(np.searchsorted(self._edge_S, place, side="right")) - 1

    def _between(self, first: int, last: int) -> Array:
        parts = []
        while first < last:
            which = self._shard_of(first)
            at, end = int(self._edge_S[which]), min(last, int(self._edge_S[which + 1]))
            parts.append(self.shards[which][first - at : end - at])
            first = end
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty(0, self.dtype), *parts])

    def _at(self, places: NDArray[np.integer]) -> Array:
        flat = places.ravel()
        if not len(flat):
            return np.empty(places.shape, self.dtype)
        if flat.min() < 0 or flat.max() >= len(self):
            raise IndexError(f"there are {len(self):,} tokens")
        which = np.searchsorted(self._edge_S, flat, side="right") - 1
        found = np.empty(len(flat), self.dtype)
        # Rows of a batch are consecutive places: there are as many stretches as rows, about.
        edges = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist(), len(flat)]
        for first, last in pairwise(edges):
            shard = int(which[first])
            found[first:last] = self.shards[shard][flat[first:last] - self._edge_S[shard]]
        return found.reshape(places.shape)
