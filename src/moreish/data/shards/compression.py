"""Files as their bytes are before compression, which is seen by the ends of their names."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

from moreish.errors import MoreishError

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

READ = 1 << 14
"""Bytes that are decompressed at a time: they may become many times as many."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file as its bytes are before compression.

    Raises:
        MoreishError: it is damaged, or a library is missing.
    """
    with path.open("rb") as raw, through(raw, path) as file:
        yield file


@contextmanager
def through(raw: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """What the open file at `path` holds."""
    damage: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    file: Any = raw
    match path.suffix:
        case ".gz":
            file = gzip.GzipFile(fileobj=raw)
        case ".bz2":
            file = bz2.BZ2File(raw)
            damage = (*damage, OSError)
        case ".xz":
            file = lzma.LZMAFile(raw)  # noqa: SIM115 (it does not own its file)
        case ".zst":
            library = wanted("zstandard")
            damage = (*damage, library.ZstdError)
            file = io.BufferedReader(_Zstandard(raw, library.ZstdDecompressor()), 1 << 16)
    try:
        yield cast(BinaryIO, file)
    except damage as error:
        raise MoreishError(f"{path} is damaged: {error}") from None


class _Zstandard(io.RawIOBase):
    """Frames one after another; unlike the library's own reader it notices when the last one is
    cut short."""

    def __init__(self, raw: BinaryIO, library: Any) -> None:
        """`library`: a `ZstdDecompressor`."""
        self._raw, self._library = raw, library
        self._frame = library.decompressobj()
        self._rest, self._held, self._inside = b"", memoryview(b""), False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            some = self._rest or self._raw.read(READ)
            if not some and self._inside:
                raise EOFError("it ends before its end")
            if not some:
                return 0
            self._held = memoryview(self._frame.decompress(some))
            self._rest, self._inside = self._frame.unused_data, not self._frame.eof
            if self._frame.eof:
                self._frame = self._library.decompressobj()
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count


def wanted(name: str) -> Any:
    """A library of the extra `large`. Raises MoreishError when it is not installed."""
    extra = "hub" if name == "datasets" else "large"
    try:
        return import_module(name)
    except ImportError:
        raise MoreishError(
            f"this needs a library ({name.partition('.')[0]}): pip install 'moreish[{extra}]'"
        ) from None
