"""The checks of an audit, each of which reads a text block by block in bounded memory."""

import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moreish.data.text import (
    MAX_EXAMPLE,
    NON_PRINTING,
    PATTERNS,
    CorpusKind,
    Severity,
    excerpt,
    find_matches,
    is_composed,
    mask_secrets,
)
from moreish.tokenizers import code_points
from moreish.utils.text import plural

MAX_LINE = 10_000
"""Characters above which a line is reported as long."""

MAX_UNMASKED = 2000
"""Characters of a line that are kept until secrets in it have been masked; a secret that was cut
in half would not be recognized."""

MIN_COUNT = 5
"""Occurrences below which a character is too rare to learn."""

MAX_RARE_ITEMS = 0.05
"""Rare characters per item above which removing the items that have them would remove too many."""

LINE_END = ord("\n")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of problem in a text."""

    name: str
    description: str
    count: int
    is_estimate: bool = False
    """Whether `count` is extrapolated from a sample of the lines."""
    location: str = ""
    """Line of the example, counted from 1, after its file if there are several."""
    example: str = ""
    fix: str = ""
    """Option of `moreish train` that fixes the problem."""
    is_guess: bool = False
    """Whether `fix`, or the encoding in `conversion`, is only a guess."""
    conversion: str = ""
    """Command that converts the file of the example to UTF-8."""
    loss: str = ""
    """How much of the text `fix` removes, where the user must decide whether that is right."""
    is_private: bool = False
    """Whether it concerns data about persons, or secrets."""
    severity: Severity = "note"
    """A warning is a problem that harms the model, distorts its losses or exposes private data."""

    @property
    def fix_label(self) -> str:
        """`fix` or the conversion for display, marked when it is a guess, and what it removes."""
        if self.conversion:
            return f"convert it{', perhaps' * self.is_guess}: {self.conversion}"
        loss = f" ({self.loss})" if self.loss else ""
        return f"{'perhaps ' if self.is_guess else ''}{self.fix}{loss}"

    @property
    def summary(self) -> str:
        """The count and the description, which begins with a plural."""
        if self.count == 1:
            return f"{self.description}: 1"
        return f"{'about ' if self.is_estimate else ''}{self.count:,} {self.description}"


class LineBlock(NamedTuple):
    """Consecutive lines of a text; very long lines come in parts."""

    lines: list[str]
    text: str
    """The lines, joined by line ends."""
    code_points: frozenset[int]
    """The distinct code points of `text`."""
    first: int
    """Number of the first line among all lines of all texts, from 0."""
    offset: int
    """Number of characters before the block, in all texts."""
    starts_inside: bool
    """Whether the first line began in the block before."""
    ends_inside: bool
    """Whether the last line continues in the next block."""


LocatedFinding = tuple[Finding, int | None]
"""A finding and the number of the line of its example, from 0; None if it has no line."""


class Tally:
    """Counts one problem and stores an example."""

    def __init__(self) -> None:
        self.count, self.line, self.example = 0, 0, ""

    def finding(self, **fields: Any) -> LocatedFinding:
        """Return the problem as a finding."""
        return Finding(count=self.count, example=self.example, **fields), self.line


class Check(ABC):
    """One check. `update` is called with every block of the text, then `findings` once."""

    @abstractmethod
    def update(self, block: LineBlock) -> None:
        """Check one block."""

    @abstractmethod
    def findings(self) -> Iterator[LocatedFinding]:
        """Yield the problems found in all blocks."""


class PatternCheck(Check):
    """Looks for everything in `PATTERNS`."""

    def __init__(self) -> None:
        self.tallies = [(pattern, Tally()) for pattern in PATTERNS]

    def update(self, block: LineBlock) -> None:
        for pattern, tally in self.tallies:
            if pattern.code_points and pattern.code_points.isdisjoint(block.code_points):
                continue
            for match in find_matches(pattern, block.text):
                if pattern.is_real(match[0]):
                    if not tally.count:
                        tally.line = block.first + block.text.count("\n", 0, match.start())
                        tally.example = excerpt(block.text, *match.span())
                    tally.count += 1

    def findings(self) -> Iterator[LocatedFinding]:
        for pattern, tally in self.tallies:
            if tally.count:
                yield tally.finding(
                    name=pattern.name,
                    description=pattern.description,
                    fix=pattern.fix,
                    is_private=pattern.is_private,
                    severity=pattern.severity,
                )


class LineCheck(Check):
    """Looks for long lines, empty lines, trailing whitespace, and accented letters that are written
    as two characters."""

    def __init__(self, kind: CorpusKind) -> None:
        self.kind = kind
        self.lines = self.blank = self.longest = 0
        self.long, self.trailing, self.decomposed = Tally(), Tally(), Tally()
        self.unfinished = (0, "")
        """Length and beginning of a line that continues in the next block."""

    def update(self, block: LineBlock) -> None:
        last = len(block.lines) - 1
        is_decomposed = not block.text.isascii() and not is_composed(block.text)
        for index, line in enumerate(block.lines):
            number, (length_before, beginning) = block.first + index, self.unfinished
            if is_decomposed and not is_composed(line):
                if not self.decomposed.count:
                    self.decomposed.line, self.decomposed.example = number, line
                self.decomposed.count += 1
            length, beginning = length_before + len(line), beginning or line[:MAX_UNMASKED]
            self.unfinished = (0, "")
            if block.ends_inside and index == last:
                self.unfinished = length, beginning
                return
            if length > MAX_LINE:
                self.long.count += 1
                if length >= self.longest:
                    self.longest, self.long.line, self.long.example = length, number, beginning
            if not length_before and (not line or line.isspace()):
                self.blank += 1
            elif line and line[-1].isspace():
                if not self.trailing.count:
                    end = mask_secrets(line[-MAX_UNMASKED:])[-MAX_EXAMPLE // 2 :]
                    self.trailing.line, self.trailing.example = number, repr(end)
                self.trailing.count += 1
            self.lines += 1

    def findings(self) -> Iterator[LocatedFinding]:
        is_text = self.kind == "text"  # reading a list strips its items and drops empty lines
        if self.long.count:
            longest = f"longest: {self.longest:,}"
            yield self.long.finding(
                name="long lines",
                description=f"lines longer than {MAX_LINE:,} characters ({longest})",
            )
        if is_text and self.trailing.count:
            yield self.trailing.finding(
                name="trailing whitespace", description="lines with trailing whitespace"
            )
        if is_text and self.blank > self.lines / 2:
            description = f"empty lines, of {self.lines:,} lines"
            yield Finding(name="empty lines", description=description, count=self.blank), None
        if self.decomposed.count:
            yield self.decomposed.finding(
                name="not normalized",
                description="lines with accents as separate characters (not in Unicode form NFC)",
                fix="--nfc",
            )


class CharacterCheck(Check):
    """Counts characters, and looks for rare ones and for several scripts."""

    def __init__(self, kind: CorpusKind, *, is_complete: bool) -> None:
        """`is_complete` says whether the whole corpus is checked, not only its beginning."""
        self.kind, self.is_complete = kind, is_complete
        self.counts = np.zeros(sys.maxunicode + 1, np.int64)
        self.first_line: dict[int, int] = {}
        """Number of the line where each code point first occurs."""

    def update(self, block: LineBlock) -> None:
        text = block.text
        if self.kind == "lines":  # reading a list strips its items
            text = "\n".join(map(str.strip, block.lines))
        points = code_points(text)
        counts = np.bincount(points)
        present = np.flatnonzero(counts)
        if (new := present[self.counts[present] == 0]).size:
            at, line_ends = np.flatnonzero(np.isin(points, new)), np.flatnonzero(points == LINE_END)
            new, first = np.unique(points[at], return_index=True)
            lines = block.first + np.searchsorted(line_ends, at[first])
            self.first_line |= dict(zip(new.tolist(), lines.tolist(), strict=True))
        self.counts[present] += counts[present]

    def findings(self) -> Iterator[LocatedFinding]:
        present = np.flatnonzero(self.counts)
        total = len(present) if self.kind == "text" else len(present) - (LINE_END in present)
        present = present[present != LINE_END]
        rare = present[self.counts[present] < MIN_COUNT].tolist()
        num_rare = int(self.counts[rare].sum())  # at least as many items have rare characters
        suits = 2 * len(rare) < len(present) and (
            self.kind == "text" or num_rare <= MAX_RARE_ITEMS * self.counts[LINE_END]
        )
        loss = f"removes {len(rare):,} of {total:,} characters"
        if self.kind == "lines":
            loss = f"removes up to {plural(num_rare, 'item')}"
        if self.is_complete and len(rare) > max(5, len(present) // 20):
            finding = Finding(
                name="rare characters",
                description=f"characters that occur fewer than {MIN_COUNT} times, too rarely to "
                f"learn (of {total:,} distinct characters)",
                count=len(rare),
                example=" ".join(map(chr, rare[:20])),
                # Removing most characters, or the items of a short list, would leave too little.
                fix=f"--min-count {MIN_COUNT}" if suits else "",
                loss=loss if suits else "",
            )
            yield finding, self.first_line[rare[0]]
        scripts: dict[str, list[int]] = {}
        for point in present.tolist():
            if script := _script(chr(point)):
                scripts.setdefault(script, []).append(point)
        if len(scripts) > 1:
            letters = {script: int(self.counts[points].sum()) for script, points in scripts.items()}
            by_count = sorted(letters.items(), key=lambda item: -item[1])
            total = sum(letters.values())
            shares = ", ".join(f"{script} {percent(n / total)}" for script, n in by_count[:6])
            rarest = scripts[by_count[-1][0]]
            finding = Finding(
                name="scripts",
                description=f"different scripts ({shares})",
                count=len(scripts),
                example=f"{by_count[-1][0]}: {' '.join(map(chr, rarest[:20]))}",
            )
            yield finding, min(self.first_line[point] for point in rarest)


def _script(character: str) -> str:
    """Return the script of a letter, as its Unicode name begins; empty for other characters."""
    if NON_PRINTING.match(character) or not unicodedata.category(character).startswith("L"):
        return ""
    name = unicodedata.name(character, "")
    first = name.partition(" ")[0]
    if first in ("CJK", "HANGUL"):
        return first if first == "CJK" else "Hangul"
    return first.capitalize() if " LETTER" in name else ""


def percent(share: float) -> str:
    """Format a share between 0 and 1 as a percentage."""
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"
