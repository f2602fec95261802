"""The audit of a text: one pass that finds what may spoil a model of it.

The flow is `audit_source` (read, detect the encoding) → `audit_corpus` (pass every block of lines
to every check of `checks` and `duplicates`) → `AuditReport` (findings with a count, an example, its
line, and the option of `moreish train` that fixes it).
"""

import codecs
import json
import re
import shlex
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from moreish.data.audit.checks import (
    CharacterCheck,
    Finding,
    LineBlock,
    LineCheck,
    LocatedFinding,
    PatternCheck,
    Tally,
)
from moreish.data.audit.duplicates import DuplicateCheck
from moreish.data.text import (
    MAX_EXAMPLE,
    MISREAD,
    MOJIBAKE,
    CleaningOptions,
    Corpus,
    CorpusKind,
    NotTextError,
    Text,
    UnsupportedFileError,
    bounded_lines,
    distinct_code_points,
    first_guess,
    guess_encoding,
    mask_secrets,
    normalize_newlines,
    read_corpus,
)
from moreish.errors import MoreishError, command
from moreish.python_errors import spell
from moreish.utils.files import read_json
from moreish.utils.text import plural

MIN_CHARACTERS = 10_000
"""Characters below which a text is reported as little."""

ProgressCallback = Callable[[float], None]


