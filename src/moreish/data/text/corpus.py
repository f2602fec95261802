"""Reads a source (built-in data set, file or folder) as a corpus of items or of running text."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
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
    text_from_file,
)
from moreish.data.text.detect_encoding import first_guess
from moreish.data.text.guess_kind import sign_of_text
from moreish.data.text.lines import CorpusKind, complete_lines
from moreish.errors import MoreishError, command, nearest
from moreish.utils.files import summarize_paths, visible_files
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
    count_distinct: bool = True
    """Whether distinct items are counted, which takes some memory for each item."""

    @classmethod
    def of(cls, documents: list[str], kind: CorpusKind, name: str = "corpus") -> Self:
        """Make a corpus of items, or of running texts, that are in memory."""
        texts = ["\n".join(documents)] if kind == "lines" else documents
        return cls(name=name, kind=kind, texts=[text_from_chunks(text) for text in texts])

    @property
    def has_boundary(self) -> bool:
        """Whether a token is needed for where an item or a document ends."""
        return self.kind == "lines" or len(self.texts) > 1

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
    source: str,
    kind: CorpusKind | None = None,
    encoding: str = "utf-8",
    cleaning: CleaningOptions = CleaningOptions(),  # noqa: B008 (it is frozen)
    *,
    count_distinct: bool = True,
) -> Corpus:
    """Read a corpus.

    Args:
        source: name of a built-in data set, a file, or a folder of text files.
        kind: list or running text; None guesses.
        encoding: encoding of the files.
        cleaning: changes to the text.
        count_distinct: see `Corpus`.

    Raises:
        MoreishError: there is no such source, or it has no text.
        NotTextError: it is not in `encoding`.
    """
    if not source:
        raise MoreishError("the source is empty: name a built-in data set, a file or a folder")
    path = Path(source).expanduser()
    notes: list[str] = []
    left_out: list[Path] = []
    if source in catalog.CATALOG:
        name, found = source, [text_from_chunks(catalog.load_dataset(source))]
        kind = kind or ("lines" if catalog.CATALOG[source].kind == "lines" else "text")
    elif path.is_dir():
        refuse_prepared(path)
        name, found = path.resolve().name, list(_folder(path, encoding, notes, left_out))
        if not found:
            raise _no_text(path, notes, left_out)
    elif path.is_file():
        name, found = path.stem, [_file(path, encoding, notes)]
    elif path.exists():
        raise MoreishError(f"{path} is neither a file nor a folder")
    else:
        hint = nearest(source, catalog.CATALOG)
        raise MoreishError(f"no file, folder or built-in data set '{source}': {hint}")

    if any(text.stats.had_other_line_ends for text in found):
        notes.append("converted other line ends (CR LF, CR) to LF")
    texts = [text for text in found if not text.stats.is_blank]
    if not texts:
        raise MoreishError(f"{source} is empty: there is no text to train on")
    if kind is None:
        files = visible_files(path) if path.is_dir() else [path]
        names = [file.name for file in files]
        sign = sign_of_text(texts, names)
        kind = "text" if sign else "lines"
        guess = f"running text, by {sign} (if not: --as lines)"
        notes.append(f"it looks like {guess if sign else 'a list of lines (if not: --as text)'}")
    if cleaning != CleaningOptions():
        texts, changes = clean_texts(texts, cleaning, kind)
        texts = [text for text in texts if not text.stats.is_blank]
        if not texts:
            raise MoreishError(
                f"cleaning removes everything from {source}: use fewer of its options"
            )
        notes.append(", ".join(changes))
    corpus = Corpus(
        name=name,
        kind=kind,
        texts=texts,
        notes=notes,
        left_out=left_out,
        count_distinct=count_distinct,
    )
    if corpus.stats.stripped:
        notes.append("left out whitespace at the beginning and end of lines")
    if blank := corpus.stats.blank:
        notes.append(f"left out {plural(blank, 'empty line')}")
    return corpus


def _no_text(folder: Path, notes: list[str], left_out: list[Path]) -> MoreishError:
    """Return the error for a folder without text in the requested encoding."""
    message = "; ".join([f"no text files in folder {folder}", *notes])
    if (found := first_guess(left_out)) is None:
        return MoreishError(message)
    path, guess = found
    advice = f"{guess.option} for {path.name}; for a closer look: {command('doctor', folder)}"
    return NotTextError(f"{message}; {advice}", path)


def _folder(folder: Path, encoding: str, notes: list[str], left_out: list[Path]) -> Iterator[Text]:
    """Yield the texts of all files below `folder`, sorted by path.

    Hidden files, files that cannot be decoded and run folders (samples and logs) are left out.
    """
    if (folder / "run.json").is_file():
        resume = command("train", "--resume", folder)
        raise MoreishError(f"{folder} is a run, not a text; to resume it: {resume}")
    paths = visible_files(folder)
    runs = {path.parent for path in paths if path.name == "run.json"}
    for path in paths:
        if not runs.isdisjoint(path.parents):
            continue
        try:
            yield _file(path, encoding, notes)
        except NotTextError:
            left_out.append(path)
    if left_out:
        names = summarize_paths(left_out)
        count = plural(len(left_out), "file")
        notes.append(f"left out {count} without valid {encoding} text: {names}")
    if runs:
        notes.append(f"left out {plural(len(runs), 'run folder')}")


def _file(path: Path, encoding: str, notes: list[str]) -> Text:
    """Return the text of a file. Raises NotTextError at once if it is not text."""
    text = text_from_file(path, encoding)
    _ = text.stats
    if has_bom(path, encoding):
        notes.append(f"left out the byte order mark of {path.name}")
    return text
