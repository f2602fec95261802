"""What the doctor looks for: each check reads a text some lines at a time, in bounded memory.

L lines.
"""

import math
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

from moreish.data.lines import Kind
from moreish.data.mend import CONTROL, INVISIBLE, REMARKABLE, is_composed, normalized
from moreish.data.split import Rule, split_items_as_lecture
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
    first: int
    """The number of the first line among all lines of all texts, from 0."""
    offset: int
    """Where it begins, in characters of all texts."""
    went_on: bool
    """Whether the first line is only a part, which began before."""
    goes_on: bool
    """Whether the last line is only a part, which goes on."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is looked at."""

    kind: Kind
    whole: bool
    """Whether all of it is; else only the beginning."""
    characters: int
    documents: int
    rule: Rule


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
    def found(self) -> Iterator[Found]:
        """What there was, once everything has been seen."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Something that a regular expression finds."""

    name: str
    regex: re.Pattern[str]
    what: str
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
    """Whether it is UTF-8 that somebody took for Windows-1252 (or its gaps for Latin-1)."""
    try:
        raw = b"".join(c.encode("latin-1" if "\x80" <= c <= "\x9f" else "cp1252") for c in text)
        return raw.decode("utf-8") != text
    except UnicodeError:
        return False


def _telephone(text: str) -> bool:
    """Groups of two to five digits, nine to fifteen in all, or all at once after a plus; no date,
    and no address of a computer."""
    if text[0] == "+" and text[1:].isdigit():
        return 10 <= len(text) <= 16
    groups = re.findall(r"\d+", text)
    other = r"(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d\b|\d{1,3}(?:\.\d{1,3}){3}$"
    like = 3 <= len(groups) <= 6 and all(2 <= len(group) <= 5 for group in groups)
    return like and 9 <= sum(map(len, groups)) <= 15 and not re.match(other, text)


def _card(digits: str) -> bool:
    """The checksum of card numbers (Luhn)."""
    figures = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * figure, 10)) for figure in figures[-2::-2]]
    return len(set(figures)) > 1 and (sum(doubled) + sum(figures[::-2])) % 10 == 0


def _secret(text: str) -> bool:
    """A key of a known form, or a value that is no plain word."""
    name, _, value = text.replace("=", ":", 1).partition(":")
    return name == text or not value.strip(" \"',;.!?").isalpha()


def masked(text: str) -> str:
    """Without the secrets in it: reports are read by others."""
    for pattern in PATTERNS:
        if pattern.secret:
            text = pattern.regex.sub(
                lambda found, holds=pattern.holds: (  # type: ignore[misc]
                    found[0][:4] + "…" if holds(found[0]) else found[0]
                ),
                text,
            )
    return text


