"""Cleans texts while they are read: the fixes for what `moreish doctor` finds.

Array suffix: L lines of all texts that are long enough to be compared.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moreish.data.text.decode import Text
from moreish.data.text.lines import CorpusKind, bounded_lines, filter_lines
from moreish.settings import Settings
from moreish.tokenizers import code_points

MIN_UNIQUE_LINE = 40
"""Characters from which a line of running text is unlikely to occur twice by chance."""

MAX_HELD_CHARACTERS = 1 << 20
"""Characters after which a text is cut even between a letter and its accent."""

CONTROL = "\x00-\x08\x0e-\x1b\x7f"
C1 = "\x80-\x84\x86-\x9f"
"""More control characters, which mostly are a sign of a wrong encoding."""
INVISIBLE = (
    "\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\U000e0000-\U000e007f"
)
NON_PRINTING = re.compile(f"[{CONTROL}{C1}{INVISIBLE}]")

BLACK_FLAG = "\U0001f3f4"
TAG_FLAG = f"{BLACK_FLAG}[\U000e0020-\U000e007e]{{1,30}}\U000e007f"
"""The flag of a part of a country, such as Scotland: its invisible tags are part of the emoji
(Unicode Technical Standard 51, ED-14a)."""
MAX_TAG_FLAG = 32
NON_PRINTING_OR_FLAG = re.compile(f"({TAG_FLAG})|{NON_PRINTING.pattern}")

BREAKS = "\x0b\x0c\x1c-\x1f\x85\u2028\u2029"
"""Control characters that separate words: of lines, pages, records and paragraphs."""
BREAK = re.compile(f"[{BREAKS}]")

SPACES = "\u00a0\u2007\u202f"
"""No-break spaces, which look like any other space."""
SPACE = re.compile(f"[{SPACES}]")

STRAY_JOINERS = (
    "(?<![\u0600-\u109f\u1700-\u18af\u1a00-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefe\ufe0f"
    "\u00a9\u00ae\u2190-\u2bff\U00010800-\U00011fff\U0001f000-\U0001faff])[\u200c\u200d]"
)
"""Zero-width joiners and non-joiners, except after Arabic and Indic letters and after emoji, where
they change how the next character is drawn."""
STRAY_JOINER = re.compile(STRAY_JOINERS)

NEVER_COMBINES = re.compile("[\x00-\x7f\u3400-\u9fff]")
"""Characters that normalization never combines with the ones before them."""

LONG_MARKS = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff"
    "\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{100,})"
)
"""A run of 100 or more combining marks: no text needs it, and normalizing takes quadratic time."""


def normalize(form: Literal["NFC", "NFD"], text: str) -> str:
    """Return `text` in a Unicode normal form, except for `LONG_MARKS`."""
    parts = LONG_MARKS.split(text)
    parts[::2] = [unicodedata.normalize(form, part) for part in parts[::2]]
    return "".join(parts)


def is_composed(text: str) -> bool:
    """Return whether `text` is in form NFC, except for `LONG_MARKS`."""
    return all(unicodedata.is_normalized("NFC", part) for part in LONG_MARKS.split(text)[::2])


class CleaningOptions(Settings):
    """What to change in a text before training on it."""

    clean: bool = False
    """Remove control and invisible characters; those between words become a line end or a space."""
    nfc: bool = False
    """Write each accented letter as one character (Unicode normal form NFC)."""
    min_count: int = Field(1, ge=1)
    """Remove characters that occur fewer times than this; in a list, the items that have them."""
    dedup: bool = False
    """Keep the first of equal items; in running text, of equal lines of 40 characters or more."""


def clean_texts(
    texts: list[Text], options: CleaningOptions, kind: CorpusKind
) -> tuple[list[Text], list[str]]:
    """Apply `options` to some texts.

    Returns:
        The cleaned texts, which are cleaned again on every iteration, and notes on the changes.
        `dedup` and `min_count` read all texts here to count.
    """
    notes = []
    if options.clean:
        separator = " " if kind == "lines" else "\n"
        texts = [_map_chunks(text, partial(_remove_invisible, separator)) for text in texts]
        notes.append("left out control and invisible characters")
    if options.nfc:
        texts = [replace(_map_chunks(t, _compose), first_line=t.first_line) for t in texts]
        notes.append("wrote accented letters as one character each (NFC)")
    if options.dedup:
        texts, count = _remove_duplicates(texts, 1 if kind == "lines" else MIN_UNIQUE_LINE)
        notes.append(f"left out duplicates: {count:,}")
    if options.min_count > 1:
        texts, count = _remove_rare(texts, options.min_count, kind)
        things = "items with characters" if kind == "lines" else "characters"
        notes.append(
            f"left out {things} that occur fewer than {options.min_count} times: {count:,}"
        )
    return texts, notes


def _map_chunks(text: Text, change: Callable[[Iterable[str]], Iterator[str]]) -> Text:
    """Return a changed text, whose lines need not be those of its file."""
    return Text(lambda: change(text), text.name, first_line=None)


def _remove_invisible(separator: str, chunks: Iterable[str]) -> Iterator[str]:
    """Remove `NON_PRINTING` characters and stray joiners; replace `BREAKS` by `separator`.

    The last character is held back, and a joiner with the character before it, because what a
    joiner joins may be in the next chunk. So is the beginning of a `TAG_FLAG`.
    """
    held = flag = ""
    for chunk in chain(chunks, [None]):
        is_last, chunk = chunk is None, flag + (chunk or "")
        at = chunk.find(BLACK_FLAG, max(0, len(chunk) - MAX_TAG_FLAG))
        at = len(chunk) if at < 0 or is_last else at
        chunk, flag = chunk[:at], chunk[at:]
        chunk = NON_PRINTING_OR_FLAG.sub(r"\1", chunk)
        chunk = STRAY_JOINER.sub("", held + SPACE.sub(" ", BREAK.sub(separator, chunk)))
        cut = -2 if chunk.endswith(("\u200c", "\u200d")) else -1
        yield chunk[:cut]
        held = chunk[cut:]
    yield held


def _compose(chunks: Iterable[str]) -> Iterator[str]:
    """Normalize to NFC. Each chunk is held back from its last character that combines with no
    earlier one."""
    held = ""
    for chunk in chunks:
        held += chunk
        last = next((n for n in range(len(held) - 1, -1, -1) if NEVER_COMBINES.match(held[n])), 0)
        if last == 0 and len(held) > MAX_HELD_CHARACTERS:
            last = len(held)
        yield normalize("NFC", held[:last])
        held = held[last:]
    yield normalize("NFC", held)


def _remove_rare(texts: list[Text], min_count: int, kind: CorpusKind) -> tuple[list[Text], int]:
    """Remove rare characters, or the items that have them; return how many of these there were."""
    rare, num_rare, num_items = _find_rare(texts, min_count, kind)
    num_items_before, num_characters = num_items, 0
    while rare:  # removing items may make other characters rare
        remove = _remove_items if kind == "lines" else _remove_characters
        texts = [_map_chunks(text, partial(remove, rare)) for text in texts]
        num_characters += num_rare
        rare, num_rare, num_items = _find_rare(texts, min_count, kind)
    return texts, num_items_before - num_items if kind == "lines" else num_characters


def _find_rare(texts: list[Text], min_count: int, kind: CorpusKind) -> tuple[str, int, int]:
    """Find the characters that occur fewer times than `min_count` in all texts.

    Line ends never are rare, nor is whitespace around items, which reading strips anyway.

    Returns:
        The characters, the number of their occurrences, and of all items of a list.
    """
    counts = np.zeros(0x110000, np.int64)
    items = 0
    for text in texts:
        chunks = _stripped_items(text) if kind == "lines" else ((chunk, 0) for chunk in text)
        for chunk, num_items in chunks:
            found = np.bincount(code_points(chunk))
            counts[: len(found)] += found
            items += num_items
    counts[ord("\n")] = 0
    rare = np.flatnonzero((counts > 0) & (counts < min_count))
    return "".join(map(chr, rare.tolist())), int(counts[rare].sum()), items


def _stripped_items(text: Text) -> Iterator[tuple[str, int]]:
    """Yield lines without surrounding whitespace, and how many items end in them."""
    for lines, ends_inside in bounded_lines(text):
        stripped = list(map(str.strip, lines))
        yield "\n".join(stripped), sum(map(bool, stripped[: len(lines) - ends_inside]))


def _remove_characters(rare: str, chunks: Iterable[str]) -> Iterator[str]:
    table = str.maketrans("", "", rare)
    return (chunk.translate(table) for chunk in chunks)


def _remove_items(rare: str, chunks: Iterable[str]) -> Iterator[str]:
    """Remove whole items: a name without one of its letters would be another name."""
    characters = frozenset(rare)
    return filter_lines(chunks, lambda line: characters.isdisjoint(line.strip()))


def _remove_duplicates(texts: list[Text], min_length: int) -> tuple[list[Text], int]:
    """Keep the first of equal lines, in all texts together; return how many are removed."""
    hashes_L = [np.fromiter(_line_hashes(text, min_length), np.int64) for text in texts]
    is_first_L = np.zeros(sum(map(len, hashes_L)), bool)
    is_first_L[np.unique(np.concatenate(hashes_L), return_index=True)[1]] = True
    ends = np.cumsum([len(hashes) for hashes in hashes_L])[:-1]
    kept = [
        _map_chunks(text, partial(_keep_marked, is_first, min_length))
        for text, is_first in zip(texts, np.split(is_first_L, ends), strict=True)
    ]
    return kept, int((~is_first_L).sum())


def _line_hashes(text: Iterable[str], min_length: int) -> Iterator[int]:
    """Yield the hash of each line that is long enough, without surrounding whitespace."""
    starts_inside = False
    for lines, ends_inside in bounded_lines(text):
        for line in lines[starts_inside : len(lines) - ends_inside]:
            if len(key := line.strip()) >= min_length:
                yield hash(key)
        starts_inside = ends_inside


def _keep_marked(
    is_kept_L: NDArray[np.bool_], min_length: int, chunks: Iterable[str]
) -> Iterator[str]:
    """Yield the lines that are marked; shorter ones than `min_length` have no mark and stay."""
    marks = iter(is_kept_L.tolist())
    # Lines that were added to the file meanwhile stay; a later check refuses the changed text.
    return filter_lines(chunks, lambda line: len(line.strip()) < min_length or next(marks, True))
