"""What `moreish doctor` finds and `moreish train` can mend: texts to better texts, read piece by
piece as before.

L lines of all texts.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moreish.data.text.decode import Text
from moreish.data.text.lines import CorpusKind, chosen_lines, short_lines
from moreish.settings import Settings
from moreish.tokenizers import code_points

REMARKABLE = 40
"""Characters of a line of running text that does not come twice by chance."""

HELD = 1 << 20
"""Characters after which a text is cut even where that may part an accent from its letter."""

CONTROL = "\x00-\x08\x0e-\x1b\x7f"
C1 = "\x80-\x84\x86-\x9f"
"""Control characters as well; but that they are seen is mostly a sign of a wrong encoding."""
INVISIBLE = (
    "\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\U000e0000-\U000e007f"
)
NON_PRINTING = re.compile(f"[{CONTROL}{C1}{INVISIBLE}]")

BREAKS = "\x0b\x0c\x1c-\x1f\x85\u2028\u2029"
"""Control characters that part words: lines, pages, records, paragraphs."""
PARTING = re.compile(f"[{BREAKS}]")

SPACES = "\u00a0\u2007\u202f"
"""At which no line may be broken. They look like any other."""
SPACE = re.compile(f"[{SPACES}]")

UNJOINING = (
    "(?<![\u0600-\u109f\u1700-\u18af\u1a00-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefe\ufe0f"
    "\u00a9\u00ae\u2190-\u2bff\U00010800-\U00011fff\U0001f000-\U0001faff])[\u200c\u200d]"
)
"""Joiners, and what prevents joining, but for those after letters of Arabic and Indic scripts, and
after pictures, where they tell how the next one is to be written."""
JOINER = re.compile(UNJOINING)

APART = re.compile("[\x00-\x7f\u3400-\u9fff]")
"""Characters that never become one with what stands before them."""


RUN = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u1ab0-\u1aff"
    "\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{100,})"
)
"""More marks on one letter than anybody writes: to put them into order takes quadratic time."""


def normalized(form: Literal["NFC", "NFD"], text: str) -> str:
    """In that form of Unicode, but for absurd runs of marks."""
    parts = RUN.split(text)
    parts[::2] = [unicodedata.normalize(form, part) for part in parts[::2]]
    return "".join(parts)


def is_composed(text: str) -> bool:
    """Whether it is in form C, but for absurd runs of marks."""
    return all(unicodedata.is_normalized("NFC", part) for part in RUN.split(text)[::2])


class CleaningOptions(Settings):
    """What is to be done to a text before it is learned from."""

    clean: bool = False
    """Leave out control characters, and such as cannot be seen; those between words become a line
    end or a space."""
    nfc: bool = False
    """Write each accented letter as one character (Unicode's form C)."""
    min_count: int = Field(1, ge=1)
    """Leave out characters that occur less often than this; of a list, the items they stand in."""
    dedup: bool = False
    """Keep one of each item of a list; of running text, of each line of 40 characters or more."""


def clean_texts(
    texts: list[Text], how: CleaningOptions, kind: CorpusKind
) -> tuple[list[Text], list[str]]:
    """The texts, mended whenever they are gone through, and what is done to them, in words. What
    takes counts reads them here first."""
    done = []
    if how.clean:
        parting = " " if kind == "lines" else "\n"
        texts = [_through(text, partial(_cleaned, parting)) for text in texts]
        done.append("left out control and invisible characters")
    if how.nfc:
        texts = [_through(text, _composed) for text in texts]
        done.append("wrote accented letters as one character each (NFC)")
    if how.dedup:
        texts, copies = _once(texts, 1 if kind == "lines" else REMARKABLE)
        done.append(f"left out copies: {copies:,}")
    if how.min_count > 1:
        first = rare = _rare(texts, how.min_count, kind)
        times = 0
        while rare.characters:  # leaving items out may make others rare
            without = _without_items if kind == "lines" else _without_characters
            texts = [_through(text, partial(without, rare.characters)) for text in texts]
            times += rare.times
            rare = _rare(texts, how.min_count, kind)
        is_list = kind == "lines"
        things = "items with characters" if is_list else "characters"
        count = first.items - rare.items if is_list else times
        done.append(f"left out {things} that occur fewer than {how.min_count} times: {count:,}")
    return texts, done


def _through(text: Text, change: Callable[[Iterable[str]], Iterator[str]]) -> Text:
    return Text(lambda: change(text), text.name)


def _cleaned(parting: str, pieces: Iterable[str]) -> Iterator[str]:
    """What parts words becomes `parting`. The last character is held back, and a joiner with what
    stands before it: from that is seen whether it joins something."""
    held = ""
    for piece in pieces:
        piece = SPACE.sub(" ", PARTING.sub(parting, NON_PRINTING.sub("", piece)))
        piece = JOINER.sub("", held + piece)
        cut = -2 if piece.endswith(("\u200c", "\u200d")) else -1
        yield piece[:cut]
        held = piece[cut:]
    yield held


def _composed(pieces: Iterable[str]) -> Iterator[str]:
    """In form C. A piece is held back from its last character on that begins something new."""
    held = ""
    for piece in pieces:
        held += piece
        last = next((n for n in range(len(held) - 1, -1, -1) if APART.match(held[n])), 0)
        if last == 0 and len(held) > HELD:
            last = len(held)
        yield normalized("NFC", held[:last])
        held = held[last:]
    yield normalized("NFC", held)


class Rare(NamedTuple):
    """Characters that occur too seldom."""

    characters: str
    times: int
    """How often they occur, all together."""
    items: int
    """How many there are in a list, with them."""


def _rare(texts: list[Text], least: int, kind: CorpusKind) -> Rare:
    """The characters that occur less often in all texts; a line end never is one, nor what stands
    around items, which is left out anyway."""
    counts = np.zeros(0x110000, np.int64)
    items = 0
    for text in texts:
        pieces: Iterable[tuple[str, int]] = ((piece, 0) for piece in text)
        if kind == "lines":
            pieces = _items(text)
        for piece, ended in pieces:
            found = np.bincount(code_points(piece))
            counts[: len(found)] += found
            items += ended
    counts[ord("\n")] = 0
    rare = np.flatnonzero((counts > 0) & (counts < least))
    return Rare("".join(map(chr, rare.tolist())), int(counts[rare].sum()), items)


def _items(text: Text) -> Iterator[tuple[str, int]]:
    """Lines without white space around them, and how many items end there."""
    for lines, goes_on in short_lines(text):
        stripped = list(map(str.strip, lines))
        yield "\n".join(stripped), sum(map(bool, stripped[: len(lines) - goes_on]))


def _without_characters(rare: str, pieces: Iterable[str]) -> Iterator[str]:
    gone = str.maketrans("", "", rare)
    return (piece.translate(gone) for piece in pieces)


def _without_items(rare: str, pieces: Iterable[str]) -> Iterator[str]:
    """A name without one of its letters would be another name."""
    gone = frozenset(rare)
    return chosen_lines(pieces, lambda line: gone.isdisjoint(line.strip()))


def _once(texts: list[Text], least: int) -> tuple[list[Text], int]:
    """Of all texts together, each line of so many characters once: where it stands first. And how
    many go."""
    hashes_L = [np.fromiter(_hashes(text, least), np.int64) for text in texts]
    new_L = np.zeros(sum(map(len, hashes_L)), bool)
    new_L[np.unique(np.concatenate(hashes_L), return_index=True)[1]] = True
    ends = np.cumsum([len(hashes) for hashes in hashes_L])[:-1]
    chosen = [
        _through(text, partial(_chosen, new, least))
        for text, new in zip(texts, np.split(new_L, ends), strict=True)
    ]
    return chosen, int((~new_L).sum())


def _hashes(text: Iterable[str], least: int) -> Iterator[int]:
    """Of each line that is long enough, without white space around it."""
    inside = False
    for lines, goes_on in short_lines(text):
        for line in lines[inside : len(lines) - goes_on]:
            if len(key := line.strip()) >= least:
                yield hash(key)
        inside = goes_on


def _chosen(new_L: NDArray[np.bool_], least: int, pieces: Iterable[str]) -> Iterator[str]:
    """The lines that `new_L` marks, which has an entry for each that is long enough."""
    marks = iter(new_L.tolist())
    # A text that has grown meanwhile keeps the rest; what notices changes comes later.
    return chosen_lines(pieces, lambda line: len(line.strip()) < least or next(marks, True))
