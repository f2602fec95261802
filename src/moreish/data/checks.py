"""What the doctor looks for: each check reads a text some lines at a time, in bounded memory.

L lines.
"""

import re
import sys
import unicodedata
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moreish.data.mend import CONTROL, INVISIBLE, REMARKABLE
from moreish.data.split import Rule, split_items_as_lecture
from moreish.data.text import Kind
from moreish.tokenizers.char import code_points

SHOWN = 60
"""Characters of an example."""

REMEMBERED = 1 << 20
"""Lines that are remembered to find their copies. Of more, an even sample stands for all."""

LONG_LINE = 10_000
"""Characters."""

RARE = 5
"""Occurrences below which a character is too rare to be learned."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that was found."""

    name: str
    what: str
    count: int
    about: bool = False
    """Whether the count is estimated from a sample."""
    where: str = ""
    """Of the example: its line, counted from 1, and its file where there are several."""
    example: str = ""
    mend: str = ""
    """What to add to `moreish train`."""
    grave: bool = False
    """Whether it spoils what a model learns, what its losses mean, or whom it exposes."""

    @property
    def sentence(self) -> str:
        """What, and how many."""
        return f"{self.what}: {'about ' if self.about else ''}{self.count:,}"


class Seen(NamedTuple):
    """Some lines, as the checks look at them."""

    lines: list[str]
    joined: str
    """With line ends between them."""
    points: frozenset[int]
    """The code points that occur."""
    goes_on: bool
    """Whether the last line is only a part, which goes on."""
    first: int
    """The number of the first line among all lines of all texts, from 0."""


class Found(NamedTuple):
    """A finding whose example is still the number of a line."""

    finding: Finding
    line: int | None = None


class Check(ABC):
    """Looks at a text, some lines at a time."""

    @abstractmethod
    def see(self, seen: Seen) -> None:
        """Some lines more."""

    @abstractmethod
    def found(self, kind: Kind) -> Iterator[Found]:
        """What there was, once everything has been seen."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Something that a regular expression finds."""

    name: str
    regex: re.Pattern[str]
    what: str
    """`{}` stands for the count."""
    points: frozenset[int] = frozenset()
    """Code points of which one occurs in all that it finds; none: that is not known."""
    hints: tuple[str, ...] = ()
    """Words, in small letters, of which one occurs in all that it finds; none: likewise."""
    holds: Callable[[str], bool] = lambda found: True
    """A closer look at what the expression found."""
    mend: str = ""
    grave: bool = False
    secret: bool = False
    """Whether the example must not show what was found."""


SMALL_POINTS = "".join(map(chr, [*range(0x3000), *range(0xFE00, 0x10000)]))


def _points(characters: str) -> frozenset[int]:
    """The code points of a class of characters, as regular expressions write it."""
    return frozenset(map(ord, re.findall(f"[{characters}]", SMALL_POINTS)))


def _doubly_encoded(text: str) -> bool:
    """Whether it is UTF-8 that somebody took for Windows-1252."""
    try:
        return text.encode("cp1252").decode("utf-8") != text
    except UnicodeError:
        return False


def _telephone(text: str) -> bool:
    """Groups of two to five digits, nine to fifteen in all, and no date."""
    groups = re.findall(r"\d+", text)
    dated = re.match(r"(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d\b", text)
    like = 3 <= len(groups) <= 6 and all(2 <= len(group) <= 5 for group in groups)
    return like and 9 <= sum(map(len, groups)) <= 15 and not dated


def _card(digits: str) -> bool:
    """The checksum of card numbers (Luhn)."""
    figures = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * figure, 10)) for figure in figures[-2::-2]]
    return len(figures) >= 13 and (sum(doubled) + sum(figures[::-2])) % 10 == 0


def _secret(text: str) -> bool:
    """A key of a known form, or a value that is no plain word."""
    name, _, value = text.replace("=", ":", 1).partition(":")
    return name == text or not value.strip(" \"',;.!?").isalpha()


DIGITS = _points("0-9")

