"""Token files that are written piece by piece, so that a killed process can resume.

N tokens.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from moreish.data.sharded_array import Array
from moreish.data.split import SplitName
from moreish.utils.files import attach_path, fsync_folder, write_all

MAX_SHARD_TOKENS = 1 << 26
"""Number of tokens in a file: 128 MB with the vocabulary of GPT-2."""

HEADER_BYTES = 128
"""Size of the NumPy header before the tokens, which has room for any length."""

READ_BYTES = 1 << 20
"""Number of bytes that are hashed at a time."""


@dataclass(kw_only=True)
class Shard:
    """One token file; the fields are stored under these names."""

    file: str
    source: str
    split: SplitName
    tokens: int = 0
    documents: int = 0
    """Number of boundaries in it: documents that end in it, or continue in another split."""


class ShardWriter:
    """Appends tokens to the files of a folder.

    After `flush`, the caller stores the state of `shards`. What was written after that is cut off
    when the files are opened again.
    """

    def __init__(self, folder: Path, dtype: DTypeLike, boundary: int, shards: list[Shard]) -> None:
        """
        Args:
            folder: the folder of the files.
            dtype: type of the tokens.
            boundary: token between documents.
            shards: the stored state, which is updated in place.

        Raises:
            ValueError: a file is shorter than its stored state.
        """
        self.folder, self.dtype, self.boundary = folder, np.dtype(dtype), boundary
        self.shards = shards
        self._last = {(shard.source, shard.split): shard for shard in shards}
        self._source = ""
        self._descriptors: dict[str, int] = {}
        self._unflushed: set[str] = set()
        known = {shard.file for shard in shards}
        for path in folder.glob("*.npy"):
            if path.name not in known:
                path.unlink()
        for shard in shards:
            path = folder / shard.file
            size = HEADER_BYTES + shard.tokens * self.dtype.itemsize
            if not path.exists() or path.stat().st_size < size:
                raise ValueError(f"{path} is shorter than it was")
            if path.stat().st_size > size:
                os.truncate(path, size)

    def add(self, source: str, split: SplitName, ids_N: Array) -> None:
        """Append tokens to the files of a source and split.

        Raises:
            OSError: the disk is full.
        """
        if source != self._source:  # keep only the files of one source open
            self.flush()
            self.close()
            self._source = source
        while len(ids_N):
            shard = self._last.get((source, split))
            if shard is None or shard.tokens == MAX_SHARD_TOKENS:
                shard = self._start_shard(source, split, shard)
            part, ids_N = np.split(ids_N, [MAX_SHARD_TOKENS - shard.tokens])
            self._write(shard.file, np.ascontiguousarray(part, self.dtype).data)
            shard.tokens += len(part)
            shard.documents += int(np.count_nonzero(part == self.boundary))

    def _start_shard(self, source: str, split: SplitName, previous: Shard | None) -> Shard:
        number = 0 if previous is None else int(previous.file[-9:-4]) + 1
        shard = Shard(file=f"{source}-{split}-{number:05}.npy", source=source, split=split)
        if previous is not None:
            self._flush_and_close(previous.file)
        self._write(shard.file, npy_header(0, self.dtype))
        self.shards.append(shard)
        self._last[source, split] = shard
        return shard

    def _write(self, name: str, content: bytes | memoryview) -> None:
        path = self.folder / name
        with attach_path(path):
            if name not in self._descriptors:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
                self._descriptors[name] = os.open(path, flags, 0o666)
            self._unflushed.add(name)
            write_all(self._descriptors[name], content)

    def flush(self) -> None:
        """Flush everything that was added to disk."""
        for name in [*self._unflushed]:
            with attach_path(self.folder / name):
                os.fsync(self._descriptors[name])
        self._unflushed.clear()
        fsync_folder(self.folder)

    def _flush_and_close(self, name: str) -> None:
        if (descriptor := self._descriptors.pop(name, None)) is not None:
            try:
                with attach_path(self.folder / name):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._unflushed.discard(name)

    def close(self) -> None:
        """Close the files without flushing them."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def finalize(self) -> None:
        """Write the lengths into the headers; nothing may be added afterwards."""
        self.flush()
        self.close()
        for shard in self.shards:
            path = self.folder / shard.file
            with attach_path(path):
                descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
                try:
                    os.write(descriptor, npy_header(shard.tokens, self.dtype))
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


def npy_header(tokens: int, dtype: DTypeLike) -> bytes:
    """The header of a NumPy file; it has the same size for every number of tokens."""
    buffer = io.BytesIO()
    layout: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (tokens,),
    }
    np.lib.format.write_array_header_1_0(buffer, layout)
    header = buffer.getvalue()
    assert len(header) == HEADER_BYTES
    return header


def file_sha256(path: Path) -> str:
    """The sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
