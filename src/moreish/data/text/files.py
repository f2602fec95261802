"""Files of users: plain text, compressed or not, tables, and documents with markup."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moreish.data.text.compression import COMPRESSED, decompress
from moreish.data.text.decode import NotTextError, Text, decode_chunks, text_from_chunks
from moreish.data.text.documents import DOCUMENT_READERS, check_is_no_document
from moreish.data.text.guess_kind import MAX_ITEM_LENGTH
from moreish.data.text.lines import CorpusKind
from moreish.errors import MoreishError, command, one_line
from moreish.utils.extras import import_extra
from moreish.utils.text import plural

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")

DEFAULT_COLUMN = "text"
"""The column that holds the text where there are several and none was chosen."""

END_OF_DOCUMENT = "<|endoftext|>"
START_OF_DOCUMENT = "<|startoftext|>"
"""What files of many documents write after and before each, those of GPT-2 first."""

PEEK_CHARACTERS = 1 << 16
"""Characters at the beginning of a file in which `END_OF_DOCUMENT` and a header are looked for."""

TITLED_ROWS = range(5, 200)
"""Numbers of rows below a header with which it can be recognized."""

MAX_FIELD_CHARACTERS = 1 << 30
"""Longest field of a CSV file."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """How to read files."""

    encoding: str = "utf-8"
    column: str | None = None
    """Name or number of the column of tables; None takes the only one, or the one called "text"."""
    separator: str | None = None
    """Text between the documents of a file; None recognizes `END_OF_DOCUMENT`."""


@dataclass(frozen=True, kw_only=True)
class FileTexts:
    """What a file contains."""

    texts: list[Text]
    kind: CorpusKind | None = None
    """Whether these are items or documents, where the format decides it."""
    notes: tuple[str, ...] = ()


def uncompressed_name(path: Path) -> str:
    """Return the name of a file without the suffix of its compression."""
    return path.stem if path.suffix.lower() in COMPRESSED else path.name


def is_table(path: Path) -> bool:
    """Return whether a file is a table, by its suffix."""
    return Path(uncompressed_name(path)).suffix.lower() in TABLES


def read_file(path: Path, file_format: FileFormat, kind: CorpusKind | None) -> FileTexts:
    """Read one file by its suffix.

    Args:
        path: the file.
        file_format: how to read it.
        kind: what the user says the file is; a table that is called a list or running text is read
            as it is, unless a column is chosen.

    Raises:
        MoreishError: a column must be chosen, or the file is damaged or of an unsupported format.
        NotTextError: the file is not text in this encoding.
    """
    suffix = Path(uncompressed_name(path)).suffix.lower()
    if suffix in DOCUMENT_READERS:
        text = text_from_chunks(DOCUMENT_READERS[suffix](path), name=str(path))
        return FileTexts(texts=[text])
    check_is_no_document(path)
    if is_table(path) and (kind is None or file_format.column is not None):
        table = _read_table(path, suffix, file_format)
        if table is not None:
            return _texts_of_values(path, table, kind)
    return _read_text(path, file_format, kind)


def _read_text(path: Path, file_format: FileFormat, kind: CorpusKind | None) -> FileTexts:
    def read() -> Iterator[str]:
        with open_decoded(path, file_format.encoding) as chunks:
            yield from chunks

    if file_format.column is not None:
        raise MoreishError(f"{path} is not a table: leave out --column {file_format.column}")
    text = Text(read, str(path))
    notes: tuple[str, ...] = ()
    suffix = Path(uncompressed_name(path)).suffix.lower()
    if kind == "lines" and suffix in (".csv", ".tsv"):
        beginning = next(iter(text), "")[:PEEK_CHARACTERS]
        if sniff_table(beginning, suffix)[1]:
            text = Text(lambda: _skip_line(read()), str(path), first_line=2)
            header = beginning.partition("\n")[0].strip()
            notes = (f"left out the header of {path.name}: {header}",)
    separator = file_format.separator
    if separator is None and kind != "lines":
        beginning = next(iter(text), "")[:PEEK_CHARACTERS]
        separator = END_OF_DOCUMENT if END_OF_DOCUMENT in beginning else None
    if separator is None:
        return FileTexts(texts=[text], notes=notes)
    parts = ("".join(part).strip("\n") for part in _split_at(text, separator))
    if separator == END_OF_DOCUMENT:
        parts = (part.removeprefix(START_OF_DOCUMENT).strip("\n") for part in parts)
    documents = [part for part in parts if part]
    if len(documents) < 2 and file_format.separator is not None:
        raise MoreishError(f"{path} has no separator {separator!r} between documents")
    notes = (f"{len(documents):,} documents in {path.name}, separated by {separator!r}",)
    texts = [text_from_chunks(document) for document in documents]
    return FileTexts(texts=texts, kind=kind or "text", notes=notes)


def _skip_line(chunks: Iterator[str]) -> Iterator[str]:
    """Yield a text after its first line."""
    rest = ""
    for chunk in chunks:
        _, end, rest = chunk.partition("\n")
        if end:
            break
    yield rest
    yield from chunks


def _split_at(text: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yield the parts of `text` between separators, each in chunks."""
    part: list[str] = []
    pending = ""
    for chunk in text:
        *complete, pending = (pending + chunk).split(separator)
        for piece in complete:
            yield [*part, piece]
            part = []
        keep = len(pending) - len(separator) + 1  # the rest may begin a separator
        if keep > 0:
            part.append(pending[:keep])
            pending = pending[keep:]
    yield [*part, pending]


