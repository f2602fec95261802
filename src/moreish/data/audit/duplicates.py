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

from moreish.data.audit.checks import Check, Finding, Found, Scope, Seen, in_percent
from moreish.data.split import split_items_as_lecture
from moreish.data.text import REMARKABLE, normalized

REMEMBERED = 1 << 19
"""Lines that are remembered to find their copies, and as many to find what nearly is one. Of more,
an even sample stands for all."""

OFTEN = 10
"""So many copies of a line count for much: chance alone must not decide whether it is known."""

KEY, LINE, CHOICE, STANDS_FOR, PLACE, AGAIN, MORE, HELD, HELD_AT = range(9)
"""What a `Sample` keeps of lines with one key: the key, what tells them apart, a number that
chooses some keys, of how many keys this one is what is left, where the first line stands and where
one that is another (`NOWHERE`: nowhere), how many others there are, how many lines are held out,
and where the first of those stands."""

NOWHERE = np.iinfo(np.int64).max


class Sample:
    """Lines with the same key are one row. When those are too many, a key is kept or forgotten by
    a number that is as good as drawn, unless it is one of many lines; and what is kept counts for
    what is forgotten."""

    def __init__(self) -> None:
        self.rows = [np.zeros((0, 9), np.int64)]
        self.kept = 0
        self.every = 1
        """Of so many keys one is kept."""
        self.held = np.zeros(0, np.int64)
        """Keys that are kept although they are not chosen, in order."""

    def add(self, rows_L9: NDArray[np.int64]) -> None:
        """One row for each line."""
        chosen_L = rows_L9[:, CHOICE] % self.every == 0
        if len(self.held):
            at = np.searchsorted(self.held, rows_L9[:, KEY]).clip(max=len(self.held) - 1)
            chosen_L |= self.held[at] == rows_L9[:, KEY]
        rows_L9 = rows_L9[chosen_L]
        rows_L9[:, STANDS_FOR] = self.every
        self.rows.append(rows_L9)
        self.kept += len(rows_L9)
        if self.kept > 2 * REMEMBERED:
            self._forget()

    def _forget(self) -> None:
        """Lines with one key become one row, and then every second key goes until there are few
        enough."""
        rows_L9 = self.merged()
        while len(rows_L9) > REMEMBERED:
            self.every *= 2
            often_L = rows_L9[:, MORE] >= OFTEN * self.every
            rows_L9 = rows_L9[often_L | (rows_L9[:, CHOICE] % self.every == 0)]
            often_L = rows_L9[:, MORE] >= OFTEN * self.every
            rows_L9[~often_L, STANDS_FOR] = self.every
        self.rows, self.kept = [rows_L9], len(rows_L9)
        self.held = np.sort(rows_L9[rows_L9[:, CHOICE] % self.every > 0, KEY])

    def merged(self) -> NDArray[np.int64]:
        """A row for each key."""
        rows_L9 = np.concatenate(self.rows)
        if not len(rows_L9):
            return rows_L9
        rows_L9 = rows_L9[np.lexsort((rows_L9[:, PLACE], rows_L9[:, KEY]))]
        first = np.flatnonzero(np.append(True, rows_L9[1:, KEY] != rows_L9[:-1, KEY]))
        merged = rows_L9[first]
        other_L = rows_L9[:, LINE] != np.repeat(
            merged[:, LINE], np.diff(first, append=len(rows_L9))
        )
        merged[:, MORE] = np.add.reduceat(rows_L9[:, MORE] + other_L, first)
        merged[:, HELD] = np.add.reduceat(rows_L9[:, HELD], first)
        merged[:, HELD_AT] = np.minimum.reduceat(rows_L9[:, HELD_AT], first)
        again_L = np.where(other_L, rows_L9[:, PLACE], rows_L9[:, AGAIN])
        merged[:, AGAIN] = np.minimum.reduceat(again_L, first)
        return merged


