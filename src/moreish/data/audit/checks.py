"""What the doctor looks for: each check reads a text some lines at a time, in bounded memory."""

import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moreish.data.split import SplitRule
from moreish.data.text import (
    NON_PRINTING,
    PATTERNS,
    SHOWN,
    CorpusKind,
    Severity,
    around,
    is_composed,
    masked,
    matches,
)
from moreish.tokenizers import code_points

LONG_LINE = 10_000
"""Characters."""

UNCUT = 2000
"""Characters of a line that are kept until secrets have been taken out of them: of half a secret
nobody could tell that it is one."""

RARE = 5
"""Occurrences below which a character is too rare to be learned."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that was found."""

    name: str
    description: str
    count: int
    is_estimate: bool = False
    """Whether the count is estimated from a sample."""
    location: str = ""
    """Of the example: its line, counted from 1, and its file where there are several."""
    example: str = ""
    fix: str = ""
    """What to add to `moreish train`."""
    is_guess: bool = False
    """Whether that is only a guess."""
    severity: Severity = "note"
    """A warning is about what harms the model, distorts its losses or exposes private data."""

    @property
    def fix_label(self) -> str:
        """What mends it, for people."""
        return f"perhaps {self.fix}" if self.is_guess else self.fix

    @property
    def summary(self) -> str:
        """What, and how many."""
        return f"{self.description}: {'about ' if self.is_estimate else ''}{self.count:,}"


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

    kind: CorpusKind
    is_complete: bool
    """Whether all of it is; else only the beginning."""
    characters: int
    documents: int
    rule: SplitRule


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


class Patterns(Check):
    """All regular expressions."""

    def __init__(self, scope: Scope) -> None:
        self.counts = [0] * len(PATTERNS)
        self.examples = [(0, "")] * len(PATTERNS)

    def see(self, seen: Seen) -> None:
        for number, pattern in enumerate(PATTERNS):
            if pattern.points and pattern.points.isdisjoint(seen.points):
                continue
            for found in matches(pattern, seen.joined):
                if pattern.holds(found[0]):
                    if self.counts[number] == 0:
                        line = seen.first + seen.joined.count("\n", 0, found.start())
                        example = around(seen.joined, found.start(), found.end())
                        self.examples[number] = line, example
                    self.counts[number] += 1

    def found(self) -> Iterator[Found]:
        for pattern, count, (line, example) in zip(
            PATTERNS, self.counts, self.examples, strict=True
        ):
            if count:
                finding = Finding(
                    name=pattern.name,
                    description=pattern.what,
                    count=count,
                    example=example,
                    fix=pattern.fix,
                    severity=pattern.severity,
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
            length, beginning = before + len(line), beginning or line[:UNCUT]
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
                    self.first_padded = place, repr(masked(line[-UNCUT:])[-SHOWN // 2 :])
                self.padded += 1
            self.lines += 1

    def found(self) -> Iterator[Found]:
        if self.long:
            length, place, example = self.longest
            what = f"lines of more than {LONG_LINE:,} characters (the longest has {length:,})"
            yield Found(
                Finding(name="long lines", description=what, count=self.long, example=example),
                place,
            )
        if self.kind == "lines":
            return  # white space around items and empty lines are left out anyway
        if self.padded:
            place, example = self.first_padded
            what, count = "lines that end with white space", self.padded
            yield Found(
                Finding(name="white space", description=what, count=count, example=example), place
            )
        if self.blank > self.lines / 2:
            what = f"empty lines, of {self.lines:,} in all"
            yield Found(Finding(name="empty lines", description=what, count=self.blank))


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
                description=what,
                count=self.count,
                example=self.example,
                fix="--nfc",
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
        if self.scope.is_complete and len(rare) > max(5, len(present) // 20):
            finding = Finding(
                name="rare characters",
                description=f"characters that occur fewer than {RARE} times, too rarely to learn "
                f"(of {len(present):,} different ones)",
                count=len(rare),
                example=" ".join(map(chr, rare[:20])),
                # Of a short text that would leave nothing.
                fix=f"--min-count {RARE}" if 2 * len(rare) < len(present) else "",
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
            shown = ", ".join(f"{script} {in_percent(n / total)}" for script, n in shares[:6])
            least = scripts[shares[-1][0]]
            finding = Finding(
                name="scripts",
                description=f"scripts ({shown})",
                count=len(scripts),
                example=" ".join(map(chr, least[:20])),
            )
            yield Found(finding, self.lines[least[0]])


LINE_END = ord("\n")


def _script(character: str) -> str:
    """What Unicode's names of letters begin with; nothing for other characters."""
    if NON_PRINTING.match(character):
        return ""
    name = unicodedata.name(character, "")
    first = name.partition(" ")[0]
    if first in ("CJK", "HANGUL"):
        return first if first == "CJK" else "Hangul"
    return first.capitalize() if " LETTER" in name else ""


def in_percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"
