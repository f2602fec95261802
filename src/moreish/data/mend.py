"""What `moreish doctor` finds and `moreish train` can mend: texts to better texts, read piece by
piece as before.

L lines of all texts.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moreish.data.decode import Text
from moreish.data.lines import Kind, chosen_lines, short_lines
from moreish.settings import Settings
from moreish.tokenizers.char import code_points

REMARKABLE = 40
"""Characters of a line of running text that does not come twice by chance."""

HELD = 1 << 20
"""Characters after which a text is cut even where that may part an accent from its letter."""

CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
INVISIBLE = "\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069"
UNWANTED = re.compile(f"[{CONTROL}{INVISIBLE}]")

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


class Mending(Settings):
    """What is to be done to a text before it is learned from."""

    clean: bool = False
    """Leave out control characters, and such as cannot be seen."""
    nfc: bool = False
    """Write each accented letter as one character (Unicode's form C)."""
    min_count: int = Field(1, ge=1)
    """Leave out characters that occur less often than this; of a list, the items they stand in."""
    dedup: bool = False
    """Keep one of each item of a list; of running text, of each line of 40 characters or more."""


def mended(texts: list[Text], how: Mending, kind: Kind) -> list[Text]:
    """The texts, mended whenever they are gone through. What takes counts reads them here first."""
    if how.clean:
        texts = [_through(text, _cleaned) for text in texts]
    if how.nfc:
        texts = [_through(text, _composed) for text in texts]
    if how.dedup:
        texts = _once(texts, 1 if kind == "lines" else REMARKABLE)
    if how.min_count > 1:
        # Leaving items out may make other characters rare.
        while rare := _rare(texts, how.min_count, kind):
            without = _without_items if kind == "lines" else _without_characters
            texts = [_through(text, partial(without, rare)) for text in texts]
    return texts


def _through(text: Text, change: Callable[[Iterable[str]], Iterator[str]]) -> Text:
    return Text(lambda: change(text), text.name)


def _cleaned(pieces: Iterable[str]) -> Iterator[str]:
    return (UNWANTED.sub("", piece) for piece in pieces)


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


def _rare(texts: list[Text], least: int, kind: Kind) -> str:
    """The characters that occur less often in all texts; a line end never is one, nor what stands
    around items, which is left out anyway."""
    counts = np.zeros(0x110000, np.int64)
    for text in texts:
        pieces: Iterable[str] = text
        if kind == "lines":
            pieces = ("\n".join(map(str.strip, lines)) for lines, _ in short_lines(text))
        for piece in pieces:
            found = np.bincount(code_points(piece))
            counts[: len(found)] += found
    counts[ord("\n")] = 0
    return "".join(map(chr, np.flatnonzero((counts > 0) & (counts < least)).tolist()))


def _without_characters(rare: str, pieces: Iterable[str]) -> Iterator[str]:
    gone = str.maketrans("", "", rare)
    return (piece.translate(gone) for piece in pieces)


def _without_items(rare: str, pieces: Iterable[str]) -> Iterator[str]:
    """A name without one of its letters would be another name."""
    gone = frozenset(rare)
    return chosen_lines(pieces, lambda line: gone.isdisjoint(line.strip()))


def _once(texts: list[Text], least: int) -> list[Text]:
    """Of all texts together, each line of so many characters once: where it stands first."""
    hashes_L = [np.fromiter(_hashes(text, least), np.int64) for text in texts]
    new_L = np.zeros(sum(map(len, hashes_L)), bool)
    new_L[np.unique(np.concatenate(hashes_L), return_index=True)[1]] = True
    ends = np.cumsum([len(hashes) for hashes in hashes_L])[:-1]
    return [
        _through(text, partial(_chosen, new, least))
        for text, new in zip(texts, np.split(new_L, ends), strict=True)
    ]


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