@dataclass(frozen=True, kw_only=True, repr=False)
class AuditReport:
    """The size of a text and the problems found in it."""

    name: str
    kind: CorpusKind
    documents: int
    lines: int
    characters: int
    distinct_characters: int
    is_complete: bool
    """Whether the whole text was checked, not only its beginning."""
    source_args: list[str]
    """The source and the options it was read with, as command-line arguments."""
    notes: list[str]
    """What was changed or guessed while reading the text."""
    findings: list[Finding]
    """Warnings first."""

    @property
    def size(self) -> str:
        """The name of the text, and how large it is."""
        if self.kind == "examples":
            size = f"{plural(self.documents, 'example')}, {plural(self.characters, 'character')}"
            return f"{self.name}: {size} ({self.distinct_characters:,} distinct)"
        kind = "list of" if self.kind == "lines" else "running text of"
        has_several = self.kind == "text" and self.documents > 1
        parts = f" in {plural(self.documents, 'document')}" if has_several else ""
        size = f"{plural(self.lines, 'line')}{parts}, {plural(self.characters, 'character')}"
        return f"{self.name}: {kind} {size} ({self.distinct_characters:,} distinct)"

    def __repr__(self) -> str:
        """Return the findings as text: `!` marks warnings."""
        lines = [
            f"{'!' if finding.severity == 'warning' else '·'} {finding.summary}  "
            f"{spell(finding.fix_label)}".rstrip()
            for finding in self.findings
        ]
        lines = lines or ["No problems found."]
        notes = map(spell, self.notes)
        return "\n".join([self.size, *notes, *lines, *filter(None, [spell(self.fix_command)])])

    @property
    def fixes(self) -> str:
        """All options of `moreish train` that fix something and remove little of the text."""
        return " ".join(dict.fromkeys(f.fix for f in self.findings if f.fix and not f.loss))

    @property
    def fix_command(self) -> str:
        """A sentence with the command that applies all fixes; empty if there are none."""
        arguments = self.source_args
        is_misread = any(finding.name == MOJIBAKE for finding in self.findings)
        if "--encoding" in arguments and ("--encoding" in self.fixes or is_misread):
            at = arguments.index("--encoding")  # a wrong one
            arguments = arguments[:at] + arguments[at + 2 :]
        if not self.fixes and arguments == self.source_args:
            return ""
        guess = (
            ", if the guess is right" if any(f.fix and f.is_guess for f in self.findings) else ""
        )
        train = command("train", *arguments)
        return f"To fix this while training{guess}: {train} {self.fixes}".rstrip()

    def encode(self) -> bytes:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a report that `save` wrote, in this version or in 0.1.0.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not such a report.
        """
        try:
            report = _rename(read_json(path))
            findings = list(map(_rename, report["findings"]))
            for finding in findings:
                if isinstance(finding.get("severity"), bool):
                    finding["severity"] = "warning" if finding["severity"] else "note"
            return cls(**{**report, "findings": [Finding(**finding) for finding in findings]})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(str(error)) from None


_OLD_FIELDS = {
    "alphabet": "distinct_characters",
    "whole": "is_complete",
    "given": "source_args",
    "what": "description",
    "about": "is_estimate",
    "where": "location",
    "mend": "fix",
    "guess": "is_guess",
    "grave": "severity",
}
"""Names of fields of reports and findings in 0.1.0, and their present names."""


def _rename(fields: dict[str, Any]) -> dict[str, Any]:
    return {_OLD_FIELDS.get(name, name): value for name, value in fields.items()}


def audit_source(
    source: str | Sequence[str],
    kind: CorpusKind | None = None,
    encoding: str = "utf-8",
    cleaning: CleaningOptions | None = None,
    *,
    column: str | None = None,
    separator: str | None = None,
    source_args: Sequence[str] = (),
    progress: ProgressCallback = lambda share: None,
) -> AuditReport:
    """Read `source` as training does, and audit all of it.

    A file in another encoding is read in the encoding it seems to have, and reported.

    Args:
        source, kind, column, separator: see `read_corpus`.
        encoding: encoding to try first.
        cleaning: changes to the text before it is audited.
        source_args: see `AuditReport`.
        progress: called with the share that has been checked, between 0 and 1.

    Raises:
        MoreishError: see `read_corpus`; or the encoding cannot be guessed.
    """
    cleaning = cleaning or CleaningOptions()
    encoding_findings: list[Finding] = []
    read = partial(
        read_corpus,
        source,
        kind,
        cleaning=cleaning,
        column=column,
        separator=separator,
        count_distinct=False,
    )
    try:
        corpus = read(encoding=encoding)
    except UnsupportedFileError:
        raise
    except NotTextError as error:
        problem = str(error).partition(";")[0]
        guess = error.path and guess_encoding(error.path)
        if not guess or codecs.lookup(guess.encoding) == codecs.lookup(encoding):
            hint = "name its encoding, which is hard to guess"
            raise NotTextError(f"{problem}; {hint}") from None
        advice = "" if guess.is_certain else "; the example shows which guess is right"
        encoding_findings.append(
            Finding(
                name="encoding",
                description=f"files in another encoding ({problem}){advice}",
                count=1,
                location=str(error.path) if guess.example else "",
                example=guess.example,
                fix=f"--encoding {guess.encoding}",
                is_guess=not guess.is_certain,
                severity="warning",
            )
        )
        try:
            corpus = read(encoding=guess.encoding)
        except NotTextError as wrong_guess:  # a byte order mark that the rest does not follow
            raise MoreishError(str(wrong_guess).partition(";")[0]) from None
    report = audit_corpus(corpus, source_args=source_args, progress=progress)
    findings = report.findings
    if not encoding_findings and codecs.lookup(encoding).name == "iso8859-1":
        # The ellipsis of Windows-1252 is a rare line separator in Latin-1.
        name = "control characters" if "\x85" in corpus.stats.alphabet else ""
        name = MISREAD if any(f.name == MISREAD for f in findings) else name
        fix = "--encoding cp1252"
        findings = [replace(f, fix=fix, is_guess=True) if f.name == name else f for f in findings]
    return replace(report, findings=[*encoding_findings, *findings])


def audit_corpus(
    corpus: Corpus,
    *,
    max_characters: int | None = None,
    source_args: Sequence[str] = (),
    progress: ProgressCallback = lambda share: None,
) -> AuditReport:
    """Audit `corpus`.

    Args:
        corpus: the texts to check.
        max_characters: number of characters to check, from the beginning; None checks everything.
        source_args: see `AuditReport`.
        progress: called with the share that has been checked, between 0 and 1.
    """
    total = sum(text.stats.characters for text in corpus.texts)
    limit = total if max_characters is None else min(max_characters, total)
    is_complete = limit == total
    checks = [
        PatternCheck(),
        LineCheck(corpus.kind),
        CharacterCheck(corpus.kind, is_complete=is_complete),
        DuplicateCheck(corpus, is_complete=is_complete),
    ]
    line_ends = LineEndCounter()
    first_lines, number, characters = [], 0, 0
    for text in corpus.texts:
        if characters >= limit:
            break
        first_lines.append(number)
        starts_inside = False
        for lines, ends_inside in _audited_lines(normalize_newlines(line_ends.count(text, number))):
            joined = "\n".join(lines)
            points = frozenset(distinct_code_points(joined))
            block = LineBlock(lines, joined, points, number, characters, starts_inside, ends_inside)
            for check in checks:
                check.update(block)
            number += len(lines) - ends_inside
            characters += len(joined) + (not ends_inside)
            starts_inside = ends_inside
            progress(min(1.0, characters / limit))
            if characters >= limit and not is_complete:
                break
    located = [*line_ends.findings(), *(each for check in checks for each in check.findings())]
    findings = [_with_location(each, corpus, first_lines) for each in located]
    if any(finding.name == MISREAD for finding in findings):  # --clean would delete letters
        findings = [replace(f, fix="") if f.fix == "--clean" else f for f in findings]
    if corpus.left_out:
        findings.append(_left_out(corpus.left_out))
    if (characters := corpus.stats.characters) < MIN_CHARACTERS:
        description = "characters, so few that n-gram counts may predict better than a network"
        findings.append(Finding(name="little text", description=description, count=characters))
    return AuditReport(
        name=corpus.name,
        kind=corpus.kind,
        documents=corpus.stats.documents,
        lines=number,
        characters=corpus.stats.characters,
        distinct_characters=len(corpus.stats.alphabet),
        is_complete=is_complete,
        source_args=list(source_args),
        notes=corpus.notes,
        findings=sorted(findings, key=lambda finding: finding.severity != "warning"),
    )


def _left_out(paths: list[Path]) -> Finding:
    """Report the files of a folder that were not read: images, or text in another encoding."""
    finding = Finding(
        name="files left out",
        description="files left out because they are not text in the encoding of the other files",
        count=len(paths),
        example=paths[0].name,
    )
    if (found := first_guess(paths)) is None:
        return finding
    path, guess = found
    convert = f"iconv -f {guess.encoding} -t utf-8 {shlex.quote(str(path))} > NEW"
    return replace(
        finding,
        conversion=convert,
        is_guess=not guess.is_certain,
        location=str(path),
        example=guess.example,
        severity="warning",
    )


def _audited_lines(text: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield `bounded_lines`, without the empty line after the last line end."""
    held: tuple[list[str], bool] | None = None
    for block in bounded_lines(text):
        if held is not None:
            yield held
        held = block
    if held is not None and held[0] != [""]:
        yield held


