"""Decodes bytes to text chunk by chunk, so that a text may be larger than memory."""

import codecs
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from moreish.errors import MoreishError, command
from moreish.tokenizers import SURROGATE, code_points

CHUNK_BYTES = 1 << 16
"""Bytes that are read at a time: few enough for the CPU cache, many enough for NumPy."""

BOMS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
"""Byte order marks by encoding; that of UTF-32-LE begins with that of UTF-16-LE, so it is first."""


class NotTextError(MoreishError):
    """A file is not text, or not in the encoding in which it is read."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, kw_only=True)
class TextStats:
    """Statistics of one text."""

    characters: int
    alphabet: frozenset[int]
    """The code points that occur."""
    is_blank: bool
    had_other_line_ends: bool
    """Whether there were CR LF or CR, which have been converted to LF."""


@dataclass(frozen=True)
class Text:
    """One text, which every iteration reads again, in chunks that may end anywhere.

    Raises:
        MoreishError: on iteration, if it is not text or not in its encoding.
    """

    read: Callable[[], Iterator[str]]
    name: str = ""
    """Path of its file; empty for a text in memory."""
    first_line: int | None = 1
    """Number of its first line in its file; None where its lines are not those of a file."""

    def __iter__(self) -> Iterator[str]:
        return normalize_newlines(self.read())

    @cached_property
    def stats(self) -> TextStats:
        """The statistics, for which the text is read once."""
        line_ends = io.IncrementalNewlineDecoder(None, translate=True)
        characters, is_blank = 0, True
        alphabet: set[int] = set()
        for chunk in normalize_newlines(self.read(), line_ends):
            characters += len(chunk)
            alphabet.update(distinct_code_points(chunk))
            is_blank = is_blank and chunk.isspace()
        return TextStats(
            characters=characters,
            alphabet=frozenset(alphabet),
            is_blank=is_blank,
            had_other_line_ends=line_ends.newlines not in (None, "\n"),
        )


def distinct_code_points(text: str) -> list[int]:
    """Return the code points that occur in `text`, sorted."""
    return np.flatnonzero(np.bincount(code_points(text))).tolist()


def text_from_chunks(*chunks: str, name: str = "") -> Text:
    """Return a text that is in memory, made of the file of that name if there is one."""
    return Text(chunks.__iter__, name, first_line=None)


def text_from_file(path: Path, encoding: str) -> Text:
    """Return the text of a file."""

    def read() -> Iterator[str]:
        with path.open("rb") as file:
            try:
                yield from decode_chunks(file, encoding, str(path))
            except NotTextError as error:
                advice = f"for a closer look: {command('doctor', path)}"
                raise NotTextError(f"{error}; {advice}", path) from None

    return Text(read, str(path))


def has_bom(path: Path, encoding: str) -> bool:
    """Return whether the file begins with the byte order mark of its encoding."""
    with path.open("rb") as file:
        return _codec_and_bom(file.read(4), encoding)[1] > 0


def decode_chunks(file: BinaryIO, encoding: str, where: str) -> Iterator[str]:
    """Yield the text of a binary file, without its byte order mark.

    Args:
        file: the file, at its beginning.
        encoding: any text encoding that Python supports.
        where: name of the file in error messages.

    Raises:
        MoreishError: there is no such encoding.
        NotTextError: the bytes are not valid in it; the message gives the offset of the first bad
            byte.
    """
    head = file.read(4)
    codec, byte_offset = _codec_and_bom(head, encoding)
    decoder = codecs.getincrementaldecoder(codec)()
    raw, character_offset, is_final = head[byte_offset:] + file.read(CHUNK_BYTES), 0, False
    while not is_final:
        is_final = not raw
        num_pending = len(decoder.getstate()[0])  # bytes of a character that `raw` completes
        try:
            text = decoder.decode(raw, final=is_final)
        except UnicodeDecodeError as error:
            announced = (name[:6] for name, bom in BOMS.items() if head.startswith(bom))
            guess = next((name for name in announced if name != "utf-8"), "cp1252")
            raise NotTextError(
                f"{where} is not {encoding}: byte 0x{error.object[error.start]:02x} at offset "
                f"{byte_offset - num_pending + error.start}; name its encoding, e.g. "
                f"--encoding {guess}"
            ) from None
        except UnicodeError as error:
            raise NotTextError(f"{where} is not {encoding}: {error}") from None
        if codec != "utf-8" and (found := SURROGATE.search(text)):  # UTF-8 has none
            at = character_offset + found.start()
            raise NotTextError(
                f"{where} holds a lone surrogate (half a character): {found[0]!r} at character {at}"
            )
        if (at := text.find("\0")) >= 0:
            raise NotTextError(
                f"{where} holds a NUL at character {character_offset + at}: it is a binary file, "
                "or in another encoding (e.g. --encoding utf-16)"
            )
        if text:
            yield text
        byte_offset, character_offset = byte_offset + len(raw), character_offset + len(text)
        raw = raw and file.read(CHUNK_BYTES)


def _codec_and_bom(head: bytes, encoding: str) -> tuple[str, int]:
    """Return the codec of a file that begins with `head`, and the length of its byte order mark.

    Codecs that look for a mark themselves (utf-16, utf-32) are replaced by those with a fixed byte
    order, because incremental ones fail without a mark.
    """
    try:
        codec = codecs.lookup(encoding).name
        "".encode(encoding)  # rejects codecs from bytes to bytes
    except (LookupError, ValueError):  # a name that contains NUL is a ValueError
        raise MoreishError(f"unknown encoding '{encoding}' (try utf-8 or cp1252)") from None
    if codec == "utf-8-sig":
        codec = "utf-8"
    if codec in ("utf-16", "utf-32"):
        native = f"{codec}-{'le' if sys.byteorder == 'little' else 'be'}"
        candidates = (name for name in BOMS if name.startswith(codec))
        codec = next((name for name in candidates if head.startswith(BOMS[name])), native)
    bom = BOMS.get(codec)
    return codec, len(bom) if bom and head.startswith(bom) else 0


def normalize_newlines(
    chunks: Iterable[str], line_ends: io.IncrementalNewlineDecoder | None = None
) -> Iterator[str]:
    """Yield the chunks with CR LF and CR converted to LF.

    Args:
        chunks: chunks of a text.
        line_ends: a decoder that records which line ends there were.
    """
    line_ends = line_ends or io.IncrementalNewlineDecoder(None, translate=True)
    for chunk in chunks:
        if converted := line_ends.decode(chunk):
            yield converted
    if converted := line_ends.decode("", final=True):
        yield converted
