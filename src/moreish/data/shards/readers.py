"""Readers of documents: text, JSON lines, Parquet, built-in data sets, and Hugging Face streams.

A reader yields documents in pieces, so that no document needs to fit into memory.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreish.data import catalog
from moreish.data.text import (
    COMPRESSED,
    NotTextError,
    decode_chunks,
    decompress,
    normalize_newlines,
    uncompressed_name,
)
from moreish.errors import MoreishError, nearest, one_line
from moreish.utils.extras import import_extra
from moreish.utils.files import user_path

HF = "hf:"
"""Prefix of the name of a Hugging Face data set."""

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"

PARQUET_BATCH_ROWS = 256
"""Number of Parquet rows that are in memory at a time."""

MAX_LINE_BYTES = 1 << 28
"""Longest line of JSON lines that is read."""

PEEK_BYTES = 1 << 20
"""Amount of text from which the size of a compressed file is estimated."""

MAX_PENDING_CHARACTERS = 1 << 16
"""Length from which a document is yielded in several pieces."""

DEFAULT_STREAM_BYTES = 400_000_000
"""Assumed size of a stream that does not state it and has more than a tenth of this."""

Piece = tuple[int, str, bool]
"""The number of a document, a part of its text, and whether the document ends with it."""


@dataclass(frozen=True, kw_only=True)
class SourceFormat:
    """Format options of the sources."""

    field: str = "text"
    """Field of JSON lines, or column of Parquet files and data sets, that holds the text."""
    separator: str | None = None
    """Text between the documents of a text file; None: each file is one document."""
    encoding: str = "utf-8"
    """Character encoding of text files."""


def is_readable(path: Path, source_format: SourceFormat) -> bool:
    """Return whether a file has a known format; the start of a text file must be valid text."""
    if path.name.endswith(PARQUET) or uncompressed_name(path).endswith(JSON_LINES):
        return True
    try:
        with path.open("rb") as raw, decompress(raw, path) as file:
            next(decode_chunks(file, source_format.encoding, ""), "")
        return True
    except NotTextError:
        return False


def read_file(path: Path, source_format: SourceFormat, skip: int) -> Iterator[Piece]:
    """Yield the documents of a file except the first `skip`.

    Raises:
        MoreishError: the file is damaged or has another format.
    """
    if path.name.endswith(PARQUET):
        return _read_parquet(path, source_format, skip)
    if uncompressed_name(path).endswith(JSON_LINES):
        return _read_json_lines(path, source_format, skip)
    return (piece for piece in _read_text(path, source_format) if piece[0] >= skip)


def read_built_in(name: str, source_format: SourceFormat, skip: int) -> Iterator[Piece]:
    """Yield the documents of a built-in data set: the items of a list, or one document."""
    text = catalog.load_dataset(name)
    pieces: Iterable[Piece] = [(0, text, True)]
    if catalog.CATALOG[name].kind == "lines":
        items = (line.strip() for line in text.split("\n") if line.strip())
        pieces = ((number, item, True) for number, item in enumerate(items))
    elif source_format.separator is not None:
        pieces = split_at_separators([text], source_format.separator)
    return (piece for piece in pieces if piece[0] >= skip)


def read_stream(name: str, source_format: SourceFormat, skip: int = 0) -> Iterator[Piece]:
    """Yield the documents of the training split of a Hugging Face data set.

    Args:
        name: `hf:NAME` or `hf:NAME:CONFIG`.
    """
    rows, field = _load_stream(name), source_format.field
    columns = rows.column_names
    if columns and field not in columns:
        raise MoreishError(f"{name}: no column '{field}' (--field): {', '.join(columns)}")
    for number, row in enumerate(rows.skip(skip) if skip else rows, skip):
        yield number, _text_of(row, field, f"{name}, row {number + 1:,}"), True


def _read_text(path: Path, source_format: SourceFormat) -> Iterator[Piece]:
    with path.open("rb") as raw, decompress(raw, path) as file:
        try:
            text = normalize_newlines(decode_chunks(file, source_format.encoding, str(path)))
            if source_format.separator is None:
                yield from ((0, piece, False) for piece in text)
                yield 0, "", True
            else:
                yield from split_at_separators(text, source_format.separator)
        except NotTextError as error:
            raise MoreishError(str(error)) from None


def split_at_separators(text: Iterable[str], separator: str) -> Iterator[Piece]:
    """Yield the documents between separators, without the line feeds around them."""
    number, started, pending = 0, False, ""
    for piece in text:
        *documents, pending = (pending + piece).split(separator)
        for document in documents:
            yield number, _strip_line_feeds(document, started), True
            number, started = number + 1, False
        if len(pending) > MAX_PENDING_CHARACTERS:
            # Keep what may be a part of a separator, or line feeds before one.
            ready = pending[: len(pending) - len(separator) + 1].rstrip("\n")
            yield number, ready if started else ready.lstrip("\n"), False
            started, pending = started or not ready.isspace(), pending[len(ready) :]
    last = _strip_line_feeds(pending, started)
    if last or started or number == 0:  # a separator at the end does not start a document
        yield number, last, True


def _strip_line_feeds(text: str, started: bool) -> str:
    """Strip line feeds at the end of a document, and at its start unless some of it came before."""
    return text.rstrip("\n") if started else text.strip("\n")


def _read_json_lines(path: Path, source_format: SourceFormat, skip: int) -> Iterator[Piece]:
    with path.open("rb") as raw, decompress(raw, path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            where = f"{path}, line {number:,}"
            if len(line) == MAX_LINE_BYTES:
                raise MoreishError(f"{where}: it is longer than {MAX_LINE_BYTES >> 20} MB")
            if number <= skip or not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MoreishError(f"{where}: it is not JSON ({error})") from None
            yield number - 1, _text_of(row, source_format.field, where), True


def _text_of(row: Any, field: str, where: str) -> str:
    """Return the text of a row; null counts as empty."""
    if not isinstance(row, dict):
        raise MoreishError(f"{where}: it is not an object with fields, such as {{'{field}': …}}")
    if field not in row:
        hint = nearest(field, map(str, row)) if row else "it is empty"
        raise MoreishError(f"{where}: there is no field '{field}' (--field): {hint}")
    value = row[field]
    if value is not None and not isinstance(value, str):
        raise MoreishError(f"{where}: field '{field}' is not text but {str(value)[:40]!r}")
    return value or ""


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    errors = import_extra("pyarrow", "large").ArrowException
    library = import_extra("pyarrow.parquet", "large")
    try:
        with library.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except errors as error:
        raise MoreishError(f"{path} is damaged: {one_line(error)}") from None


def _read_parquet(path: Path, source_format: SourceFormat, skip: int) -> Iterator[Piece]:
    field = source_format.field
    with _open_parquet(path) as file:
        _check_column(file, path, field)
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        number = skipped = 0
        while skipped < len(groups) and number + groups[skipped] <= skip:
            number, skipped = number + groups[skipped], skipped + 1
        rest = list(range(skipped, len(groups)))
        for batch in file.iter_batches(PARQUET_BATCH_ROWS, row_groups=rest, columns=[field]):
            for text in batch.column(0).to_pylist():
                if number >= skip:
                    where = f"{path}, row {number + 1:,}"
                    yield number, _text_of({field: text}, field, where), True
                number += 1


def _check_column(file: Any, path: Path, field: str) -> None:
    names = file.schema_arrow.names
    if field not in names:
        raise MoreishError(f"{path}: no column '{field}' (--field): {nearest(field, names)}")
    column_type = str(file.schema_arrow.field(field).type)
    if "string" not in column_type:
        raise MoreishError(f"{path}: column '{field}' is not text but {column_type}")


def _load_stream(name: str) -> Any:
    library = import_extra("datasets", "hub")
    name_or_path, _, config = name.removeprefix(HF).partition(":")
    path = user_path(name_or_path)
    library.disable_progress_bars()
    try:
        return library.load_dataset(
            str(path) if path.exists() else name_or_path,
            config or None,
            split="train",
            streaming=True,
        )
    except Exception as error:  # the library and those that it uses have many classes
        raise MoreishError(
            f"{name} cannot be loaded ({type(error).__name__}: {one_line(error)})"
        ) from None


def stream_bytes(name: str, source_format: SourceFormat) -> int:
    """Return the approximate size of the text of a Hugging Face data set, in bytes."""
    splits = _load_stream(name).info.splits or {}
    if "train" in splits and splits["train"].num_bytes:
        return int(splits["train"].num_bytes)
    read = 0
    for _, text, _ in read_stream(name, source_format):
        read += len(text.encode("utf-8", "replace"))
        if read >= DEFAULT_STREAM_BYTES // 10:
            return DEFAULT_STREAM_BYTES
    return read


def file_text_bytes(path: Path, source_format: SourceFormat) -> int:
    """Return the approximate size of the text of a file, in bytes; estimated from the start of a
    compressed file."""
    on_disk = path.stat().st_size
    if path.name.endswith(PARQUET):
        with _open_parquet(path) as file:
            _check_column(file, path, source_format.field)
            column = file.schema_arrow.names.index(source_format.field)
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            return sum(group.column(column).total_uncompressed_size for group in groups)
    if path.suffix not in COMPRESSED:
        return on_disk
    read = 0
    with path.open("rb") as raw, decompress(raw, path) as file:
        while chunk := file.read(1 << 16):
            read += len(chunk)
            if read >= PEEK_BYTES:
                return int(read * on_disk / max(1, raw.tell()))
    return read
