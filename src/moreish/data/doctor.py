"""What is wrong, or may be, with a text: found in one reading, whatever its size.

Every finding has a count, an example with its line, and the option of `moreish train` that mends
it, where there is one.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from moreish.data import catalog
from moreish.data.checks import (
    Characters,
    Check,
    Finding,
    Found,
    Lines,
    Normal,
    Patterns,
    Scope,
    Seen,
)
from moreish.data.copies import Copies
from moreish.data.decode import BOMS, Text, text_file, with_line_feeds
from moreish.data.lines import Kind, short_lines
from moreish.data.mend import Mending
from moreish.data.patterns import SHOWN, masked
from moreish.data.split import Rule
from moreish.data.text import Corpus, read_corpus
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
    given: list[str]
    """The source, and the options that it was read with."""
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
        write_atomic(path, json.dumps(asdict(self), indent=1).encode())

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
    *,
    given: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> Diagnosis:
    """Read `source` as training would, and look at all of it.

    A file in another encoding is read in the one that it seems to have, which is then a finding.

    Args:
        given: what `Diagnosis.given` is to be.

    Raises:
        MoreishError: as `read_corpus` does.
    """
    mending = mending or Mending()
    try:
        corpus = read_corpus(source, kind, encoding, mending)
        return examine(corpus, rule, given=given, progress=progress)
    except MoreishError as error:
        guess = None if source in catalog.CATALOG else guess_encoding(Path(source).expanduser())
        if (
            guess is None
            or not _is_known(encoding)
            or codecs.lookup(guess) == codecs.lookup(encoding)
        ):
            raise
        wrong = Finding(
            name="encoding",
            what=f"files in another encoding ({str(error).partition(';')[0]})",
            count=1,
            mend=f"--encoding {guess}",
            grave=True,
        )
        corpus = read_corpus(source, kind, guess, mending)
        found = examine(corpus, rule, given=given, progress=progress)
        found.findings.insert(0, wrong)
        return found


def _is_known(encoding: str) -> bool:
    try:
        codecs.lookup(encoding)
    except LookupError:
        return False
    return True


def guess_encoding(path: Path) -> str | None:
    """What the bytes of a file look like: None where it is no file, no text, or hard to tell."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(1 << 16)
    for name, mark in BOMS.items():
        if head.startswith(mark):
            return name
    wide = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be") if 0 in head else ()
    for name in (*wide, "utf-8", "cp1252", "latin-1"):
        text = head[: len(head) // 4 * 4].decode(name, "replace")
        letters = [character for character in text if character.isalpha()]
        plain = sum(map(str.isascii, letters)) >= 0.6 * len(letters) > 0
        gaps = any("\x80" <= character <= "\x9f" for character in text)
        if "\0" in text or (name != "utf-8" and (gaps or not plain)):
            continue  # another alphabet: to guess among its encodings takes more than this
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
    given: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> Diagnosis:
    """Everything that is found in `corpus`.

    Args:
        rule: of the split.
        most: characters to look at, from the beginning; None for all.
        given: what `Diagnosis.given` is to be.
        progress: is told the share that has been read.
    """
    total = sum(text.survey.characters for text in corpus.texts)
    whole = most is None or most >= total
    scope = Scope(
        kind=corpus.kind,
        whole=whole,
        characters=total,
        documents=corpus.facts.documents,
        rule=rule,
    )
    checks: list[Check] = [check(scope) for check in (Patterns, Lines, Normal, Characters, Copies)]
    ends = LineEnds()
    starts, number, done = [], 0, 0
    limit = total if whole or most is None else most
    for text in corpus.texts:
        if done >= limit:
            break
        starts.append(number)
        went_on = False
        for lines, goes_on in _lines(with_line_feeds(ends.seen_in(text, number))):
            joined = "\n".join(lines)
            points = frozenset(np.flatnonzero(np.bincount(code_points(joined))).tolist())
            for check in checks:
                check.see(Seen(lines, joined, points, number, done, went_on, goes_on))
            number += len(lines) - goes_on
            done += len(joined) + (not goes_on)
            went_on = goes_on
            progress(min(1.0, done / max(1, limit)))
            if done >= limit and not whole:
                break
    found = [*ends.found(), *(found for check in checks for found in check.found())]
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
        given=list(given),
        notes=corpus.notes,
        findings=sorted(findings, key=lambda finding: not finding.grave),
    )


def _lines(text: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """As `short_lines`, but a line end at the end of the text begins no line."""
    before: tuple[list[str], bool] | None = None
    for found in short_lines(text):
        if before is not None:
            yield before
        before = found
    if before is not None and before[0] != [""]:
        yield before


class LineEnds:
    """Other line ends than LF, which are turned into it: how many, and where the first ones are."""

    def __init__(self) -> None:
        self.counts = {"CR LF": 0, "CR": 0}
        self.first: dict[str, int] = {}

    def seen_in(self, text: Text, number: int) -> Iterator[str]:
        """The text as it is read; its first line has that number among those of all texts."""
        held = ""
        for piece in text.read():
            yield piece
            piece, held = held + piece, ""
            if piece.endswith("\r"):  # the next piece tells what it is
                piece, held = piece[:-1], "\r"
            number = self._count(piece, number)
        self._count(held, number)

    def _count(self, piece: str, number: int) -> int:
        """Returns the number of the line that the piece ends in."""
        if "\r" not in piece:
            return number + piece.count("\n")
        pairs = piece.count("\r\n")
        for name, count in (("CR LF", pairs), ("CR", piece.count("\r") - pairs)):
            self.counts[name] += count
            if count and name not in self.first:
                at = re.search("\r\n" if name == "CR LF" else "\r(?!\n)", piece)
                assert at is not None
                before = piece[: at.start()]
                self.first[name] = number + len(re.findall("\r\n|\r|\n", before))
        return number + piece.count("\n") + piece.count("\r") - pairs

    def found(self) -> Iterator[Found]:
        """They need no mending."""
        for name, count in self.counts.items():
            if count:
                what = f"lines that end with {name} instead of LF, which is mended by itself"
                yield Found(Finding(name="line ends", what=what, count=count), self.first[name])


def _placed(found: Found, texts: list[Text], starts: list[int]) -> Finding:
    """The finding with the place of its example, and what stands there if it has no example yet;
    secrets are taken out of it."""
    if found.line is None:
        return found.finding
    which = int(np.searchsorted(starts, found.line, side="right")) - 1
    number = found.line - starts[which]
    where = f"line {number + 1:,}"
    if len(texts) > 1:
        where = f"{texts[which].name}, {where}"
    example = masked(found.finding.example or _line_of(texts[which], number))
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
