"""Documents in chunks, each assigned to a split by its hash, and read in blocks."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from moreish.data.shards.readers import Piece
from moreish.data.shards.sources import Source
from moreish.data.split import SPLITS, SplitName
from moreish.errors import MoreishError
from moreish.settings import Settings

MAX_CHUNK_CHARACTERS = 1 << 13
"""Chunk size of a large text: several windows of most models."""

MIN_CHUNK_CHARACTERS = 1 << 10
"""Chunk size of a small text."""

TARGET_CHUNKS = 256
"""Number of chunks that a text should have if they need not be smaller than the minimum for that:
with few of them, chance decides how much is held out."""

MAX_UNCUT_CHARACTERS = 1 << 20
"""Length of text that is cut anywhere if the tokenizer finds no place to cut it."""

BLOCK_CHARACTERS = 1 << 20
"""Amount of text that is encoded as one task, in about a tenth of a second."""

CutFunction = Callable[[str], int]
"""The last place where a text may be cut, as `Tokenizer.cut`; 0 if there is none."""


class Chunk(NamedTuple):
    """A part of a document, or all of it."""

    document: int
    number: int
    """Index among the chunks of its document."""
    text: str
    is_last: bool


def chunk_characters(text_bytes: int) -> int:
    """Return the chunk size, in characters, for a text of about `text_bytes` bytes."""
    return min(MAX_CHUNK_CHARACTERS, max(MIN_CHUNK_CHARACTERS, text_bytes // TARGET_CHUNKS))


def split_into_chunks(pieces: Iterable[Piece], cut: CutFunction, size: int) -> Iterator[Chunk]:
    """Cut every document into chunks, which depend only on the document.

    Args:
        pieces: the documents.
        cut: where a text may be cut.
        size: largest chunk in characters; one is longer where there is no place to cut.
    """
    pending: list[str] = []
    length = number = 0
    for document, text, ends in pieces:
        if ends and not pending and number == 0 and len(text) <= size:
            yield Chunk(document, 0, text, True)
            continue
        pending.append(text)
        length += len(text)
        if length <= size and not ends:
            continue
        joined, start, reach = "".join(pending), 0, size
        while len(joined) - start > reach:
            end = cut(joined[start : start + reach])
            if end == 0 and reach < MAX_UNCUT_CHARACTERS:
                reach *= 2
                continue
            end = end or reach
            yield Chunk(document, number, joined[start : start + end], False)
            start, number, reach = start + end, number + 1, size
        if ends:
            yield Chunk(document, number, joined[start:], True)
            pending, length, number = [], 0, 0
        else:
            pending = [joined[start:]]
            length = len(pending[0])


@dataclass(frozen=True, kw_only=True)
class HashSplitter:
    """Assigns chunks to splits by their hash, so that equal chunks are in the same split."""

    share: float
    """Fraction of the text for each of validation and test."""
    seed: int
    chunk_characters: int = MAX_CHUNK_CHARACTERS

    def hash(self, raw: bytes) -> tuple[float, float]:
        """Return two independent numbers in [0, 1) that depend only on the bytes and the seed."""
        digest = hashlib.blake2b(raw, digest_size=16, key=self.seed.to_bytes(8, "little")).digest()
        return int.from_bytes(digest[:8]) / 2**64, int.from_bytes(digest[8:]) / 2**64

    def split_of(self, hashed: float) -> SplitName:
        """Return the split of a chunk, from the first number of its hash."""
        return SPLITS[1] if hashed < self.share else SPLITS[2 if hashed < 2 * self.share else 0]


class SourceCounts(Settings, frozen=False):
    """What was read of a source; the fields are stored under these names."""

    documents: int = 0
    empty: int = 0
    """Number of documents without text, which are skipped."""
    passages: int = 0
    """Number of chunks."""
    characters: int = 0
    bytes: int = 0
    shortest: int = 0
    """Length of the shortest document in characters."""
    longest: int = 0

    def add(self, chunk: Chunk, size: int, length: int) -> None:
        """Count a chunk.

        Args:
            chunk: the chunk.
            size: its size in bytes.
            length: characters of its document up to its end.
        """
        self.passages += 1
        self.characters += len(chunk.text)
        self.bytes += size
        if chunk.is_last:
            self.documents += 1
            self.shortest = min(self.shortest or length, length)
            self.longest = max(self.longest, length)


class ReadPosition(Settings):
    """The next chunk to read; the fields are stored under these names."""

    source: int = 0
    part: int = 0
    document: int = 0
    passage: int = 0
    """Index of the chunk in its document."""


class Block(NamedTuple):
    """Consecutive chunks of one source, by split."""

    source: str
    texts: dict[SplitName, list[str | None]]
    """The chunks of each split in order; None is a boundary between documents."""
    next_position: ReadPosition
    counts: SourceCounts
    """What was read of the source from its start up to the end of the block."""


def read_blocks(
    sources: list[Source],
    cut: CutFunction,
    splitter: HashSplitter,
    position: ReadPosition,
    counts: Mapping[str, SourceCounts],
) -> Iterator[Block]:
    """Read all chunks from a position on.

    In each split, consecutive chunks of a document stay together and are followed by a boundary.

    Args:
        sources: what to read.
        cut, splitter: how to cut documents, and how to split the chunks.
        position: where to start.
        counts: what was read of each source before, by name.
    """
    for number, source in enumerate(sources[position.source :], position.source):
        counted = counts.get(source.name, SourceCounts()).model_copy()
        yield from _read_source(source, cut, splitter, position, counted)
        position = ReadPosition(source=number + 1)


def _read_source(
    source: Source,
    cut: CutFunction,
    splitter: HashSplitter,
    start: ReadPosition,
    counts: SourceCounts,
) -> Iterator[Block]:
    texts, size = _no_texts(), 0
    for part in range(start.part, source.parts):
        # A partly read document is read again from its start, to know which split is open.
        first = (start.document, start.passage) if part == start.part else (0, 0)
        open_split: SplitName | None = None
        length = 0
        pieces = source.pieces(part, first[0])
        for chunk in split_into_chunks(pieces, cut, splitter.chunk_characters):
            if chunk.is_last and chunk.number == 0 and not chunk.text.strip():
                counts.empty += 1
                continue
            raw = encode_utf8(chunk, source, part)
            split = splitter.split_of(splitter.hash(raw)[0])
            length += len(chunk.text)
            if (chunk.document, chunk.number) >= first:
                if open_split is not None and open_split != split:
                    texts[open_split].append(None)
                texts[split].append(chunk.text)
                if chunk.is_last:
                    texts[split].append(None)
                counts.add(chunk, len(raw), length)
                size += len(chunk.text)
            open_split, length = (None, 0) if chunk.is_last else (split, length)
            if size >= BLOCK_CHARACTERS:
                after = ReadPosition(
                    source=start.source,
                    part=part,
                    document=chunk.document + chunk.is_last,
                    passage=0 if chunk.is_last else chunk.number + 1,
                )
                yield Block(source.name, texts, after, counts.model_copy())
                texts, size = _no_texts(), 0
    yield Block(source.name, texts, ReadPosition(source=start.source + 1), counts)


def _no_texts() -> dict[SplitName, list[str | None]]:
    return {name: [] for name in SPLITS}


def encode_utf8(chunk: Chunk, source: Source, part: int) -> bytes:
    """Return the UTF-8 of a chunk.

    Raises:
        MoreishError: it holds a lone surrogate; the message says where.
    """
    try:
        return chunk.text.encode()
    except UnicodeEncodeError as error:
        raise MoreishError(
            f"{source.part_name(part)}, document {chunk.document + 1:,} is not valid Unicode: it "
            f"holds a lone surrogate ({chunk.text[error.start]!r})"
        ) from None
