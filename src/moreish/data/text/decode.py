"""Bytes to clean text, piece by piece: a text may be larger than the memory."""

import codecs
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from moreish.errors import MoreishError, command
from moreish.tokenizers import SURROGATE, code_points

PIECE = 1 << 16
"""Bytes that are read at a time: few enough for the cache, many enough for NumPy."""

BOMS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
"""Byte order marks by the encoding that they announce, longer ones before their own beginnings."""


class NotTextError(MoreishError):
    """A file is no text, or not in the encoding in which it is read."""

    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one reading of a text finds out."""

    characters: int
    alphabet: frozenset[int]
    """The code points that occur."""
    blank: bool
    other_line_ends: bool
    """There were CR LF or CR, which are LF now."""


@dataclass(frozen=True)
class Text:
    """One text. It is read anew, in pieces that end anywhere, whenever it is gone through.

    Raises (when it is gone through):
        MoreishError: it is no text, or not in its encoding.
    """

    read: Callable[[], Iterator[str]]
    name: str = ""
    """Of its file."""

    def __iter__(self) -> Iterator[str]:
        return normalize_newlines(self.read())

    @cached_property
    def survey(self) -> Survey:
        """Takes a whole reading, once."""
        line_ends = io.IncrementalNewlineDecoder(None, translate=True)
        characters, alphabet, blank = 0, Alphabet(), True
        for piece in normalize_newlines(self.read(), line_ends):
            characters += len(piece)
            alphabet.add(piece)
            blank = blank and piece.isspace()
        return Survey(
            characters=characters,
            alphabet=frozenset(alphabet.points),
            blank=blank,
            other_line_ends=line_ends.newlines not in (None, "\n"),
        )


class Alphabet:
    """The code points that occur in what was added."""

    def __init__(self) -> None:
        self.points: set[int] = set()

    def add(self, text: str) -> None:
        self.points.update(np.flatnonzero(np.bincount(code_points(text))).tolist())


def text_of(*pieces: str) -> Text:
    """A text that is in memory already."""
    return Text(pieces.__iter__)


def text_file(path: Path, encoding: str) -> Text:
    """The text of a file."""
    return Text(partial(_read, path, encoding), str(path))


def _read(path: Path, encoding: str) -> Iterator[str]:
    with path.open("rb") as file:
        try:
            yield from decode_chunks(file, encoding, str(path))
        except NotTextError as error:
            told = NotTextError(f"{error}; for a closer look: {command('doctor', path)}")
            told.path = path
            raise told from None


def has_mark(path: Path, encoding: str) -> bool:
    """Whether the file begins with a byte order mark of its encoding."""
    with path.open("rb") as file:
        return _opening(file.read(4), encoding)[1] > 0


def decode_chunks(file: BinaryIO, encoding: str, where: str) -> Iterator[str]:
    """The text of a binary file without its byte order mark; `where` names it in errors.

    Raises:
        MoreishError: there is no such encoding.
        NotTextError: the bytes are not in it.
    """
    head = file.read(4)
    codec, at_byte = _opening(head, encoding)
    decoder = codecs.getincrementaldecoder(codec)()
    raw, at_character, ended = head[at_byte:] + file.read(PIECE), 0, False
    while not ended:
        ended = not raw
        held = len(decoder.getstate()[0])  # the beginning of a character that goes on in `raw`
        try:
            text = decoder.decode(raw, final=ended)
        except UnicodeDecodeError as error:
            announced = (name[:6] for name, mark in BOMS.items() if head.startswith(mark))
            guess = next((name for name in announced if name != "utf-8"), "cp1252")
            raise NotTextError(
                f"{where} is not {encoding}: byte 0x{error.object[error.start]:02x} at offset "
                f"{at_byte - held + error.start}; say how it is encoded, e.g. --encoding {guess}"
            ) from None
        except UnicodeError as error:
            raise NotTextError(f"{where} is not {encoding}: {error}") from None
        if codec != "utf-8" and (found := SURROGATE.search(text)):  # UTF-8 has none
            place = at_character + found.start()
            raise NotTextError(f"{where} holds half a character ({found[0]!r} at {place})")
        if (at := text.find("\0")) >= 0:
            raise NotTextError(
                f"{where} holds a NUL at character {at_character + at}: it is a binary file, or "
                "encoded otherwise (e.g. --encoding utf-16)"
            )
        if text:
            yield text
        at_byte, at_character = at_byte + len(raw), at_character + len(text)
        raw = raw and file.read(PIECE)


def _opening(head: bytes, encoding: str) -> tuple[str, int]:
    """The codec of what begins with `head`, and the length of its byte order mark.

    Codecs that look for a mark themselves are replaced by those that do not: in pieces, they would
    demand one.
    """
    try:
        codec = codecs.lookup(encoding).name
        "".encode(encoding)  # some turn bytes into bytes
    except (LookupError, UnicodeError):
        raise MoreishError(f"unknown encoding '{encoding}' (try utf-8 or cp1252)") from None
    if codec == "utf-8-sig":
        codec = "utf-8"
    if codec in ("utf-16", "utf-32"):
        native = f"{codec}-{'le' if sys.byteorder == 'little' else 'be'}"
        orders = (name for name in BOMS if name.startswith(codec))
        codec = next((name for name in orders if head.startswith(BOMS[name])), native)
    mark = BOMS.get(codec)
    return codec, len(mark) if mark and head.startswith(mark) else 0


def normalize_newlines(
    pieces: Iterable[str], line_ends: io.IncrementalNewlineDecoder | None = None
) -> Iterator[str]:
    """Lines that end with LF, whatever ended them before (CR LF or CR); `line_ends` knows then
    what did."""
    line_ends = line_ends or io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        if clean := line_ends.decode(piece):
            yield clean
    if clean := line_ends.decode("", final=True):
        yield clean
