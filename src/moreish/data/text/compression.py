"""Compressed files, which are recognized by their suffix."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from moreish.errors import MoreishError
from moreish.utils.extras import import_extra

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

READ_BYTES = 1 << 14
"""Number of compressed bytes that are read at a time; they may expand a thousandfold."""


@contextmanager
def decompress(raw: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    """Yield the uncompressed content of an open file, whose path ends with the format's suffix.

    Raises:
        MoreishError: the file is damaged, or a library is missing.
    """
    errors: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    file: Any = raw
    match path.suffix:
        case ".gz":
            file = gzip.GzipFile(fileobj=raw)
        case ".bz2":
            file = bz2.BZ2File(raw)
            errors = (*errors, OSError)
        case ".xz":
            file = lzma.LZMAFile(raw)  # noqa: SIM115 (it does not own its file)
        case ".zst":
            library = import_extra("zstandard", "large")
            errors = (*errors, library.ZstdError)
            file = io.BufferedReader(_ZstandardReader(raw, library.ZstdDecompressor()), 1 << 16)
    try:
        yield cast(BinaryIO, file)
    except errors as error:
        raise MoreishError(f"{path} is damaged: {error}") from None


class _ZstandardReader(io.RawIOBase):
    """A reader of consecutive Zstandard frames that, unlike the library's, detects a truncated last
    frame."""

    def __init__(self, raw: BinaryIO, decompressor: Any) -> None:
        self._raw, self._decompressor = raw, decompressor
        self._frame = decompressor.decompressobj()
        self._rest, self._buffer, self._in_frame = b"", memoryview(b""), False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._buffer:
            compressed = self._rest or self._raw.read(READ_BYTES)
            if not compressed and self._in_frame:
                raise EOFError("it is truncated")
            if not compressed:
                return 0
            self._buffer = memoryview(self._frame.decompress(compressed))
            self._rest, self._in_frame = self._frame.unused_data, not self._frame.eof
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
        count = min(len(buffer), len(self._buffer))
        buffer[:count], self._buffer = self._buffer[:count], self._buffer[count:]
        return count