PATTERNS = (
    Pattern(
        name="control characters",
        regex=re.compile(f"[{CONTROL}]"),
        points=_points(CONTROL),
        what="control characters",
        mend="--clean",
    ),
    Pattern(
        name="invisible characters",
        regex=re.compile(f"[{INVISIBLE}]"),
        points=_points(INVISIBLE),
        what="characters that cannot be seen (soft hyphens, marks, directions)",
        mend="--clean",
    ),
    Pattern(
        name="lost characters",
        regex=re.compile("\ufffd"),
        points=frozenset([0xFFFD]),
        what="characters that an earlier conversion lost (U+FFFD)",
        grave=True,
    ),
    Pattern(
        name="mojibake",
        regex=re.compile(
            "[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u0192\u02c6-\u02dc\u2013-\u203a\u20ac\u2122]{1,3}"
        ),
        points=_points("\u00c2-\u00f4"),
        what="places that look like UTF-8 taken for Windows-1252",
        holds=_doubly_encoded,
        grave=True,
    ),
    Pattern(
        name="secrets",
        regex=re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36,}"
            r"|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bsk-[\w-]{20,}"
            r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
            r"|(?i:\b(?:password|passwd|secret|api_?key|access_?token)[\"']?\s*[:=]\s*[\"']?"
            r"[^\s\"']{8,})"
        ),
        hints=("private key", "akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "aiza", "sk-",
               "eyj", "passw", "secret", "apikey", "api_key", "accesstoken", "access_token"),
        what="passwords, keys or tokens, perhaps; take them out before you train",
        holds=_secret,
        grave=True,
        secret=True,
    ),
    Pattern(
        name="e-mail addresses",
        regex=re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}\b"),
        points=frozenset([ord("@")]),
        what="e-mail addresses, which a model may repeat",
    ),
    Pattern(
        name="telephone numbers",
        regex=re.compile(r"(?<![\w.])\d[\d ()./-]{8,20}\d(?![\w.])"),
        points=DIGITS,
        what="telephone numbers, perhaps, which a model may repeat",
        holds=_telephone,
    ),
    Pattern(
        name="card numbers",
        regex=re.compile(r"(?<!\d)(?:\d{4}[ -]?){3}\d{1,4}(?!\d)"),
        points=DIGITS,
        what="numbers of payment cards, perhaps; take them out before you train",
        holds=_card,
        grave=True,
        secret=True,
    ),
)  # fmt: skip


def _matches(pattern: Pattern, text: str) -> Iterator[re.Match[str]]:
    """All that the expression finds; where it has hints, only lines with one are looked at."""
    small = text.lower() if pattern.hints else ""
    if not pattern.hints or len(small) != len(text):  # a few capitals are two small letters
        yield from pattern.regex.finditer(text)
        return
    lines = set()
    for hint in pattern.hints:
        at = small.find(hint)
        while at >= 0:
            begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            end = len(text) if end < 0 else end
            lines.add((begin, end))
            at = small.find(hint, end)
    for begin, end in sorted(lines):
        yield from pattern.regex.finditer(text, begin, end)


class Patterns(Check):
    """All regular expressions."""

    def __init__(self) -> None:
        self.counts = [0] * len(PATTERNS)
        self.examples = [(0, "")] * len(PATTERNS)

    def see(self, seen: Seen) -> None:
        for number, pattern in enumerate(PATTERNS):
            if pattern.points and pattern.points.isdisjoint(seen.points):
                continue
            for found in _matches(pattern, seen.joined):
                if pattern.holds(found[0]):
                    if self.counts[number] == 0:
                        line = seen.first + seen.joined.count("\n", 0, found.start())
                        example = _around(seen.joined, found.start(), found.end())
                        if pattern.secret:
                            example = found[0][:4] + "…"
                        self.examples[number] = line, example
                    self.counts[number] += 1

    def found(self, kind: Kind) -> Iterator[Found]:
        for pattern, count, (line, example) in zip(
            PATTERNS, self.counts, self.examples, strict=True
        ):
            if count:
                finding = Finding(
                    name=pattern.name,
                    what=pattern.what,
                    count=count,
                    example=example,
                    mend=pattern.mend,
                    grave=pattern.grave,
                )
                yield Found(finding, line)


