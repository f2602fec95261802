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

from moreish.data.audit.checks import (
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
from moreish.data.audit.duplicates import Copies
from moreish.data.split import SplitRule
from moreish.data.text import (
    MISREAD,
    SHOWN,
    CleaningOptions,
    Corpus,
    CorpusKind,
    NotTextError,
    Text,
    first_guess,
    guess_encoding,
    masked,
    normalize_newlines,
    read_corpus,
    short_lines,
)
from moreish.errors import MoreishError, command
from moreish.tokenizers import code_points
from moreish.utils.files import read_json, write_atomic

FEW = 10_000
"""Characters below which there is little to learn from."""

TOKENS_PER_PARAMETER = 20
"""Tokens (Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models")."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What the doctor says of a text."""

    name: str
    kind: CorpusKind
    documents: int
    lines: int
    characters: int
    distinct_characters: int
    is_complete: bool
    """Whether all of it was looked at, or only the beginning."""
    source_args: list[str]
    """The source, and the options that it was read with."""
    notes: list[str]
    """What was done to the text, or guessed of it."""
    findings: list[Finding]
    """Warnings first."""

    @property
    def fixes(self) -> str:
        """All options that mend something."""
        return " ".join(dict.fromkeys(f.fix for f in self.findings if f.fix))

    @property
    def fix_command(self) -> str:
        """The command that mends it, for people; nothing where nothing does."""
        if not self.fixes:
            return ""
        given = self.source_args
        if "--encoding" in self.fixes and "--encoding" in given:  # another one
            at = given.index("--encoding")
            given = given[:at] + given[at + 2 :]
        guess = ", if that guess is right" if any(f.is_guess for f in self.findings) else ""
        return f"Mended while it is read{guess}: {command('train', *given)} {self.fixes}"

    def save(self, path: Path) -> None:
        """As JSON, which `load` reads."""
        write_atomic(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises OSError, or ValueError when it is none."""
        try:
            fields = read_json(path)
            findings = [Finding(**each) for each in fields["findings"]]
            return cls(**{**fields, "findings": findings})
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from None


def audit_source(
    source: str,
    kind: CorpusKind | None = None,
    encoding: str = "utf-8",
    cleaning: CleaningOptions | None = None,
    rule: SplitRule = "seeded",
    *,
    source_args: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> AuditReport:
    """Read `source` as training would, and look at all of it.

    A file in another encoding is read in the one that it seems to have, which is then a finding.

    Args:
        source_args: see `AuditReport`.

    Raises:
        MoreishError: as `read_corpus` does.
    """
    cleaning = cleaning or CleaningOptions()
    wrong: list[Finding] = []
    try:
        corpus = read_corpus(source, kind, encoding, cleaning, index_items=False)
    except NotTextError as error:
        what = str(error).partition(";")[0]
        guess = error.path and guess_encoding(error.path)
        if not guess or codecs.lookup(guess.encoding) == codecs.lookup(encoding):
            hint = "name its encoding, which is hard to guess"
            raise NotTextError(f"{what}; {hint}") from None
        judge = "" if guess.sure else "; judge by the example which it is"
        wrong.append(
            Finding(
                name="encoding",
                description=f"files in another encoding ({what}){judge}",
                count=1,
                location=str(error.path) if guess.shown else "",
                example=guess.shown,
                fix=f"--encoding {guess.encoding}",
                is_guess=not guess.sure,
                severity="warning",
            )
        )
        try:
            corpus = read_corpus(source, kind, guess.encoding, cleaning, index_items=False)
        except NotTextError as cut:  # its mark is that of an encoding, the rest is not
            raise MoreishError(str(cut).partition(";")[0]) from None
    found = audit_corpus(corpus, rule, source_args=source_args, progress=progress)
    findings = found.findings
    if not wrong and _is_latin_1(encoding):
        # What is an ellipsis in Windows-1252 is a line end in Latin-1, which nobody writes.
        which = "control characters" if "\x85" in corpus.facts.alphabet else ""
        which = MISREAD if any(f.name == MISREAD for f in findings) else which
        mend = "--encoding cp1252"
        findings = [replace(f, fix=mend, is_guess=True) if f.name == which else f for f in findings]
    return replace(found, findings=[*wrong, *findings])


def _is_latin_1(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "iso8859-1"


def audit_corpus(
    corpus: Corpus,
    rule: SplitRule = "seeded",
    *,
    most: int | None = None,
    source_args: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> AuditReport:
    """Everything that is found in `corpus`.

    Args:
        rule: of the split.
        most: characters to look at, from the beginning; None for all.
        source_args: see `AuditReport`.
        progress: is told the share that has been read.
    """
    total = sum(text.survey.characters for text in corpus.texts)
    whole = most is None or most >= total
    scope = Scope(
        kind=corpus.kind,
        is_complete=whole,
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
        for lines, goes_on in _lines(normalize_newlines(ends.seen_in(text, number))):
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
    if any(finding.name == MISREAD for finding in findings):  # which it would delete
        findings = [replace(f, fix="") if f.fix == "--clean" else f for f in findings]
    if corpus.left_out:
        findings.append(_left_out(corpus.left_out))
    if total < FEW:
        few = "characters in all, from which counts may learn more than a network"
        findings.append(Finding(name="little text", description=few, count=total))
    return AuditReport(
        name=corpus.name,
        kind=corpus.kind,
        documents=corpus.facts.documents,
        lines=number,
        characters=corpus.facts.characters,
        distinct_characters=len(corpus.facts.alphabet),
        is_complete=whole,
        source_args=list(source_args),
        notes=corpus.notes,
        findings=sorted(findings, key=lambda finding: finding.severity != "warning"),
    )


def _left_out(paths: list[Path]) -> Finding:
    """Files of a folder that are not read: pictures, or text in another encoding."""
    what = "files that are left out, being no text in the encoding of the others"
    if (found := first_guess(paths)) is None:
        return Finding(
            name="files left out", description=what, count=len(paths), example=paths[0].name
        )
    path, guess = found
    return Finding(
        name="files left out",
        description=f"{what}; convert what is text to theirs ({guess.words} reads the example)",
        count=len(paths),
        location=str(path),
        example=guess.shown,
        severity="warning",
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
                yield Found(
                    Finding(name="line ends", description=what, count=count), self.first[name]
                )


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
    return replace(found.finding, location=where, example=_short(example))


def _line_of(text: Text, number: int) -> str:
    """The line of that number, from 0: the text is gone through again as far as it."""
    for lines, goes_on in short_lines(text):
        if number < len(lines):
            return lines[number]
        number -= len(lines) - goes_on
    return ""


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