@contextmanager
def open_decoded(path: Path, encoding: str) -> Iterator[Iterator[str]]:
    """Open a file and decode it, with advice if it is not text."""
    try:
        with path.open("rb") as raw, decompress(raw, path) as file:
            yield decode_chunks(file, encoding, str(path))
    except NotTextError as error:
        advice = f"for a closer look: {command('doctor', path)}"
        raise NotTextError(f"{error}; {advice}", path) from None


class _Column(NamedTuple):
    """The values of a column of a table."""

    values: list[str]
    name: str = ""
    """Empty for a list of strings."""
    notes: tuple[str, ...] = ()


def _read_table(path: Path, suffix: str, file_format: FileFormat) -> _Column | None:
    """Return the column to read; None if the lines of the file are the items."""
    if suffix == ".parquet":
        return _values_of_parquet(path, file_format.column)
    with open_decoded(path, file_format.encoding) as chunks:
        if suffix in (".csv", ".tsv"):
            return _values_of_csv(path, "".join(chunks), suffix, file_format.column)
        if suffix == ".json":
            rows = parse_json("".join(chunks), str(path))
        else:
            lines = enumerate("".join(chunks).split("\n"), 1)
            rows = [
                parse_json(line, f"{path}, line {number:,}")
                for number, line in lines
                if line.strip()
            ]
    if not isinstance(rows, list):
        raise MoreishError(
            f"{path} is one JSON object: give a list of strings or of objects, or read it as it "
            "is with --as text"
        )
    if all(isinstance(row, str) for row in rows):
        return _Column(rows)
    if not all(isinstance(row, dict) for row in rows):
        raise MoreishError(
            f"{path} is neither a list of strings nor of objects; read it as it is with --as text"
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    strings = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    chosen, notes = _choose_column(path, strings or names, file_format.column)
    return _Column([_text_of(row.get(chosen), path, chosen) for row in rows], chosen, notes)


def parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MoreishError(f"{where}: this is not JSON ({one_line(error)})") from None


def _values_of_csv(path: Path, text: str, suffix: str, column: str | None) -> _Column | None:
    delimiter, has_header = sniff_table(text[:PEEK_CHARACTERS], suffix)
    previous = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            if any(row)
        ]
    except csv.Error as error:
        raise MoreishError(f"{path} is damaged: {error}") from None
    finally:
        csv.field_size_limit(previous)
    if not rows:
        return _Column([])
    names = [name.strip() for name in rows[0]]
    has_header = has_header or (column or DEFAULT_COLUMN) in names
    numbers = [str(number) for number in range(1, len(names) + 1)]
    if not has_header and column is None:
        return None
    columns = names if has_header and column not in numbers else numbers
    widths = [sum(len(row[at]) for row in rows[1:] if at < len(row)) for at in range(len(columns))]
    longest = columns[int(np.argmax(widths))]
    name, notes = _choose_column(path, columns, column, longest)
    chosen = columns.index(name)
    body = rows[1:] if has_header else rows
    return _Column([row[chosen] if chosen < len(row) else "" for row in body], name, notes)


def sniff_table(beginning: str, suffix: str) -> tuple[str, bool]:
    """Return the delimiter of a table, and whether its first row is a header."""
    delimiter, has_header = "\t", False
    with suppress(csv.Error):  # there may be no delimiters
        if suffix == ".csv":
            delimiter = ","
            delimiter = csv.Sniffer().sniff(beginning, ",;\t|").delimiter
        has_header = csv.Sniffer().has_header(beginning)
    return delimiter, has_header or _begins_with_titles(beginning, delimiter)


