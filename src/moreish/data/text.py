"""A source (built-in name, file or folder) to a `Corpus` of items or of running text."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moreish.data import catalog
from moreish.errors import MoreishError, nearest

Kind = Literal["lines", "text"]

MAX_LINE = 80
MEDIAN_LINE = 40
"""Longer lines than these are prose, not items. A guess, printed, and overruled by `--as`."""

BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Clean text: `documents` are the items where `kind` is "lines", else the files, whole."""

    name: str
    kind: Kind
    documents: list[str]
    notes: list[str] = field(default_factory=list)
    """What was done to the text or guessed of it, for the user to read."""

    @property
    def has_boundary(self) -> bool:
        """Items, or several documents, need a token for where one ends."""
        return self.kind == "lines" or len(self.documents) > 1


def read_corpus(source: str, kind: Kind | None = None, encoding: str = "utf-8") -> Corpus:
    """Read `source`; `kind` None guesses from the look of the lines.

    Raises:
        MoreishError: there is no such source, it holds no text, or it is not in `encoding`.
    """
    path = Path(source).expanduser()
    notes: list[str] = []
    if source in catalog.CATALOG:
        name, raw_texts = source, [catalog.load(source)]
        kind = kind or ("lines" if catalog.CATALOG[source].kind == "lines" else "text")
    elif path.is_dir():
        name, raw_texts = path.resolve().name, list(_folder(path, encoding, notes))
        if not raw_texts:
            raise MoreishError(f"no text files in folder {path}")
    elif path.is_file():
        name, raw_texts = path.stem, [_decode(path, encoding, notes)]
    elif path.exists():
        raise MoreishError(f"{path} is neither a file nor a folder")
    else:
        hint = nearest(source, catalog.CATALOG)
        raise MoreishError(f"no file, folder or built-in data set '{source}': {hint}")

    texts = [_clean(text, notes) for text in raw_texts]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise MoreishError(f"{source} is empty: there is no text to learn from")
    if kind is None:
        kind = guess_kind(texts)
        other = "text" if kind == "lines" else "lines"
        looks = "a list, one item a line" if kind == "lines" else "running text"
        notes.append(f"it looks like {looks} (if not: --as {other})")
    if kind == "text":
        return Corpus(name=name, kind=kind, documents=texts, notes=notes)
    lines = [line.strip() for text in texts for line in text.split("\n")]
    items = [line for line in lines if line]
    if blank := len(lines) - len(items) - sum(text.endswith("\n") for text in texts):
        notes.append(f"left out {blank:,} empty line{'s' * (blank > 1)}")
    return Corpus(name=name, kind=kind, documents=items, notes=notes)


def guess_kind(texts: list[str]) -> Kind:
    """Short lines without blank ones between them are items; anything else is running text."""
    lines = [line for text in texts for line in text.rstrip("\n").split("\n")]
    lengths = sorted(len(line.strip()) for line in lines)
    blank = sum(length == 0 for length in lengths)
    if len(lines) < 2 or blank > len(lines) // 50:
        return "text"
    median, long = lengths[len(lengths) // 2], lengths[len(lengths) * 95 // 100]
    return "lines" if median <= MEDIAN_LINE and long <= MAX_LINE else "text"


def _folder(folder: Path, encoding: str, notes: list[str]) -> Iterator[str]:
    """Texts of all files below `folder`, by path; hidden and undecodable files are left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    skipped = []
    for path in paths:
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            yield _decode(path, encoding, notes)
        except MoreishError:
            skipped.append(path.name)
    if skipped:
        shown = ", ".join(skipped[:3]) + (", …" if len(skipped) > 3 else "")
        notes.append(f"left out {len(skipped)} file(s) that are not {encoding} text: {shown}")


def _decode(path: Path, encoding: str, notes: list[str]) -> str:
    raw = path.read_bytes()
    if raw.startswith(codecs.BOM_UTF8) and encoding == "utf-8":
        raw = raw.removeprefix(codecs.BOM_UTF8)
        notes.append(f"left out the byte order mark of {path.name}")
    try:
        text = raw.decode(encoding)
    except LookupError:
        raise MoreishError(f"unknown encoding '{encoding}' (try utf-8 or latin-1)") from None
    except UnicodeDecodeError as error:
        marks = (name for mark, name in BOMS.items() if raw.startswith(mark))
        guess = next(marks, "latin-1")
        raise MoreishError(
            f"{path} is not {encoding}: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            f"say how it is encoded, e.g. --encoding {guess}"
        ) from None
    if (at := text.find("\0")) >= 0:
        raise MoreishError(
            f"{path} holds a NUL at character {at}: it is a binary file, or encoded otherwise "
            "(e.g. --encoding utf-16)"
        )
    return text


def _clean(text: str, notes: list[str]) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        notes.append("turned Windows line ends (CR LF) into LF")
    return text
