"""Reads a source (built-in data set, file or folder) as a corpus of items or of running text."""

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Self

import numpy as np

from moreish.data import catalog
from moreish.data.shard_layout import refuse_prepared
from moreish.data.text.clean import CleaningOptions, clean_texts
from moreish.data.text.decode import (
    NotTextError,
    Text,
    distinct_code_points,
    has_bom,
    text_from_chunks,
)
from moreish.data.text.detect_encoding import first_guess
from moreish.data.text.files import FileFormat, is_table, read_file, uncompressed_name
from moreish.data.text.guess_kind import sign_of_text
from moreish.data.text.lines import CorpusKind, complete_lines
from moreish.errors import MoreishError, command
from moreish.utils.files import summarize_paths, user_path, visible_files
from moreish.utils.text import plural


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    """Statistics of a corpus."""

    documents: int
    distinct: int
    """Number of distinct documents; that of all where `Corpus.count_distinct` is false."""
    characters: int
    shortest: int
    """Characters of the shortest document."""
    longest: int
    """Characters of the longest document."""
    alphabet: str
    """The characters that occur, in code point order."""
    stripped: bool = False
    """Whether items had surrounding whitespace."""
    blank: int = 0
    """Number of lines without an item."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clean text, read chunk by chunk on every iteration: it may be larger than memory."""

    name: str
    kind: CorpusKind
    texts: list[Text]
    """One for each file; none of them is blank."""
    notes: list[str] = field(default_factory=list)
    """What was changed or guessed while reading, for the user."""
    left_out: list[Path] = field(default_factory=list)
    """Files of a folder that are not text, or not in its encoding."""
    texts_of_split: tuple[int, ...] = ()
    """Number of texts of the training, validation and test split, in this order, where each has
    files of its own."""
    count_distinct: bool = True
    """Whether distinct items are counted, which takes some memory for each item."""

    @classmethod
    def of(cls, documents: list[str], kind: CorpusKind, name: str = "corpus") -> Self:
        """Make a corpus of items, or of running texts, that are in memory."""
        texts = ["\n".join(documents)] if kind == "lines" else documents
        return cls(name=name, kind=kind, texts=[text_from_chunks(text) for text in texts])

    def with_held_out(self, *held_out: "Corpus") -> "Corpus":
        """Return this corpus as the training split, with those of validation and test."""
        corpora = (self, *held_out)
        return replace(
            self,
            texts=[text for corpus in corpora for text in corpus.texts],
            texts_of_split=tuple(len(corpus.texts) for corpus in corpora),
        )

    @property
    def has_boundary(self) -> bool:
        """Whether a token is needed for where an item or a document ends."""
        return self.kind == "lines" or len(self.texts) > 1

    def place(self, index: int, line: int) -> str:
        """Return where a line is, for messages.

        Args:
            index: the number of its text.
            line: its number in the text, from 0.
        """
        text = self.texts[index]
        unit = "item" if text.first_line is None and self.kind == "lines" else "line"
        place = f"{unit} {line + (text.first_line or 1):,}"
        several = len(self.texts) > 1
        return f"{text.name or f'document {index + 1:,}'}, {place}" if several else place

    def items(self) -> Iterator[list[str]]:
        """Yield the items of a list, some at a time."""
        assert self.kind == "lines"
        for text in self.texts:
            for lines in complete_lines(text):
                yield [item for line in lines if (item := line.strip())]

    @cached_property
    def stats(self) -> CorpusStats:
        """The statistics, for which all texts are read once."""
        if self.kind == "text":
            return _text_stats(self.texts)
        return _item_stats(self.texts, count_distinct=self.count_distinct)