class Copies(Check):
    """Lines that come more than once, word for word or nearly, and on both sides of a split."""

    def __init__(self, scope: Scope) -> None:
        self.kind = scope.kind
        self.same, self.near = Sample(), Sample()
        self.items = 0
        # Of a part, nobody can tell how it will be dealt out; else copies of an item stay together.
        self.held_from = math.inf
        self.held_items: NDArray[np.bool_] | None = None
        if scope.is_complete and scope.kind == "text":
            self.held_from = 0.9 * scope.characters
        elif scope.is_complete and scope.rule == "lecture" and scope.documents >= 10:
            self.held_items = np.ones(scope.documents, bool)
            self.held_items[split_items_as_lecture(scope.documents)["train"]] = False

    def see(self, seen: Seen) -> None:
        least = 1 if self.kind == "lines" else REMARKABLE
        places, stripped, held = [], [], []
        offset, last = seen.offset, len(seen.lines) - 1
        for number, line in enumerate(seen.lines):
            part = (seen.went_on and number == 0) or (seen.goes_on and number == last)
            if (text := line.strip()) and not part:
                if len(text) >= least:
                    places.append(seen.first + number)
                    stripped.append(text)
                    is_held = offset >= self.held_from
                    if self.held_items is not None:
                        is_held = bool(self.held_items[self.items])
                    held.append(is_held)
                self.items += 1
            offset += len(line) + 1
        rows_L9 = np.zeros((len(places), 9), np.int64)
        rows_L9[:, PLACE] = places
        rows_L9[:, AGAIN] = NOWHERE
        rows_L9[:, HELD] = held
        rows_L9[:, HELD_AT] = np.where(held, rows_L9[:, PLACE], NOWHERE)
        _set_key(rows_L9, stripped)
        exact_L = rows_L9[:, KEY].copy()
        rows_L9[:, LINE] = rows_L9[:, PLACE]  # each of equal lines is another one
        self.same.add(rows_L9)
        # Signs alone have to be the same.
        _set_key(rows_L9, [_plain(text) or text for text in stripped])
        rows_L9[:, LINE] = exact_L
        self.near.add(rows_L9)

    def found(self) -> Iterator[Found]:
        rows_L9 = self.same.merged()
        things = "lines" if self.kind == "lines" else f"lines of {REMARKABLE} characters or more"
        stands_for_L, more_L, held_L = (rows_L9[:, c] for c in (STANDS_FOR, MORE, HELD))

        def finding(name: str, what: str, count: int, place: int, **more: Any) -> Found:
            about = (self.near if name == "near copies" else self.same).every > 1
            return Found(
                Finding(name=name, description=what, count=count, is_estimate=about, **more), place
            )

        if again := int(stands_for_L @ more_L):
            place = int(rows_L9[:, AGAIN].min())
            severe = self.kind == "text" and again > int(stands_for_L @ (more_L + 1)) / 10
            what = f"{things} that stood there before"
            yield finding(
                "copies",
                what,
                again,
                place,
                fix="--dedup",
                severity="warning" if severe else "note",
            )
        near_L9 = self.near.merged()
        if later := int(near_L9[:, STANDS_FOR] @ near_L9[:, MORE]):
            differ = "differ from an earlier one only in capitals, accents, digits or signs"
            place = int(near_L9[:, AGAIN].min())
            yield finding("near copies", f"{things} that {differ}", later, place)
        leaked_L = (held_L > 0) & (held_L <= more_L)
        if count := int(stands_for_L[leaked_L] @ held_L[leaked_L]):
            place = int(rows_L9[leaked_L, HELD_AT].min())
            share = count / int(stands_for_L @ held_L)
            text = self.kind == "text"
            where = "the last tenth, which is held out," if text else "validation and test"
            what = f"{things} of {where} that are in training too, {in_percent(share)} of them"
            fix = "--dedup" if text else "--split seeded"
            yield finding(
                "leakage",
                what,
                count,
                place,
                fix=fix,
                severity="warning" if share > 0.05 else "note",
            )


def _set_key(rows_L9: NDArray[np.int64], keys: list[str]) -> None:
    rows_L9[:, KEY] = np.fromiter(map(hash, keys), np.int64, len(keys))
    # The same lines each time: Python's own hashes differ from process to process.
    rows_L9[:, CHOICE] = [zlib.crc32(key.encode("utf-8", "replace")) for key in keys]


def _plain(line: str) -> str:
    """A line without what does not matter: capitals, accents, digits, signs, spaces."""
    folded = line.casefold()
    if not folded.isascii():
        folded = normalized("NFD", folded)
    return NO_LETTER.sub("", folded)


NO_LETTER = re.compile(r"[\s\d_!-/:-@\[-`{-~\u00a0-\u00bf\u0300-\u036f\u2000-\u206f\u3000-\u303f]+")
"""Marks of other scripts are vowels, which do matter."""