class LineEndCounter:
    """Counts line ends other than LF, before reading converts them to LF."""

    def __init__(self) -> None:
        self.tallies = {"CR LF": Tally(), "CR": Tally()}

    def count(self, text: Text, number: int) -> Iterator[str]:
        """Yield the unconverted chunks of `text`, whose first line has this number."""
        held = ""
        for chunk in text.read():
            yield chunk
            chunk, held = held + chunk, ""
            if chunk.endswith("\r"):  # the next chunk may begin with LF
                chunk, held = chunk[:-1], "\r"
            number = self._count_chunk(chunk, number)
        self._count_chunk(held, number)

    def _count_chunk(self, chunk: str, number: int) -> int:
        """Count one chunk; return the number of the line that it ends in."""
        returns, pairs = chunk.count("\r"), chunk.count("\r\n")
        for name, count in (("CR LF", pairs), ("CR", returns - pairs)):
            tally = self.tallies[name]
            if count and not tally.count:
                at = re.search("\r\n" if name == "CR LF" else "\r(?!\n)", chunk)
                assert at is not None
                tally.line = number + len(re.findall("\r\n|\r|\n", chunk[: at.start()]))
            tally.count += count
        return number + chunk.count("\n") + returns - pairs

    def findings(self) -> Iterator[LocatedFinding]:
        """Yield a note for each other kind of line end."""
        for name, tally in self.tallies.items():
            if tally.count:
                description = f"lines that end with {name} instead of LF (converted automatically)"
                yield tally.finding(name="line ends", description=description)


def _with_location(located: LocatedFinding, corpus: Corpus, first_lines: list[int]) -> Finding:
    """Add the location of the example, and the line as an example if there is none yet.

    Secrets in the example are masked.
    """
    finding, line = located
    if line is None:
        return finding
    index = bisect_right(first_lines, line) - 1
    text, number = corpus.texts[index], line - first_lines[index]
    example = mask_secrets(finding.example or _read_line(text, number))
    if len(example) > MAX_EXAMPLE:
        example = example[: MAX_EXAMPLE - 1] + "…"
    return replace(finding, location=corpus.place(index, number), example=example)


def _read_line(text: Text, number: int) -> str:
    """Return the line of that number, from 0, by reading the text again up to it."""
    for lines, ends_inside in bounded_lines(text):
        if number < len(lines):
            return lines[number]
        number -= len(lines) - ends_inside
    return ""