def _text_stats(texts: list[Text]) -> CorpusStats:
    lengths = [text.stats.characters for text in texts]
    return CorpusStats(
        documents=len(texts),
        distinct=1 if len(texts) == 1 else len(set(map(_digest, texts))),
        characters=sum(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        alphabet=_sorted_characters(point for text in texts for point in text.stats.alphabet),
    )


def _item_stats(texts: list[Text], *, count_distinct: bool) -> CorpusStats:
    hashes, alphabet, stripped, blank = [], set[int](), False, 0
    documents, characters, shortest, longest = 0, 0, sys.maxsize, 0
    for text in texts:
        for lines in complete_lines(text):
            with_item = [line for line in lines if line.strip()]
            blank += len(lines) - len(with_item)
            if not with_item:
                continue
            items = list(map(str.strip, with_item))
            stripped = stripped or items != with_item
            documents += len(items)
            if count_distinct:
                hashes.append(np.fromiter(map(hash, items), np.int64, len(items)))
            lengths = list(map(len, items))
            characters += sum(lengths)
            shortest, longest = min(shortest, min(lengths)), max(longest, max(lengths))
            alphabet.update(distinct_code_points("".join(items)))
        blank -= not lines[-1]  # the line end at the end of a text begins no other line
    return CorpusStats(
        documents=documents,
        distinct=len(np.unique(np.concatenate(hashes))) if count_distinct else documents,
        characters=characters,
        shortest=shortest,
        longest=longest,
        alphabet=_sorted_characters(alphabet),
        stripped=stripped,
        blank=blank,
    )


def _digest(text: Text) -> bytes:
    digest = hashlib.blake2b()
    for chunk in text:
        digest.update(chunk.encode())
    return digest.digest()


def _sorted_characters(points: Iterable[int]) -> str:
    return "".join(map(chr, sorted(set(points))))


def read_corpus(
    source: str | Sequence[str],
    kind: CorpusKind | None = None,
    encoding: str = "utf-8",
    cleaning: CleaningOptions = CleaningOptions(),  # noqa: B008 (it is frozen)
    *,
    column: str | None = None,
    separator: str | None = None,
    count_distinct: bool = True,
) -> Corpus:
    """Read a corpus.

    Args:
        source: one or several of: the name of a built-in data set, a file, a folder of files, or a
            pattern such as `*.txt`.
        kind: list or running text; None guesses.
        encoding: encoding of the files.
        cleaning: changes to the text.
        column, separator: see `FileFormat`.
        count_distinct: see `Corpus`.

    Raises:
        MoreishError: there is no such source, or it has no text.
        NotTextError: it is not in `encoding`.
    """
    file_format = FileFormat(encoding=encoding, column=column, separator=separator)
    reader = _SourceReader(kind, file_format)
    names = [source] if isinstance(source, str) else list(source)
    for name in names:
        reader.read(name)
    found, notes = reader.texts, reader.notes
    shown = ", ".join(names)
    if any(text.stats.had_other_line_ends for text in found):
        notes.append("converted other line ends (CR LF, CR) to LF")
    texts = [text for text in found if not text.stats.is_blank]
    if not texts:
        raise MoreishError(f"{shown} is empty: there is no text to train on")
    kind = kind or reader.known_kind()
    if kind is None:
        sign = sign_of_text(texts, [file.name for file in reader.files])
        kind = "text" if sign else "lines"
        guess = f"running text, by {sign} (if not: --as lines)"
        notes.append(f"it looks like {guess if sign else 'a list of lines (if not: --as text)'}")
    if cleaning != CleaningOptions():
        texts, changes = clean_texts(texts, cleaning, kind)
        texts = [text for text in texts if not text.stats.is_blank]
        if not texts:
            raise MoreishError(
                f"cleaning removes everything from {shown}: use fewer of its options"
            )
        notes.append(", ".join(changes))
    more = f"-and-{len(names) - 1}-more" if len(names) > 1 else ""
    if column is not None:
        more += "-" + re.sub(r"[^\w-]+", "_", column)
    corpus = Corpus(
        name=reader.name + more,
        kind=kind,
        texts=texts,
        notes=notes,
        left_out=reader.left_out,
        count_distinct=count_distinct,
    )
    if corpus.stats.stripped:
        notes.append("left out whitespace at the beginning and end of lines")
    if blank := corpus.stats.blank:
        notes.append(f"left out {plural(blank, 'empty line')}")
    return corpus


def find_lines(corpus: Corpus, parts: Sequence[str]) -> list[str]:
    """Return the place of the first occurrence of each part: the file, if there are several, and
    the line; empty where no text has the part."""
    places = [""] * len(parts)
    for index, text in enumerate(corpus.texts):
        content = "".join(text)
        for number, part in enumerate(parts):
            if not places[number] and part and (at := content.find(part)) >= 0:
                places[number] = corpus.place(index, content.count("\n", 0, at))
    return places


class _SourceReader:
    """Reads sources one after the other, and collects their texts."""

    def __init__(self, kind: CorpusKind | None, file_format: FileFormat) -> None:
        self.kind, self.file_format = kind, file_format
        self.name = ""
        """The name of the first source."""
        self.texts: list[Text] = []
        self.notes: list[str] = []
        self.files: list[Path] = []
        self.left_out: list[Path] = []
        """Files that are not text, or not in the encoding."""
        self._kinds: set[CorpusKind | None] = set()

    def known_kind(self) -> CorpusKind | None:
        """Return the kind if the sources themselves decide it."""
        return next(iter(self._kinds)) if len(self._kinds) == 1 else None

    def read(self, source: str) -> None:
        """Read a source.

        Raises:
            MoreishError: there is no such source, or it cannot be read.
            NotTextError: it is not text in the encoding.
        """
        if not source:
            raise MoreishError("the source is empty: name a built-in data set, a file or a folder")
        path = user_path(source)
        if source in catalog.CATALOG:
            self.name = self.name or source
            self._kinds.add("lines" if catalog.CATALOG[source].kind == "lines" else "text")
            self.texts.append(text_from_chunks(catalog.load_dataset(source)))
        elif path.is_dir():
            self.name = self.name or path.resolve().name
            self._read_folder(path)
        elif path.is_file():
            self.name = self.name or Path(uncompressed_name(path)).stem
            self._read_file(path)
        elif path.exists():
            raise MoreishError(f"{path} is neither a file nor a folder")
        elif matches := sorted(glob(str(path), recursive=True)):  # noqa: PTH207
            for match in matches:
                self.read(match)
        else:
            raise MoreishError(
                f"no file, folder or built-in data set '{source}': {_suggest(source, path)}"
            )

    def _read_file(self, path: Path, *, is_plain: bool = False) -> None:
        found = read_file(path, self.file_format, "text" if is_plain else self.kind)
        for text in found.texts:
            _ = text.stats  # raises NotTextError at once
        if has_bom(path, self.file_format.encoding):
            self.notes.append(f"left out the byte order mark of {path.name}")
        self.files.append(path)
        self.texts += found.texts
        self.notes += found.notes
        self._kinds.add(found.kind)

    def _read_folder(self, folder: Path) -> None:
        """Read all files below `folder`, sorted by path.

        Hidden files, files that cannot be decoded and run folders (samples and logs) are left out.
        """
        refuse_prepared(folder)
        if (folder / "run.json").is_file():
            resume = command("train", "--resume", folder)
            raise MoreishError(f"{folder} is a run, not a text; to resume it: {resume}")
        paths, before = visible_files(folder), len(self.texts)
        runs = {path.parent for path in paths if path.name == "run.json"}
        left_out = []
        # Among other files, JSON is rather a part of a program than a table.
        is_plain = not all(map(is_table, paths)) and self.file_format.column is None
        for path in paths:
            if not runs.isdisjoint(path.parents):
                continue
            try:
                self._read_file(path, is_plain=is_plain and is_table(path))
            except NotTextError:
                left_out.append(path)
        notes = []
        if left_out:
            names, count = summarize_paths(left_out), plural(len(left_out), "file")
            encoding = self.file_format.encoding
            notes.append(f"left out {count} without valid {encoding} text: {names}")
        if runs:
            notes.append(f"left out {plural(len(runs), 'run folder')}")
        if len(self.texts) == before:
            raise _no_text(folder, notes, left_out)
        self.notes += notes
        self.left_out += left_out


def _suggest(source: str, path: Path) -> str:
    """Return the end of the error about a source that does not exist: the nearest name in its
    folder, or what else it may have been meant as."""
    names: list[str] = []
    with suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir()]
    close = get_close_matches(path.name, names, n=1) or get_close_matches(source, catalog.CATALOG)
    if close:
        found = close[0] if close[0] in catalog.CATALOG else str(Path(source).with_name(close[0]))
        return f"did you mean '{found}'?"
    known = f"the built-in ones are {', '.join(sorted(catalog.CATALOG))}"
    return f"{known}; a text itself goes to standard input, -"


def _no_text(folder: Path, notes: list[str], left_out: list[Path]) -> MoreishError:
    """Return the error for a folder without text in the requested encoding."""
    message = "; ".join([f"no text files in folder {folder}", *notes])
    if (found := first_guess(left_out)) is None:
        return MoreishError(message)
    path, guess = found
    advice = f"{guess.option} for {path.name}; for a closer look: {command('doctor', folder)}"
    return NotTextError(f"{message}; {advice}", path)