CONTINUES = "[\u0080-\u00bf\u0152-\u0192\u02c6-\u02dc\u2013-\u203a\u20ac\u2122]"
"""A byte of UTF-8 after the first, as Windows-1252 or Latin-1 have it."""

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
            f"[\u00c2-\u00df]{CONTINUES}|[\u00e0-\u00ef]{CONTINUES}{{2}}|[\u00f0-\u00f4]{CONTINUES}{{3}}"
        ),
        points=_points("\u00c2-\u00f4"),
        what="places that look like UTF-8 taken for Windows-1252",
        holds=_doubly_encoded,
        grave=True,
    ),
    Pattern(
        name="secrets",
        regex=re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36,}"
            r"|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bsk-[\w-]{20,}"
            r"|(?<![\w-])eyJ[\w-]{10,999}\.eyJ[\w-]{10,999}\.[\w-]{10,999}"
            r"|(?i:(?<![^\W_])(?:password|passwd|secret|api[_-]?key|access[_-]?token)[\"']?\s{0,9}"
            r"[:=]\s{0,9}[\"']?[^\s\"']{8,})"
        ),
        hints=("private key", "akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "aiza", "sk-",
               "eyj", "passw", "secret", "apikey", "api_key", "api-key", "accesstoken",
               "access_token", "access-token"),
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
        regex=re.compile(r"(?<![\w.+])(?:\+\d{9,15}|\d[\d ()./-]{8,20}\d)(?!\w|[.-]\d)"),
        points=DIGITS,
        what="telephone numbers, perhaps, which a model may repeat",
        holds=_telephone,
    ),
    Pattern(
        name="card numbers",
        regex=re.compile(r"(?<![\d.])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,4}(?!\d)"),
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

    def __init__(self, scope: Scope) -> None:
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
                        self.examples[number] = line, example
                    self.counts[number] += 1

    def found(self) -> Iterator[Found]:
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

    def __init__(self, scope: Scope) -> None:
        self.kind = scope.kind
        self.lines = self.blank = self.long = self.padded = 0
        self.longest = (0, 0, "")
        """Length, place and beginning."""
        self.first_padded = (0, "")
        self.begun = (0, "")
        """Of a line that is not over: length and beginning."""

    def see(self, seen: Seen) -> None:
        last = len(seen.lines) - 1
        for number, line in enumerate(seen.lines):
            place, (before, beginning) = seen.first + number, self.begun
            length, beginning = before + len(line), beginning or line[:SHOWN]
            self.begun = (0, "")
            if seen.goes_on and number == last:
                self.begun = length, beginning
                return
            if length > LONG_LINE:
                self.long += 1
                self.longest = max(self.longest, (length, place, beginning))
            if not before and (not line or line.isspace()):
                self.blank += 1
            elif line and line[-1].isspace():
                if not self.padded:
                    self.first_padded = place, repr(line[-SHOWN // 2 :])
                self.padded += 1
            self.lines += 1

    def found(self) -> Iterator[Found]:
        if self.long:
            length, place, example = self.longest
            what = f"lines of more than {LONG_LINE:,} characters (the longest has {length:,})"
            yield Found(
                Finding(name="long lines", what=what, count=self.long, example=example), place
            )
        if self.kind == "lines":
            return  # white space around items and empty lines are left out anyway
        if self.padded:
            place, example = self.first_padded
            what, count = "lines that end with white space", self.padded
            yield Found(Finding(name="white space", what=what, count=count, example=example), place)
        if self.blank > self.lines / 2:
            what = f"empty lines, of {self.lines:,} in all"
            yield Found(Finding(name="empty lines", what=what, count=self.blank))


class Normal(Check):
    """One character written in two ways."""

    def __init__(self, scope: Scope) -> None:
        self.count, self.line, self.example = 0, 0, ""

    def see(self, seen: Seen) -> None:
        if seen.joined.isascii() or is_composed(seen.joined):
            return
        for number, line in enumerate(seen.lines, seen.first):
            if not is_composed(line):
                if not self.count:
                    self.line, self.example = number, line
                self.count += 1

    def found(self) -> Iterator[Found]:
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

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.counts = np.zeros(sys.maxunicode + 1, np.int64)
        self.lines: dict[int, int] = {}
        """Where each stands first."""

    def see(self, seen: Seen) -> None:
        items = self.scope.kind == "lines"  # around them, white space is left out anyway
        joined = "\n".join(map(str.strip, seen.lines)) if items else seen.joined
        points = code_points(joined)
        found = np.bincount(points)
        present = np.flatnonzero(found)
        if (new := present[self.counts[present] == 0]).size:
            at, line_ends = np.flatnonzero(np.isin(points, new)), np.flatnonzero(points == LINE_END)
            new, which = np.unique(points[at], return_index=True)
            places = seen.first + np.searchsorted(line_ends, at[which])
            self.lines |= dict(zip(new.tolist(), places.tolist(), strict=True))
        self.counts[present] += found[present]

    def found(self) -> Iterator[Found]:
        present = np.flatnonzero(self.counts)
        present = present[present != LINE_END]
        rare = present[self.counts[present] < RARE].tolist()
        if self.scope.whole and len(rare) > max(5, len(present) // 20):
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
            if script := _script(chr(point)):
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


LINE_END = ord("\n")


def _script(character: str) -> str:
    """What Unicode's names of letters begin with; nothing for other characters."""
    name = unicodedata.name(character, "")
    first = name.partition(" ")[0]
    if first in ("CJK", "HANGUL"):
        return first if first == "CJK" else "Hangul"
    return first.capitalize() if " LETTER" in name else ""


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
            what = f"{things} of {where} that are in training too, {_share(share)} of them"
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


def _around(text: str, start: int, end: int) -> str:
    """What was found, and what stands beside it in its line, without secrets."""
    begin, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    line = masked(text[max(begin, start - 2000) : min(last, end + 2000)])
    at = max(0, line.find(text[start:end]))
    cut = max(0, at - SHOWN // 3)
    return ("…" if cut else "") + line[cut:]


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _plain(line: str) -> str:
    """A line without what does not matter: capitals, accents, digits, signs, spaces."""
    folded = line.casefold()
    if not folded.isascii():
        folded = normalized("NFD", folded)
    return NO_LETTER.sub("", folded)


NO_LETTER = re.compile(r"[\s\d_!-/:-@\[-`{-~\u00a0-\u00bf\u0300-\u036f\u2000-\u206f\u3000-\u303f]+")
"""Marks of other scripts are vowels, which do matter."""