class Lines(Check):
    """Lengths, and white space at the ends."""

    def __init__(self) -> None:
        self.lines = self.blank = self.begun = 0
        self.long: list[tuple[int, int, str]] = []
        """Length, place and beginning."""
        self.padded: list[tuple[int, str]] = []
        self.many_padded = self.many_long = 0

    def see(self, seen: Seen) -> None:
        for place, line in enumerate(seen.lines, seen.first):
            length, self.begun = self.begun + len(line), 0
            if seen.goes_on and line is seen.lines[-1]:
                self.begun = length
                return
            if length > LONG_LINE:
                self.many_long += 1
                self.long = [max([*self.long, (length, place, line[:SHOWN])])]
            if not line or line.isspace():
                self.blank += 1
            elif line[-1].isspace():
                self.many_padded += 1
                self.padded = self.padded or [(place, repr(line[-SHOWN:]))]
            self.lines += 1

    def found(self, kind: Kind) -> Iterator[Found]:
        for length, place, example in self.long:
            what = f"lines of more than {LONG_LINE:,} characters (the longest has {length:,})"
            finding = Finding(name="long lines", what=what, count=self.many_long, example=example)
            yield Found(finding, place)
        if kind == "lines":
            return  # white space around items and empty lines are left out anyway
        for place, example in self.padded:
            what, count = "lines that end with white space", self.many_padded
            yield Found(Finding(name="white space", what=what, count=count, example=example), place)
        if self.blank > self.lines / 2:
            what = f"empty lines, of {self.lines:,} in all"
            yield Found(Finding(name="empty lines", what=what, count=self.blank))


class Normal(Check):
    """One character written in two ways."""

    def __init__(self) -> None:
        self.count, self.line, self.example = 0, 0, ""

    def see(self, seen: Seen) -> None:
        if seen.joined.isascii() or unicodedata.is_normalized("NFC", seen.joined):
            return
        for number, line in enumerate(seen.lines, seen.first):
            if not unicodedata.is_normalized("NFC", line):
                if not self.count:
                    self.line, self.example = number, line
                self.count += 1

    def found(self, kind: Kind) -> Iterator[Found]:
        if self.count:
            what = "lines with letters and accents as separate characters (not NFC)"
            finding = Finding(
                name="not normalised",
                what=what,
                count=self.count,
                example=self.example,
                mend="--nfc",
            )
            yield Found(finding, self.line)


