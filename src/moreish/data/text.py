"""A source (built-in name, file or folder) to a `Corpus` of items or of running text."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moreish.data import catalog
from moreish.errors import MoreishError, command, nearest

Kind = Literal["lines", "text"]

MAX_LINE = 80
MEDIAN_LINE = 40
"""Longer lines than these are prose, not items. A guess, printed, and overruled by `--as`."""

JUDGED = 100_000
"""Lines of a file that are looked at to guess."""

BOMS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
"""Byte order marks by the encoding that they announce, longer ones before their own beginnings."""


SURROGATE = re.compile("[\ud800-\udfff]")
"""What no text may hold: one half of a pair that only UTF-16 needs."""


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
    if not source:
        raise MoreishError("the source is empty: name a built-in data set, a file or a folder")
    path = Path(source).expanduser()
    notes: list[str] = []
    if source in catalog.CATALOG:
        name, raw_texts = source, [catalog.load(source)]
        kind = kind or ("lines" if catalog.CATALOG[source].kind == "lines" else "text")
    elif path.is_dir():
        name, raw_texts = path.resolve().name, list(_folder(path, encoding, notes))
        if not raw_texts:
            raise MoreishError(f"no text files in folder {path}{''.join(f'; {n}' for n in notes)}")
    elif path.is_file():
        name, raw_texts = path.stem, [_decode(path, encoding, notes)]
    elif path.exists():
        raise MoreishError(f"{path} is neither a file nor a folder")
    else:
        hint = nearest(source, catalog.CATALOG)
        raise MoreishError(f"no file, folder or built-in data set '{source}': {hint}")

    if any("\r" in text for text in raw_texts):
        notes.append("turned other line ends (CR LF, CR) into LF")
    texts = [text for text in map(with_line_feeds, raw_texts) if text.strip()]
    if not texts:
        raise MoreishError(f"{source} is empty: there is no text to learn from")
    if kind is None:
        kind = guess_kind(texts)
        other = "text" if kind == "lines" else "lines"
        looks = "a list, one item a line" if kind == "lines" else "running text"
        notes.append(f"it looks like {looks} (if not: --as {other})")
    if kind == "text":
        return Corpus(name=name, kind=kind, documents=texts, notes=notes)
    raw_lines = [line for text in texts for line in text.split("\n")]
    lines = [line.strip() for line in raw_lines]
    items = [line for line in lines if line]
    if any(line and line != raw for line, raw in zip(lines, raw_lines, strict=True)):
        notes.append("left out white space at the beginning and end of lines")
    if blank := len(lines) - len(items) - sum(text.endswith("\n") for text in texts):
        notes.append(f"left out {blank:,} empty line{'s' * (blank > 1)}")
    return Corpus(name=name, kind=kind, documents=items, notes=notes)


def guess_kind(texts: list[str]) -> Kind:
    """Short lines without blank ones between them are items; anything else is running text."""
    lines = [line for text in texts for line in text.rstrip("\n").split("\n", JUDGED)[:JUDGED]]
    lengths = sorted(len(line.strip()) for line in lines)
    blank = sum(length == 0 for length in lengths)
    if len(lines) < 2 or blank > len(lines) // 20:
        return "text"
    median, long = lengths[len(lengths) // 2], lengths[len(lengths) * 95 // 100]
    return "lines" if median <= MEDIAN_LINE and long <= MAX_LINE else "text"


def _folder(folder: Path, encoding: str, notes: list[str]) -> Iterator[str]:
    """Texts of all files below `folder`, by path. Hidden and undecodable files are left out, and
    so are run folders: they hold samples and logs, which are no text to learn from."""
    if (folder / "run.json").is_file():
        resume = command("train", "--resume", folder)
        raise MoreishError(f"{folder} is a run, not a text; to go on with it: {resume}")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    runs = {path.parent for path in paths if path.name == "run.json"}
    skipped = []
    for path in paths:
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if not runs.isdisjoint(path.parents):
            continue
        try:
            yield _decode(path, encoding, notes)
        except MoreishError:
            skipped.append(path.name)
    if skipped:
        shown = ", ".join(skipped[:3]) + (", …" if len(skipped) > 3 else "")
        notes.append(f"left out {len(skipped)} file(s) that are not {encoding} text: {shown}")
    if runs:
        notes.append(f"left out {len(runs)} run folder(s)")


def _decode(path: Path, encoding: str, notes: list[str]) -> str:
    text, marked = decode(path.read_bytes(), encoding, str(path))
    if marked:
        notes.append(f"left out the byte order mark of {path.name}")
    return text


def decode(raw: bytes, encoding: str, where: str) -> tuple[str, bool]:
    """Text from bytes, and whether a byte order mark was left out; `where` names it in errors.

    Raises:
        MoreishError: there is no such encoding, or the bytes are not in it.
    """
    try:
        codec = codecs.lookup(encoding).name
        mark = BOMS.get(codec, b"")
        skipped = len(mark) if mark and raw.startswith(mark) else 0
        # These find the mark themselves.
        marked = codec in ("utf-8-sig", "utf-16", "utf-32") and raw.startswith(tuple(BOMS.values()))
        text = raw[skipped:].decode(encoding)
    except LookupError:
        raise MoreishError(f"unknown encoding '{encoding}' (try utf-8 or latin-1)") from None
    except UnicodeDecodeError as error:
        announced = (name[:6] for name, mark in BOMS.items() if raw.startswith(mark))
        guess = next((name for name in announced if name != "utf-8"), "latin-1")
        at = skipped + error.start
        raise MoreishError(
            f"{where} is not {encoding}: byte 0x{raw[at]:02x} at offset {at}; "
            f"say how it is encoded, e.g. --encoding {guess}"
        ) from None
    except UnicodeError as error:
        raise MoreishError(f"{where} is not {encoding}: {error}") from None
    if codec != "utf-8" and (found := SURROGATE.search(text)):  # UTF-8 has none
        raise MoreishError(f"{where} holds half a character ({found[0]!r} at {found.start()})")
    if (at := text.find("\0")) >= 0:
        raise MoreishError(
            f"{where} holds a NUL at character {at}: it is a binary file, or encoded otherwise "
            "(e.g. --encoding utf-16)"
        )
    return text, marked or skipped > 0


def with_line_feeds(text: str) -> str:
    """Lines that end with LF, whatever ended them before (CR LF or CR)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
