"""Token files that are written in parts, so that a killed process can resume.

N tokens.
"""

import os
from pathlib import Path

import numpy as np

from moreish.data.sharded_array import Array
from moreish.data.split import SplitName
from moreish.data.token_dataset import npy_header
from moreish.settings import Settings
from moreish.utils.files import attach_path, fsync_folder, write_all

MAX_SHARD_TOKENS = 1 << 26
"""Number of tokens in a file: 128 MB with the vocabulary of GPT-2."""


class Shard(Settings, frozen=False):
    """One token file; the fields are stored under these names."""

    file: str
    source: str
    split: SplitName
    tokens: int = 0
    documents: int = 0
    """Number of boundaries in it: documents that end in it, or continue in another split."""
    sha256: str = ""
    """Hash of the file, once it is complete."""


class ShardWriter:
    """Appends tokens to the files of a folder.

    After `flush`, the caller stores the state of `shards`. What was written after that is cut off
    when the files are opened again.
    """

    def __init__(self, folder: Path, dtype: np.dtype, boundary: int, shards: list[Shard]) -> None:
        """
        Args:
            folder: the folder of the files.
            dtype: type of the tokens.
            boundary: token between documents.
            shards: the stored state, which is updated in place.

        Raises:
            ValueError: a file is shorter than its stored state.
        """
        self.folder, self.dtype, self.boundary, self.shards = folder, dtype, boundary, shards
        self._last = {(shard.source, shard.split): shard for shard in shards}
        self._source = ""
        self._descriptors: dict[Path, int] = {}
        for path in {*folder.glob("*.npy")} - {folder / shard.file for shard in shards}:
            path.unlink()
        for shard in shards:
            path = folder / shard.file
            size = len(npy_header(dtype, shard.tokens)) + shard.tokens * dtype.itemsize
            if not path.exists() or path.stat().st_size < size:
                raise ValueError(f"{path} is shorter than it was")
            if path.stat().st_size > size:
                os.truncate(path, size)

    def add(self, source: str, split: SplitName, ids_N: Array) -> None:
        """Append tokens to the files of a source and split.

        Raises:
            OSError: the disk is full.
        """
        while len(ids_N):
            shard = self._last.get((source, split))
            is_full = shard is not None and shard.tokens == MAX_SHARD_TOKENS
            if source != self._source or is_full:  # keep few files open
                self.flush()
                self.close()
                self._source = source
            if shard is None or is_full:
                number = 0 if shard is None else int(shard.file[-9:-4]) + 1
                file = f"{source}-{split}-{number:05}.npy"
                shard = Shard(file=file, source=source, split=split)
                self._write(shard.file, npy_header(self.dtype, 0))
                self.shards.append(shard)
                self._last[source, split] = shard
            part, ids_N = np.split(ids_N, [MAX_SHARD_TOKENS - shard.tokens])
            self._write(shard.file, np.ascontiguousarray(part, self.dtype).data)
            shard.tokens += len(part)
            shard.documents += int(np.count_nonzero(part == self.boundary))

    def _write(self, name: str, content: bytes | memoryview) -> None:
        path = self.folder / name
        with attach_path(path):
            if path not in self._descriptors:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
                self._descriptors[path] = os.open(path, flags, 0o666)
            write_all(self._descriptors[path], content)

    def flush(self) -> None:
        """Flush everything that was added to disk."""
        for path, descriptor in self._descriptors.items():
            with attach_path(path):
                os.fsync(descriptor)
        fsync_folder(self.folder)

    def close(self) -> None:
        """Close the files without flushing them."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def finalize(self) -> None:
        """Write the lengths into the headers; nothing may be added afterward."""
        self.flush()
        self.close()
        for shard in self.shards:
            path = self.folder / shard.file
            with attach_path(path), path.open("r+b", buffering=0) as file:
                file.write(npy_header(self.dtype, shard.tokens))
                os.fsync(file.fileno())
