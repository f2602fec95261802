"""Documents to passages, and each passage to a side of the split."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from moreish.data.shards.sources import Piece, Source, SourceFormat
from moreish.data.split import SPLITS, SplitName
from moreish.errors import MoreishError

PASSAGE = 1 << 13
"""Characters of a longer document that are kept together: several windows of most models."""

LEAST = 1 << 10
"""… of a small text."""

PARTS = 256
"""Passages that a text is to have, where they need not be smaller for that: with few of them
chance decides how much is held out."""

LONGEST = 1 << 20
"""Characters without a place to cut; then it is cut anywhere."""

BLOCK = 1 << 20
"""Characters that are encoded together: a tenth of a second of work."""

Cut = Callable[[str], int]
"""As `Tokenizer.cut`."""


class Passage(NamedTuple):
    """A part of a document, or all of it."""

    document: int
    number: int
    """In its document."""
    text: str
    ends: bool
    """Whether the document ends with it."""


def passage_of(size: int) -> int:
    """The most characters of a passage, of a text of about `size` bytes."""
    return min(PASSAGE, max(LEAST, size // PARTS))


def passages(pieces: Iterable[Piece], cut: Cut, most: int) -> Iterator[Passage]:
    """Every document in passages of `most` characters, which depend on nothing but the document.
    One is longer where there is no place to cut."""
    held: list[str] = []
    length = number = 0
    for document, text, ends in pieces:
        if ends and not held and number == 0 and len(text) <= most:
            yield Passage(document, 0, text, True)
            continue
        held.append(text)
        length += len(text)
        if length <= most and not ends:
            continue
        whole, at = "".join(held), 0
        size = most
        while len(whole) - at > size:
            reach = cut(whole[at : at + size])
            if reach == 0 and size < LONGEST:
                size *= 2
                continue
            reach = reach or size
            yield Passage(document, number, whole[at : at + reach], False)
            at, number, size = at + reach, number + 1, most
        if ends:
            yield Passage(document, number, whole[at:], True)
            held, length, number = [], 0, 0
        else:
            held = [whole[at:]]
            length = len(held[0])


@dataclass(frozen=True, kw_only=True)
class HashSplitter:
    """Which passages are held out: equal ones always are on one side."""

    share: float
    """Of the text, for each of validation and test."""
    seed: int
    passage: int = PASSAGE
    """The most characters of one."""

    def hashed(self, raw: bytes) -> tuple[float, float]:
        """Two numbers from 0 to 1 that only depend on these bytes and the seed."""
        digest = hashlib.blake2b(raw, digest_size=16, key=self.seed.to_bytes(8, "little")).digest()
        return int.from_bytes(digest[:8]) / 2**64, int.from_bytes(digest[8:]) / 2**64

    def side(self, place: float) -> SplitName:
        """The side of what is hashed to this place."""
        return SPLITS[1] if place < self.share else SPLITS[2 if place < 2 * self.share else 0]


@dataclass(kw_only=True)
class Counts:
    """What was read of a source."""

    documents: int = 0
    empty: int = 0
    """Documents without text."""
    passages: int = 0
    characters: int = 0
    bytes: int = 0
    shortest: int = 0
    """Characters of a document, like `longest`."""
    longest: int = 0

    def add(self, passage: Passage, size: int, length: int) -> None:
        """`size`: of the passage in bytes; `length`: of the document up to its end."""
        self.passages += 1
        self.characters += len(passage.text)
        self.bytes += size
        if passage.ends:
            self.documents += 1
            self.shortest = min(self.shortest or length, length)
            self.longest = max(self.longest, length)


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far the sources were read: the next passage."""

    source: int = 0
    part: int = 0
    document: int = 0
    passage: int = 0


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some passages of one source, dealt out to the sides."""

    source: str
    texts: dict[SplitName, list[str | None]]
    """In their order; None is a boundary."""
    after: Position
    """Where to go on behind it."""
    counts: Counts
    """Of the source, from its beginning up to here."""


def blocks(
    sources: list[Source],
    how: SourceFormat,
    cut: Cut,
    sides: HashSplitter,
    at: Position = Position(),
    counted: Counts | None = None,
) -> Iterator[Block]:
    """All passages from `at` on, where `counted` was read of that source already.

    On each side, what follows one another in a document stands together, and a boundary after it.
    """
    for number in range(at.source, len(sources)):
        start, counts = Position(source=number), Counts()
        if number == at.source:
            start, counts = at, replace(counted or counts)
        yield from _of_source(sources[number], how, cut, sides, start, counts)


def _of_source(
    source: Source,
    how: SourceFormat,
    cut: Cut,
    sides: HashSplitter,
    start: Position,
    counts: Counts,
) -> Iterator[Block]:
    texts, size = _nothing(), 0
    for part in range(start.part, source.parts):
        # A document that was begun is read again from its beginning, to know what stands open.
        begin = (start.document, start.passage) if part == start.part else (0, 0)
        standing: SplitName | None = None
        length = 0
        for passage in passages(source.pieces(part, how, begin[0]), cut, sides.passage):
            if passage.ends and passage.number == 0 and not passage.text.strip():
                counts.empty += 1
                continue
            raw = encoded(passage, source, part)
            side = sides.side(sides.hashed(raw)[0])
            length += len(passage.text)
            if (passage.document, passage.number) >= begin:
                if standing is not None and standing != side:
                    texts[standing].append(None)
                texts[side].append(passage.text)
                if passage.ends:
                    texts[side].append(None)
                counts.add(passage, len(raw), length)
                size += len(passage.text)
            standing, length = (None, 0) if passage.ends else (side, length)
            if size >= BLOCK:
                after = Position(
                    source=start.source,
                    part=part,
                    document=passage.document + passage.ends,
                    passage=0 if passage.ends else passage.number + 1,
                )
                yield Block(source=source.name, texts=texts, after=after, counts=replace(counts))
                texts, size = _nothing(), 0
    end = Position(source=start.source + 1)
    yield Block(source=source.name, texts=texts, after=end, counts=counts)


def _nothing() -> dict[SplitName, list[str | None]]:
    return {name: [] for name in SPLITS}


def encoded(passage: Passage, source: Source, part: int) -> bytes:
    """Its UTF-8. Raises MoreishError where it holds half a character, and says where."""
    try:
        return passage.text.encode()
    except UnicodeEncodeError as error:
        raise MoreishError(
            f"{source.where(part)}, document {passage.document + 1:,} holds half a character "
            f"({passage.text[error.start]!r})"
        ) from None