def _begins_with_titles(beginning: str, delimiter: str) -> bool:
    """Return whether the first row of a table has titles above columns of longer texts: different
    names of one or two words, where a value has twice as many characters on average."""
    lines = beginning.split("\n")[: TITLED_ROWS.stop]
    with suppress(csv.Error):
        titles, *rows = csv.reader(lines, delimiter=delimiter)
    rows = [row for row in rows if len(row) == len(titles)]
    if len(rows) not in TITLED_ROWS or not 2 <= len(titles) == len(set(titles)):
        return False
    if not all(re.fullmatch(r"[^\W\d]+(?:[ _-][^\W\d]+)?", title.strip()) for title in titles):
        return False
    lengths = [sum(len(row[at]) for row in rows) / len(rows) for at in range(len(titles))]
    return all(
        length >= 2 * len(title) and title not in {row[at] for row in rows}
        for at, (title, length) in enumerate(zip(titles, lengths, strict=True))
    )


def has_table_header(text: str) -> bool:
    """Return whether a text without a file name is a CSV table: rows of the same number of fields,
    at least two, below a header."""
    beginning = text[:PEEK_CHARACTERS]
    delimiter, has_header = sniff_table(beginning, ".csv")
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows = [row for row in csv.reader(io.StringIO(beginning), delimiter=delimiter) if row]
    if len(text) > PEEK_CHARACTERS:
        del rows[-1:]  # it is cut
    widths = {len(row) for row in rows}
    return has_header and len(rows) > TITLED_ROWS.start and len(widths) == 1 and widths != {1}


def _values_of_parquet(path: Path, column: str | None) -> _Column:
    errors = import_extra("pyarrow", "large").ArrowException
    library = import_extra("pyarrow.parquet", "large")
    try:
        with library.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            strings = [f.name for f in schema if "string" in str(f.type)]
            chosen, notes = _choose_column(path, strings or schema.names, column)
            values = file.read(columns=[chosen]).column(0).to_pylist()
    except errors as error:
        raise MoreishError(f"{path} is damaged: {one_line(error)}") from None
    return _Column([_text_of(value, path, chosen) for value in values], chosen, notes)


def _choose_column(
    path: Path, names: list[str], column: str | None, example: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Return the column to read, and a note if it was chosen among several."""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    if column is not None:
        if column not in names:
            hint = f"its columns are {shown}" if names else "there are none"
            raise MoreishError(f"{path}: no column '{column}' (--column): {hint}")
        return column, ()
    if len(names) == 1:
        return names[0], ()
    if DEFAULT_COLUMN in names:
        return DEFAULT_COLUMN, (f"column '{DEFAULT_COLUMN}' of {path.name} (of {shown})",)
    example = example or (names[-1] if names else "NAME")
    raise MoreishError(
        f"{path} is a table with the columns {shown}: choose the one to learn with --column "
        f"'{example}', or read every line as it is with --as lines"
    )


def _text_of(value: Any, path: Path, column: str) -> str:
    """Return the text of a field; null counts as empty."""
    if value is not None and not isinstance(value, str):
        raise MoreishError(f"{path}: column '{column}' is not text but {str(value)[:40]!r}")
    return value or ""


def _texts_of_values(path: Path, column: _Column, kind: CorpusKind | None) -> FileTexts:
    """Return the values of a column as a list, or each as a document if many have several lines."""
    values, name, notes = column
    values = [value.replace("\r\n", "\n").replace("\r", "\n").strip("\n") for value in values]
    present = [value for value in values if value.strip()]
    if num_empty := len(values) - len(present):
        notes = (*notes, f"left out {plural(num_empty, 'empty value')} of the column")
    values = present
    are_long = sum("\n" in value or len(value) > MAX_ITEM_LENGTH for value in values)
    if kind is None:
        kind = "text" if are_long > len(values) / 20 else "lines"
        if kind == "text":
            options = f" (if not: --as lines and --column {name!r})" if name else ""
            note = (
                f"each value is a document of running text, as {are_long:,} of {len(values):,} "
                f"have several lines or more than {MAX_ITEM_LENGTH} characters{options}"
            )
            notes = (*notes, note)
    if kind == "text":
        return FileTexts(texts=list(map(text_from_chunks, values)), kind=kind, notes=notes)
    lines = [" ".join(value.split("\n")) for value in values]
    text = text_from_chunks("\n".join(lines), name=str(path))
    return FileTexts(texts=[text], kind=kind, notes=notes)
