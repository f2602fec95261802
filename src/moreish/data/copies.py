"""Lines that come more than once: what the doctor keeps of each line to find them.

L lines.
"""

import math
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moreish.data.checks import Check, Finding, Found, Scope, Seen, in_percent
from moreish.data.mend import REMARKABLE, normalized
from moreish.data.split import split_items_as_lecture

REMEMBERED = 1 << 20
"""Lines that are remembered to find their copies. Of more, an even sample stands for all."""

NEAR, EXACT, PLACE, AGAIN, LENGTH, CHOICE, TRAIN, HELD, HELD_AT = range(9)
"""What `Copies` keeps of a line: the hash of what matters of it, its own hash, where it stands
first and where again (`NOWHERE`: nowhere), its length, a number that chooses some lines, how often
it stands in training and in what is held out, and where it stands there first."""

NOWHERE = np.iinfo(np.int64).max


class Copies(Check):
    """Lines that come more than once, word for word or nearly, and on both sides of a split."""

    def __init__(self, scope: Scope) -> None:
        self.kind = scope.kind
        self.rows = [np.zeros((0, 9), np.int64)]
        self.kept = self.items = 0
        self.every = 1
        """Of so many different lines one is kept, chosen by what matters of it."""
        # Of a part, nobody can tell how it will be dealt out; else copies of an item stay together.
        self.held_from = math.inf
        self.held_items: NDArray[np.bool_] | None = None
        if scope.whole and scope.kind == "text":
            self.held_from = 0.9 * scope.characters
        elif scope.whole and scope.rule == "lecture" and scope.documents >= 10:
            self.held_items = np.ones(scope.documents, bool)
            self.held_items[split_items_as_lecture(scope.documents)["train"]] = False

    def see(self, seen: Seen) -> None:
        places, stripped, held = [], [], []
        offset, last = seen.offset, len(seen.lines) - 1
        for number, line in enumerate(seen.lines):
            part = (seen.went_on and number == 0) or (seen.goes_on and number == last)
            if (text := line.strip()) and not part:
                places.append(seen.first + number)
                stripped.append(text)
                held.append(offset >= self.held_from)
            offset += len(line) + 1
        count = len(places)
        if self.held_items is not None:
            held = self.held_items[self.items : self.items + count].tolist()
        self.items += count
        plain = [_plain(text) or text for text in stripped]  # signs alone have to be the same
        rows_L9 = np.zeros((count, 9), np.int64)
        rows_L9[:, NEAR] = np.fromiter(map(hash, plain), np.int64, count)
        rows_L9[:, EXACT] = np.fromiter(map(hash, stripped), np.int64, count)
        rows_L9[:, PLACE] = places
        rows_L9[:, AGAIN] = NOWHERE
        rows_L9[:, LENGTH] = np.fromiter(map(len, stripped), np.int64, count)
        rows_L9[:, CHOICE] = [zlib.crc32(text.encode("utf-8", "replace")) for text in plain]
        rows_L9[:, HELD] = held
        rows_L9[:, TRAIN] = 1 - rows_L9[:, HELD]
        rows_L9[:, HELD_AT] = np.where(held, rows_L9[:, PLACE], NOWHERE)
        if self.kind == "text":
            rows_L9 = rows_L9[rows_L9[:, LENGTH] >= REMARKABLE]
        self.rows.append(rows_L9[rows_L9[:, CHOICE] % self.every == 0])
        self.kept += len(self.rows[-1])
        if self.kept > 2 * REMEMBERED:
            self._forget()

    def _forget(self) -> None:
        """Copies become one row, and then every second line goes until they are few enough."""
        rows_L9 = _merged(np.concatenate(self.rows))
        while len(rows_L9) > REMEMBERED:
            self.every *= 2
            rows_L9 = rows_L9[rows_L9[:, CHOICE] % self.every == 0]
        self.rows, self.kept = [rows_L9], len(rows_L9)

    def found(self) -> Iterator[Found]:
        rows_L9 = _merged(np.concatenate(self.rows))
        things = "lines" if self.kind == "lines" else f"lines of {REMARKABLE} characters or more"
        times_L = rows_L9[:, TRAIN] + rows_L9[:, HELD]

        def finding(name: str, what: str, count: int, place: int, **more: Any) -> Found:
            count, about = count * self.every, self.every > 1
            return Found(Finding(name=name, what=what, count=count, about=about, **more), place)

        if again := int((times_L - 1).sum()):
            place = int(rows_L9[:, AGAIN].min())
            grave = self.kind == "text" and again > int(times_L.sum()) / 10
            what = f"{things} that stood there before"
            yield finding("copies", what, again, place, mend="--dedup", grave=grave)
        later = _later(rows_L9)
        if len(later):
            differ = "differ from an earlier one only in capitals, accents, digits or signs"
            place = int(later[:, PLACE].min())
            yield finding("near copies", f"{things} that {differ}", len(later), place)
        leaked = rows_L9[(rows_L9[:, TRAIN] > 0) & (rows_L9[:, HELD] > 0)]
        if len(leaked):
            count, place = int(leaked[:, HELD].sum()), int(leaked[:, HELD_AT].min())
            share = count / int(rows_L9[:, HELD].sum())
            text = self.kind == "text"
            where = "the last tenth, which is held out," if text else "validation and test"
            what = f"{things} of {where} that are in training too, {in_percent(share)} of them"
            mend = "--dedup" if text else "--split seeded"
            yield finding("leakage", what, count, place, mend=mend, grave=share > 0.05)


def _merged(rows_L9: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of equal lines as one."""
    if not len(rows_L9):
        return rows_L9
    rows_L9 = rows_L9[np.lexsort((rows_L9[:, PLACE], rows_L9[:, EXACT]))]
    first = np.flatnonzero(np.append(True, rows_L9[1:, EXACT] != rows_L9[:-1, EXACT]))
    merged = rows_L9[first]
    for column in (TRAIN, HELD):
        merged[:, column] = np.add.reduceat(rows_L9[:, column], first)
    merged[:, HELD_AT] = np.minimum.reduceat(rows_L9[:, HELD_AT], first)
    # Where it stands again: the first row knows, or it is where the next row begins.
    last = np.append(first[1:], len(rows_L9))
    following = np.append(rows_L9[1:, PLACE], NOWHERE)[first]
    following[last - first == 1] = NOWHERE
    merged[:, AGAIN] = np.minimum(merged[:, AGAIN], following)
    return merged


def _later(rows_L9: NDArray[np.int64]) -> NDArray[np.int64]:
    """Different lines of which an earlier one is the same but for what does not matter."""
    rows_L9 = rows_L9[np.lexsort((rows_L9[:, PLACE], rows_L9[:, NEAR]))]
    return rows_L9[1:][rows_L9[1:, NEAR] == rows_L9[:-1, NEAR]]


def _plain(line: str) -> str:
    """A line without what does not matter: capitals, accents, digits, signs, spaces."""
    folded = line.casefold()
    if not folded.isascii():
        folded = normalized("NFD", folded)
    return NO_LETTER.sub("", folded)


NO_LETTER = re.compile(r"[\s\d_!-/:-@\[-`{-~\u00a0-\u00bf\u0300-\u036f\u2000-\u206f\u3000-\u303f]+")
"""Marks of other scripts are vowels, which do matter."""
