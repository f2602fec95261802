"""Token files that are written a piece at a time, so that a process that is killed can go on.

N tokens.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from moreish.data.sharded_array import Array
from moreish.data.split import SplitName
from moreish.utils.files import fsync_folder, naming_errors

SHARD = 1 << 26
"""Tokens of a file: 128 MB of GPT-2's."""

HEADER = 128
"""Bytes before the tokens: NumPy leaves room in it for any length."""

PIECE = 1 << 20
"""Bytes that are hashed at a time."""


@dataclass(kw_only=True)
class Shard:
    """One file."""

    file: str
    source: str
    split: SplitName
    tokens: int = 0
    documents: int = 0
    """That end in it, or are broken off by a passage that is held out: its boundaries."""


class Shards:
    """Appends tokens to the files of a folder. What counts is what its owner has written down of
    `written` after a `flush`: everything behind that is cut off at the next opening."""

    def __init__(self, folder: Path, dtype: DTypeLike, boundary: int, written: list[Shard]) -> None:
        """Raises ValueError when less is there than was written down."""
        self.folder, self.dtype, self.boundary = folder, np.dtype(dtype), boundary
        self.written = written
        self._last = {(shard.source, shard.split): shard for shard in written}
        self._source = ""
        self._open: dict[str, int] = {}
        self._changed: set[str] = set()
        kept = {shard.file for shard in written}
        for path in folder.glob("*.npy"):
            if path.name not in kept:
                path.unlink()
        for shard in written:
            path, size = folder / shard.file, self._size(shard)
            if not path.exists() or path.stat().st_size < size:
                raise ValueError(f"{path} is shorter than it was")
            if path.stat().st_size > size:
                os.truncate(path, size)

    def _size(self, shard: Shard) -> int:
        return HEADER + shard.tokens * self.dtype.itemsize

    def add(self, source: str, split: SplitName, ids_N: Array) -> None:
        """Raises OSError when the disk is full."""
        if source != self._source:  # of a thousand sources, the files of one are open
            self.flush()
            self.close()
            self._source = source
        while len(ids_N):
            shard = self._last.get((source, split))
            if shard is None or shard.tokens == SHARD:
                shard = self._begun(source, split, shard)
            some, ids_N = np.split(ids_N, [SHARD - shard.tokens])
            self._write(shard.file, np.ascontiguousarray(some, self.dtype).data)
            shard.tokens += len(some)
            shard.documents += int(np.count_nonzero(some == self.boundary))

    def _begun(self, source: str, split: SplitName, before: Shard | None) -> Shard:
        number = 0 if before is None else int(before.file[-9:-4]) + 1
        shard = Shard(file=f"{source}-{split}-{number:05}.npy", source=source, split=split)
        if before is not None:
            self._close(before.file)
        self._write(shard.file, header(0, self.dtype))
        self.written.append(shard)
        self._last[source, split] = shard
        return shard

    def _write(self, name: str, content: bytes | memoryview) -> None:
        path = self.folder / name
        with naming_errors(path):
            if name not in self._open:
                how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
                self._open[name] = os.open(path, how, 0o666)
            self._changed.add(name)
            left = memoryview(content).cast("B")
            while left:  # a write may be a short one
                left = left[os.write(self._open[name], left) :]

    def flush(self) -> None:
        """Everything that was added is on the disk."""
        for name in [*self._changed]:
            with naming_errors(self.folder / name):
                os.fsync(self._open[name])
        self._changed.clear()
        fsync_folder(self.folder)

    def _close(self, name: str) -> None:
        if (descriptor := self._open.pop(name, None)) is not None:
            try:
                with naming_errors(self.folder / name):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._changed.discard(name)

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def seal(self) -> None:
        """The files say how long they are; nothing is added any more."""
        self.flush()
        self.close()
        for shard in self.written:
            path = self.folder / shard.file
            with naming_errors(path), _to_change(path) as descriptor:
                os.write(descriptor, header(shard.tokens, self.dtype))
                os.fsync(descriptor)


@contextmanager
def _to_change(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def header(tokens: int, dtype: DTypeLike) -> bytes:
    """What a NumPy file of so many tokens begins with; as long for any number."""
    written = io.BytesIO()
    facts: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (tokens,),
    }
    np.lib.format.write_array_header_1_0(written, facts)
    found = written.getvalue()
    assert len(found) == HEADER
    return found


def digest(path: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while some := file.read(PIECE):
            found.update(some)
    return found.hexdigest()