class Characters(Check):
    """Which characters there are, how often, of which scripts."""

    def __init__(self) -> None:
        self.counts = np.zeros(sys.maxunicode + 1, np.int64)
        self.lines: dict[int, int] = {}
        """Where each stands first."""

    def see(self, seen: Seen) -> None:
        found = np.bincount(code_points(seen.joined))
        present = np.flatnonzero(found)
        for point in present[self.counts[present] == 0].tolist():
            before = seen.joined.count("\n", 0, seen.joined.index(chr(point)))
            self.lines[point] = seen.first + before
        self.counts[present] += found[present]

    def found(self, kind: Kind) -> Iterator[Found]:
        present = np.flatnonzero(self.counts)
        present = present[present != ord("\n")]
        rare = present[self.counts[present] < RARE].tolist()
        if len(rare) > max(5, len(present) // 20):
            finding = Finding(
                name="rare characters",
                what=f"characters that occur fewer than {RARE} times, too rarely to be learned "
                f"(of {len(present):,} different ones)",
                count=len(rare),
                example=" ".join(map(chr, rare[:20])),
                mend=f"--min-count {RARE}",
            )
            yield Found(finding, self.lines[rare[0]])
        scripts: dict[str, list[int]] = {}
        for point in present.tolist():
            if chr(point).isalpha():
                script = unicodedata.name(chr(point), "UNNAMED").split()[0]
                script = script if script == "CJK" else script.capitalize()
                scripts.setdefault(script, []).append(point)
        if len(scripts) > 1:
            letters = {script: int(self.counts[points].sum()) for script, points in scripts.items()}
            shares = sorted(letters.items(), key=lambda item: -item[1])
            total = sum(letters.values())
            shown = ", ".join(f"{script} {_share(n / total)}" for script, n in shares[:6])
            least = scripts[shares[-1][0]]
            finding = Finding(
                name="scripts",
                what=f"scripts ({shown})",
                count=len(scripts),
                example=" ".join(map(chr, least[:20])),
            )
            yield Found(finding, self.lines[least[0]])


class Copies(Check):
    """Lines that come more than once, word for word or nearly, and on both sides of a split.

    Of a line four numbers are kept: the hash of what matters of it, the hash of it as it stands,
    its place and its length.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.rows: list[NDArray[np.int64]] = []
        self.kept = self.items = 0
        self.every = 1
        """Of so many different lines one is kept, chosen by what matters of it."""

    def see(self, seen: Seen) -> None:
        places, stripped = [], []
        for place, line in enumerate(seen.lines, seen.first):
            if text := line.strip():
                places.append(place)
                stripped.append(text)
        self.items += len(places)
        plain = [_plain(text) for text in stripped]
        chosen = np.fromiter((zlib.crc32(text.encode()) for text in plain), np.int64, len(plain))
        near = np.fromiter(map(hash, plain), np.int64, len(plain))
        exact = np.fromiter(map(hash, stripped), np.int64, len(plain))
        length = np.fromiter(map(len, stripped), np.int64, len(plain))
        rows_L5 = np.stack([near, exact, np.array(places, np.int64), length, chosen], axis=1)
        # Lines of signs alone have nothing in common.
        rows_L5[:, 0] = np.where(list(map(bool, plain)), rows_L5[:, 0], rows_L5[:, 1])
        self._keep(rows_L5)

    def _keep(self, rows_L5: NDArray[np.int64]) -> None:
        self.rows.append(rows_L5[rows_L5[:, 4] % self.every == 0])
        self.kept += len(self.rows[-1])
        while self.kept > REMEMBERED:
            self.every *= 2
            everything = np.concatenate(self.rows)
            self.rows = [everything[everything[:, 4] % self.every == 0]]
            if self.kept == len(self.rows[0]):
                return  # one line again and again
            self.kept = len(self.rows[0])

    def found(self, kind: Kind) -> Iterator[Found]:
        rows_L5 = np.concatenate(self.rows) if self.rows else np.zeros((0, 5), np.int64)
        things = "lines"
        if kind == "text":
            rows_L5 = rows_L5[rows_L5[:, 3] >= REMARKABLE]
            things = f"lines of {REMARKABLE} characters or more"

        def finding(name: str, what: str, rows: NDArray[np.int64], **more: Any) -> Found:
            count, about = len(rows) * self.every, self.every > 1
            finding = Finding(name=name, what=what, count=count, about=about, **more)
            return Found(finding, int(rows[0, 2]))

        again, _ = _repeated(rows_L5, column=1)
        if len(again):
            grave = kind == "text" and len(again) > len(rows_L5) / 10
            yield finding(
                "copies", f"{things} that stood there before", again, mend="--dedup", grave=grave
            )
        nearly, earlier = _repeated(rows_L5, column=0)
        nearly = nearly[nearly[:, 1] != earlier[:, 1]]
        if len(nearly):
            what = f"{things} that differ from an earlier one only in capitals, accents or signs"
            yield finding("near copies", what, nearly)
        held = self._held_out(rows_L5, kind)
        leaked = rows_L5[held][np.isin(rows_L5[held, 1], rows_L5[~held, 1])]
        if len(leaked):
            share = len(leaked) / max(1, int(held.sum()))
            where = (
                "the last tenth, which is held out," if kind == "text" else "validation and test"
            )
            what = f"{things} of {where} that are in training too, {_share(share)} of them"
            mend = "--dedup" if kind == "text" or self.rule == "seeded" else "--split seeded"
            yield finding("leakage", what, leaked, mend=mend, grave=share > 0.05)

    def _held_out(self, rows_L5: NDArray[np.int64], kind: Kind) -> NDArray[np.bool_]:
        """Which lines validation or test would get that training has copies of."""
        place_L = rows_L5[:, 2]
        if kind == "text":
            return place_L > 0.9 * place_L.max(initial=0)
        if self.rule == "seeded" or self.every > 1 or self.items < 10:
            return np.zeros(len(rows_L5), bool)  # copies stay together
        sides = split_items_as_lecture(self.items)
        number_L = np.argsort(np.argsort(place_L))
        return ~np.isin(number_L, sides["train"])


CHECKS: tuple[Callable[[], Check], ...] = (Patterns, Lines, Normal, Characters)


def _around(text: str, start: int, end: int) -> str:
    """What was found, and what stands beside it in its line."""
    first = max(text.rfind("\n", 0, start) + 1, start - SHOWN // 3)
    last = text.find("\n", end)
    cut = "…" if first and text[first - 1] != "\n" else ""
    return cut + text[first : len(text) if last < 0 else last]


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _plain(line: str) -> str:
    """A line without what does not matter: capitals, accents, digits, signs, spaces."""
    folded = line.casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFD", folded)
    return NO_LETTER.sub("", folded)


NO_LETTER = re.compile(r"[\W\d_]+")


def _repeated(
    rows_L5: NDArray[np.int64], *, column: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows whose value in `column` an earlier one has, and beside each that first one."""
    order = np.lexsort((rows_L5[:, 2], rows_L5[:, column]))
    sorted_L5 = rows_L5[order]
    values = sorted_L5[:, column]
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    first = sorted_L5[np.flatnonzero(new)[np.cumsum(new) - 1]]
    again, first = sorted_L5[~new], first[~new]
    by_place = np.argsort(again[:, 2], kind="stable")
    return again[by_place], first[by_place]
