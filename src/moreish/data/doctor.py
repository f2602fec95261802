"""What is wrong, or may be, with a text: found in one reading, whatever its size.

Every finding has a count, an example with its line, and the option of `moreish train` that mends
it, where there is one.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from moreish.data import catalog
from moreish.data.checks import (
    SHOWN,
    Characters,
    Check,
    Copies,
    Finding,
    Found,
    Lines,
    Normal,
    Patterns,
    Seen,
)
from moreish.data.decode import BOMS, Text, text_file, with_line_feeds
from moreish.data.lines import short_lines
from moreish.data.mend import Mending
from moreish.data.split import Rule
from moreish.data.text import Corpus, Kind, read_corpus
from moreish.errors import MoreishError
from moreish.files import read_json, write_atomic
from moreish.tokenizers.char import code_points

FEW = 10_000
"""Characters below which there is little to learn from."""

PER_PARAMETER = 20
"""Tokens (Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models")."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What the doctor says of a text."""

    name: str
    kind: Kind
    documents: int
    lines: int
    characters: int
    alphabet: int
    """Different characters."""
    whole: bool
    """Whether all of it was looked at, or only the beginning."""
    notes: list[str]
    """What was done to the text, or guessed of it."""
    findings: list[Finding]
    """The grave ones first."""

    @property
    def mends(self) -> str:
        """All options that mend something."""
        return " ".join(dict.fromkeys(f.mend for f in self.findings if f.mend))

    def save(self, path: Path) -> None:
        """As JSON, which `load` reads."""
        write_atomic(path, json.dumps(asdict(self), ensure_ascii=False, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises OSError, or ValueError when it is none."""
        try:
            told = read_json(path)
            return cls(**{**told, "findings": [Finding(**each) for each in told["findings"]]})
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from None


def diagnose(
    source: str,
    kind: Kind | None = None,
    encoding: str = "utf-8",
    mending: Mending | None = None,
    rule: Rule = "seeded",
    progress: Callable[[float], None] = lambda share: None,
) -> Diagnosis:
    """Read `source` as training would, and look at all of it.

    A file in another encoding is read in the one that it seems to have, which is then a finding.

    Raises:
        MoreishError: as `read_corpus` does.
    """
    mending = mending or Mending()
    try:
        return examine(read_corpus(source, kind, encoding, mending), rule, progress=progress)
    except MoreishError as error:
        guess = guess_encoding(Path(source).expanduser())
        if source in catalog.CATALOG or guess is None or guess == encoding:
            raise
        wrong = Finding(
            name="encoding",
            what=f"files in another encoding ({str(error).partition(';')[0]})",
            count=1,
            mend=f"--encoding {guess}",
            grave=True,
        )
        found = examine(read_corpus(source, kind, guess, mending), rule, progress=progress)
        found.findings.insert(0, wrong)
        return found


def guess_encoding(path: Path) -> str | None:
    """What the bytes of a file look like: None where it is no file, or no text."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(1 << 16)
    for name, mark in BOMS.items():
        if head.startswith(mark):
            return name
    if zeros := head.count(0):
        even = head[::2].count(0)
        order = "be" if even > zeros / 2 else "le"
        return f"utf-16-{order}" if max(even, zeros - even) > len(head) / 6 else None
    for name in ("utf-8", "cp1252", "latin-1"):
        try:
            _ = text_file(path, name).survey
        except MoreishError:
            continue
        return name
    return None


def examine(
    corpus: Corpus,
    rule: Rule = "seeded",
    *,
    most: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Diagnosis:
    """Everything that is found in `corpus`.

    Args:
        rule: of the split.
        most: characters to look at, from the beginning; None for all.
        progress: is told the share that has been read.
    """
    total = sum(text.survey.characters for text in corpus.texts)
    limit = total if most is None else min(most, total)
    whole = limit == total
    # Of a part, nobody can tell how it will be dealt out.
    copies = Copies(rule if whole else "seeded")
    checks: list[Check] = [Patterns(), Lines(), Normal(), Characters(), copies]
    ends = LineEnds()
    starts, number, done = [], 0, 0
    for text in corpus.texts:
        starts.append(number)
        if done >= limit:
            break
        for lines, goes_on in short_lines(with_line_feeds(ends.seen_in(text))):
            joined = "\n".join(lines)
            points = frozenset(np.flatnonzero(np.bincount(code_points(joined))).tolist())
            for check in checks:
                check.see(Seen(lines, joined, points, goes_on, number))
            number += len(lines) - goes_on
            done += len(joined)
            progress(min(1.0, done / max(1, limit)))
            if done >= limit:
                break
    found = [*ends.found(), *(found for check in checks for found in check.found(corpus.kind))]
    findings = [_placed(each, corpus.texts, starts) for each in found]
    if total < FEW:
        few = "characters in all, from which counts may learn more than a network"
        findings.append(Finding(name="little text", what=few, count=total))
    return Diagnosis(
        name=corpus.name,
        kind=corpus.kind,
        documents=corpus.facts.documents,
        lines=number,
        characters=corpus.facts.characters,
        alphabet=len(corpus.facts.alphabet),
        whole=whole,
        notes=corpus.notes,
        findings=sorted(findings, key=lambda finding: not finding.grave),
    )


class LineEnds:
    """Other line ends than LF, which are turned into it: how many, and where."""

    def __init__(self) -> None:
        self.pairs = self.alone = 0
        self._line_feeds = 0
        self._first: int | None = None

    def seen_in(self, text: Text) -> Iterator[str]:
        """The text as it is read."""
        begun = ""
        for piece in text.read():
            yield piece
            piece, begun = begun + piece, ""
            if piece.endswith("\r"):
                piece, begun = piece[:-1], "\r"
            self._count(piece)
        self._count(begun)

    def _count(self, piece: str) -> None:
        if (first := piece.find("\r")) >= 0:
            if self._first is None:
                self._first = self._line_feeds + piece.count("\n", 0, first)
            pairs = piece.count("\r\n")
            self.pairs += pairs
            self.alone += piece.count("\r") - pairs
        self._line_feeds += piece.count("\n")

    def found(self) -> Iterator[Found]:
        """They need no mending."""
        for name, count in (("CR LF", self.pairs), ("CR", self.alone)):
            if count:
                what = f"lines that end with {name} instead of LF, which is mended by itself"
                yield Found(Finding(name="line ends", what=what, count=count), self._first)


def _placed(found: Found, texts: list[Text], starts: list[int]) -> Finding:
    """The finding with the place of its example, and what stands there if it has no example yet."""
    if found.line is None:
        return found.finding
    which = int(np.searchsorted(starts, found.line, side="right")) - 1
    number = found.line - starts[which]
    where = f"line {number + 1:,}"
    if len(texts) > 1:
        where = f"{texts[which].name}, {where}"
    example = found.finding.example or _line_of(texts[which], number)
    return replace(found.finding, where=where, example=_short(example))


def _line_of(text: Text, number: int) -> str:
    """The line of that number, from 0: the text is gone through again as far as it."""
    for lines, goes_on in short_lines(text):
        if number < len(lines):
            return lines[number]
        number -= len(lines) - goes_on
    return ""


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
