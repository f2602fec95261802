"""A source (built-in name, file or folder) to a `Corpus` of items or of running text.

I items, D distinct items.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from moreish.data import catalog
from moreish.data.shard_layout import refuse_prepared
from moreish.data.text.clean import CleaningOptions, clean_texts
from moreish.data.text.decode import Alphabet, NotTextError, Text, has_mark, text_file, text_of
from moreish.data.text.detect_encoding import first_guess
from moreish.data.text.lines import CorpusKind, whole_lines
from moreish.errors import MoreishError, command, nearest
from moreish.tokenizers import Ids
from moreish.utils.files import summarize_paths

MAX_LINE = 80
MEDIAN_LINE = 40
"""Longer lines than these are prose, not items. A guess, printed, and overruled by `--as`."""

JUDGED = 100_000
"""Lines of a file that are looked at to guess."""

LONG = 100_000
"""Characters of a line that are looked at to guess: it is no item."""


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    """What is counted of a corpus."""

    documents: int
    distinct: int
    """All of them, where they were not numbered."""
    characters: int
    shortest: int
    longest: int
    """Characters of a document, like `shortest`."""
    alphabet: str
    """The characters that occur, in code point order."""
    item_ids_I: Ids | None = None
    """Of each item, its number among the distinct ones, in the order in which those come; None
    where they were not numbered, and for running text."""
    stripped: bool = False
    """Items had white space around them."""
    blank: int = 0
    """Lines without an item."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clean text, read piece by piece whenever it is gone through: it may be larger than memory."""

    name: str
    kind: CorpusKind
    texts: list[Text]
    """None of them is blank."""
    notes: list[str] = field(default_factory=list)
    """What was done to the text or guessed of it, for the user to read."""
    left_out: list[Path] = field(default_factory=list)
    """Files of a folder that are no text, or not in its encoding."""
    index_items: bool = True
    """Whether equal items are told from others, which takes forty bytes of memory for each item."""

    @classmethod
    def of(cls, documents: list[str], kind: CorpusKind, name: str = "corpus") -> Self:
        """Documents that are in memory already: items, or running texts."""
        texts = ["\n".join(documents)] if kind == "lines" else documents
        return cls(name=name, kind=kind, texts=[text_of(text) for text in texts])

    @property
    def has_boundary(self) -> bool:
        """Items, or several documents, need a token for where one ends."""
        return self.kind == "lines" or len(self.texts) > 1

    def items(self) -> Iterator[list[str]]:
        """The items of a list, some at a time."""
        assert self.kind == "lines"
        for text in self.texts:
            for lines in whole_lines(text):
                yield [item for line in lines if (item := line.strip())]

    @cached_property
    def facts(self) -> CorpusStats:
        """Takes a reading, where one has not been taken yet."""
        if self.kind == "text":
            return _facts_of_texts(self.texts)
        return _facts_of_items(self.texts, index_items=self.index_items)


def _facts_of_texts(texts: list[Text]) -> CorpusStats:
    lengths = [text.survey.characters for text in texts]
    return CorpusStats(
        documents=len(texts),
        distinct=1 if len(texts) == 1 else len({_digest(text) for text in texts}),
        characters=sum(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        alphabet=_characters(frozenset().union(*(text.survey.alphabet for text in texts))),
    )


def _facts_of_items(texts: list[Text], *, index_items: bool) -> CorpusStats:
    hashes, alphabet, stripped, blank = [], Alphabet(), False, 0
    documents, characters, shortest, longest = 0, 0, sys.maxsize, 0
    for text in texts:
        for lines in whole_lines(text):
            kept = [line for line in lines if line.strip()]
            items = [line.strip() for line in kept]
            blank += len(lines) - len(kept)
            if not kept:
                continue
            stripped = stripped or items != kept
            documents += len(items)
            if index_items:
                # Two items of a billion may share a hash: they then stay on one side, like copies.
                hashes.append(np.fromiter(map(hash, items), np.int64, len(items)))
            lengths = np.fromiter(map(len, items), np.int64, len(items))
            characters += int(lengths.sum())
            shortest, longest = min(shortest, int(lengths.min())), max(longest, int(lengths.max()))
            alphabet.add("".join(items))
        blank -= not lines[-1]  # the line end at the end of a text begins no other line
    item_ids_I, distinct = (
        _number_items(np.concatenate(hashes)) if index_items else (None, documents)
    )
    return CorpusStats(
        documents=documents,
        distinct=distinct,
        characters=characters,
        shortest=shortest,
        longest=longest,
        alphabet=_characters(alphabet.points),
        item_ids_I=item_ids_I,
        stripped=stripped,
        blank=blank,
    )


def _number_items(hashes_I: Ids) -> tuple[Ids, int]:
    """Number the distinct items; return the number of each item and how many there are."""
    _, first_D, which_I = np.unique(hashes_I, return_index=True, return_inverse=True)
    number_D = np.empty_like(first_D)
    number_D[np.argsort(first_D)] = np.arange(len(first_D))
    return number_D[which_I], len(first_D)


def _digest(text: Text) -> bytes:
    digest = hashlib.blake2b()
    for piece in text:
        digest.update(piece.encode())
    return digest.digest()


def _characters(points: Iterable[int]) -> str:
    return "".join(map(chr, sorted(points)))


def read_corpus(
    source: str,
    kind: CorpusKind | None = None,
    encoding: str = "utf-8",
    cleaning: CleaningOptions = CleaningOptions(),  # noqa: B008 (it cannot be changed)
    *,
    index_items: bool = True,
) -> Corpus:
    """Understand `source`; `kind` None guesses from the look of the lines.

    Args:
        numbered: see `Corpus`.

    Raises:
        MoreishError: there is no such source, it holds no text, or it is not in `encoding`.
    """
    if not source:
        raise MoreishError("the source is empty: name a built-in data set, a file or a folder")
    path = Path(source).expanduser()
    notes: list[str] = []
    left_out: list[Path] = []
    if source in catalog.CATALOG:
        name, found = source, [text_of(catalog.load_dataset(source))]
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

    if any(text.survey.other_line_ends for text in found):
        notes.append("turned other line ends (CR LF, CR) into LF")
    texts = [text for text in found if not text.survey.blank]
    if not texts:
        raise MoreishError(f"{source} is empty: there is no text to learn from")
    if kind is None:
        kind = guess_kind(texts)
        other = "text" if kind == "lines" else "lines"
        looks = "a list, one item a line" if kind == "lines" else "running text"
        notes.append(f"it looks like {looks} (if not: --as {other})")
    if cleaning != CleaningOptions():
        texts, done = clean_texts(texts, cleaning, kind)
        texts = [text for text in texts if not text.survey.blank]
        if not texts:
            raise MoreishError(f"mending leaves nothing of {source}")
        notes.append(", ".join(done))
    corpus = Corpus(
        name=name, kind=kind, texts=texts, notes=notes, left_out=left_out, index_items=index_items
    )
    if corpus.facts.stripped:
        notes.append("left out white space at the beginning and end of lines")
    if blank := corpus.facts.blank:
        notes.append(f"left out {blank:,} empty line{'s' * (blank > 1)}")
    return corpus


def guess_kind(texts: Iterable[Iterable[str]]) -> CorpusKind:
    """Short lines without blank ones between them are items; anything else is running text."""
    lengths = sorted(length for text in texts for length in _first_lengths(text))
    blank = sum(length == 0 for length in lengths)
    if len(lengths) < 2 or blank > len(lengths) // 20:
        return "text"
    median, long = lengths[len(lengths) // 2], lengths[len(lengths) * 95 // 100]
    return "lines" if median <= MEDIAN_LINE and long <= MAX_LINE else "text"


def _first_lengths(text: Iterable[str]) -> list[int]:
    """Of the first lines, without white space around them; empty lines at the end are none."""
    lengths: list[int] = []
    used, rest = 0, ""
    for piece in chain(text, "\n"):
        *lines, rest = (rest + piece).split("\n")
        rest = rest[:LONG]
        for line in lines:
            if len(lengths) < JUDGED:
                lengths.append(len(line.strip()))
            if line:
                used = len(lengths)
        if used == JUDGED:
            break
    return lengths[:used]


def _no_text(folder: Path, notes: list[str], left_out: list[Path]) -> MoreishError:
    """What is wrong with a folder that holds no text in the encoding that was asked for."""
    words = f"no text files in folder {folder}{''.join(f'; {note}' for note in notes)}"
    if (found := first_guess(left_out)) is None:
        return MoreishError(words)
    path, guess = found
    look = command("doctor", folder)
    error = NotTextError(f"{words}; {guess.words} for {path.name}; for a closer look: {look}")
    error.path = path
    return error


def _folder(folder: Path, encoding: str, notes: list[str], left_out: list[Path]) -> Iterator[Text]:
    """Texts of all files below `folder`, by path. Hidden and undecodable files are left out, and
    so are run folders: they hold samples and logs, which are no text to learn from."""
    if (folder / "run.json").is_file():
        resume = command("train", "--resume", folder)
        raise MoreishError(f"{folder} is a run, not a text; to go on with it: {resume}")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    runs = {path.parent for path in paths if path.name == "run.json"}
    for path in paths:
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if not runs.isdisjoint(path.parents):
            continue
        try:
            yield _file(path, encoding, notes)
        except NotTextError:
            left_out.append(path)
    if left_out:
        names = summarize_paths(left_out)
        notes.append(f"left out {len(left_out)} file(s) that are not {encoding} text: {names}")
    if runs:
        notes.append(f"left out {len(runs)} run folder(s)")


def _file(path: Path, encoding: str, notes: list[str]) -> Text:
    """The text of a file, which is known to be one. Raises NotTextError when it is none."""
    text = text_file(path, encoding)
    _ = text.survey
    if has_mark(path, encoding):
        notes.append(f"left out the byte order mark of {path.name}")
    return text
