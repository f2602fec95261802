"""Sources of any size to documents, a piece at a time: text, JSON lines, Parquet, compressed or
not, folders of them, built-in data sets, and those of Hugging Face, which are streamed."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreish.data import catalog
from moreish.data.shard_layout import refuse_prepared
from moreish.data.shards.compression import COMPRESSED, opened, through, wanted
from moreish.data.text import NotTextError, decode_chunks, normalize_newlines
from moreish.errors import MoreishError, nearest
from moreish.utils.files import summarize_paths

HF = "hf:"
"""What stands before the name of a data set of Hugging Face."""

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"

ROWS = 256
"""Of Parquet, that are in memory together."""

LONGEST_LINE = 1 << 28
"""Bytes of JSON lines: one that is longer is not read into memory."""

PEEK = 1 << 20
"""Bytes of text from which the size of the rest is judged."""

LONG = 1 << 16
"""Characters of a document beyond which it is not waited for its end."""

JUDGED = 16
"""Files of a source that are looked at for that."""

UNKNOWN_SIZE = 400_000_000
"""Bytes that a stream is taken to have, where nobody tells and a tenth of them is not its end."""

Piece = tuple[int, str, bool]
"""The number of a document, some of its text, and whether it ends with it."""


@dataclass(frozen=True, kw_only=True)
class SourceFormat:
    """How sources are read."""

    field: str = "text"
    """Of JSON lines, the column of Parquet files and data sets."""
    separator: str | None = None
    """What stands between the documents of a text file; None: each file is one."""
    encoding: str = "utf-8"
    """Of text files."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where text comes from, under the name by which it can be weighed."""

    name: str
    given: str
    files: tuple[Path, ...]
    """None for a data set."""
    left_out: tuple[Path, ...] = ()
    """Files of a folder that are of no known kind, or in another encoding."""

    @property
    def parts(self) -> int:
        """Files, or one data set."""
        return len(self.files) or 1

    def where(self, part: int) -> str:
        """The name of a part, for people."""
        return str(self.files[part]) if self.files else self.given

    def pieces(self, part: int, how: SourceFormat, skip: int = 0) -> Iterator[Piece]:
        """The documents of a part, but for the first `skip`, which take less time than others.

        Raises:
            MoreishError: it is damaged or of another kind, and where.
        """
        if not self.files:
            documents = _built_in if self.given in catalog.CATALOG else _streamed
            return documents(self.given, how, skip)
        path = self.files[part]
        if path.name.endswith(PARQUET):
            return _rows(path, how, skip)
        if _plain_name(path).endswith(JSON_LINES):
            return _lines(path, how, skip)
        return (piece for piece in _texts(path, how) if piece[0] >= skip)

    def size(self, how: SourceFormat) -> int:
        """About how many bytes of text it has."""
        if self.given in catalog.CATALOG and not self.files:
            return len(catalog.load_dataset(self.given).encode())
        if not self.files:
            return _size_of_stream(self.given, how)
        judged = self.files[:JUDGED]
        text = sum(_size_of_file(path, how) for path in judged)
        on_disk = max(1, sum(path.stat().st_size for path in judged))
        return int(text / on_disk * sum(path.stat().st_size for path in self.files))


def find_sources(given: Iterable[str], how: SourceFormat) -> list[Source]:
    """What was named on the command line, each with a name of its own.

    Raises:
        MoreishError: there is no such source, or no file of a known kind in a folder.
    """
    found: list[Source] = []
    for one in given:
        if not one.removeprefix(HF):
            raise MoreishError(f"the source '{one}' is empty: name a file, folder or data set")
        name = re.sub(r"[^\w-]+", "-", _name_of(one)).strip("-") or "source"
        taken = {source.name for source in found}
        numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
        name = name if name not in taken else next(n for n in numbered if n not in taken)
        path = Path(one).expanduser()
        if one.startswith(HF) or (one in catalog.CATALOG and not path.exists()):
            found.append(Source(name=name, given=one, files=()))
            continue
        if path.is_file():
            found.append(Source(name=name, given=one, files=(path,)))
        elif path.is_dir():
            files, left_out = _walked(path, how)
            if not files:
                seen = f"; there are {summarize_paths(left_out)}" if left_out else ""
                raise MoreishError(
                    f"{path} holds no {how.encoding} text (--encoding), JSON lines or Parquet{seen}"
                )
            found.append(Source(name=name, given=one, files=files, left_out=left_out))
        else:
            raise MoreishError(
                f"no file, folder or built-in data set '{one}': {nearest(one, catalog.CATALOG)} "
                "(one on the hub is hf:NAME)"
            )
    if not found:
        raise MoreishError("name at least one file, folder or data set (hf:NAME)")
    return found


def _name_of(given: str) -> str:
    if given.startswith(HF):
        return given.removeprefix(HF).rstrip("/").rpartition("/")[2]
    path = Path(given).expanduser().resolve()
    return path.name if path.is_dir() else _plain_name(path).partition(".")[0]


def _plain_name(path: Path) -> str:
    """Without what says how it is compressed."""
    return path.stem if path.suffix in COMPRESSED else path.name


def _walked(folder: Path, how: SourceFormat) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """All files below a folder that can be read, by path, and those that cannot. Hidden ones are
    passed over."""
    refuse_prepared(folder)
    if (folder / "run.json").is_file():
        raise MoreishError(f"{folder} is a run, not a text")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    readable = {path: _is_readable(path, how) for path in paths}
    files = tuple(path for path in paths if readable[path])
    return files, tuple(path for path in paths if not readable[path])


def _is_readable(path: Path, how: SourceFormat) -> bool:
    """Whether a file is of a known kind; of text, whether its beginning is text."""
    if path.name.endswith(PARQUET) or _plain_name(path).endswith(JSON_LINES):
        return True
    try:
        with opened(path) as file:
            next(decode_chunks(file, how.encoding, ""), "")
        return True
    except NotTextError:
        return False


def _texts(path: Path, how: SourceFormat) -> Iterator[Piece]:
    with opened(path) as file:
        try:
            text = normalize_newlines(decode_chunks(file, how.encoding, str(path)))
            if how.separator is None:
                yield from ((0, piece, False) for piece in text)
                yield 0, "", True
            else:
                yield from _separated(text, how.separator)
        except NotTextError as error:
            raise MoreishError(str(error)) from None


def _separated(text: Iterable[str], separator: str) -> Iterator[Piece]:
    """The documents between separators, without the line ends around them."""
    number, begun, held = 0, False, ""
    for piece in text:
        *ended, held = (held + piece).split(separator)
        for document in ended:
            yield number, _trimmed(document, begun), True
            number, begun = number + 1, False
        if len(held) > LONG:  # but for what may be a part of a separator, or line ends before one
            sure = held[: len(held) - len(separator) + 1].rstrip("\n")
            yield number, sure if begun else sure.lstrip("\n"), False
            begun, held = begun or not sure.isspace(), held[len(sure) :]
    last = _trimmed(held, begun)
    if last or begun or number == 0:  # after the last separator there is nothing
        yield number, last, True


def _trimmed(text: str, begun: bool) -> str:
    """`begun`: some of the document came before."""
    return text.rstrip("\n") if begun else text.strip("\n")


def _lines(path: Path, how: SourceFormat, skip: int) -> Iterator[Piece]:
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            where = f"{path}, line {number:,}"
            if len(line) == LONGEST_LINE:
                raise MoreishError(f"{where}: it is longer than {LONGEST_LINE >> 20} MB")
            if number <= skip or not line.strip():
                continue
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MoreishError(f"{where}: it is no JSON ({error})") from None
            yield number - 1, _field(entry, how.field, where), True


def _field(entry: Any, field: str, where: str) -> str:
    """The text of a row; one that has none is empty."""
    if not isinstance(entry, dict):
        raise MoreishError(f"{where}: it is no object with fields, such as {{'{field}': …}}")
    if field not in entry:
        hint = nearest(field, map(str, entry)) if entry else "it is empty"
        raise MoreishError(f"{where}: there is no field '{field}' (--field): {hint}")
    found = entry[field]
    if found is not None and not isinstance(found, str):
        raise MoreishError(f"{where}: field '{field}' is no text but {str(found)[:40]!r}")
    return found or ""


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    errors = wanted("pyarrow").ArrowException
    library = wanted("pyarrow.parquet")
    try:
        with library.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except errors as error:
        raise MoreishError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None


def _rows(path: Path, how: SourceFormat, skip: int) -> Iterator[Piece]:
    with _parquet(path) as file:
        _check_column(file, path, how.field)
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        number = left_out = 0
        while left_out < len(groups) and number + groups[left_out] <= skip:
            number, left_out = number + groups[left_out], left_out + 1
        rest = range(left_out, len(groups))
        for batch in file.iter_batches(ROWS, row_groups=list(rest), columns=[how.field]):
            for text in batch.column(0).to_pylist():
                if number >= skip:
                    where = f"{path}, row {number + 1:,}"
                    yield number, _field({how.field: text}, how.field, where), True
                number += 1


def _check_column(file: Any, path: Path, field: str) -> None:
    names = file.schema_arrow.names
    if field not in names:
        raise MoreishError(f"{path}: no column '{field}' (--field): {nearest(field, names)}")
    kind = str(file.schema_arrow.field(field).type)
    if "string" not in kind:
        raise MoreishError(f"{path}: column '{field}' is no text but {kind}")


def _built_in(given: str, how: SourceFormat, skip: int) -> Iterator[Piece]:
    """The items of a list, or one document."""
    text = catalog.load_dataset(given)
    pieces: Iterable[Piece] = [(0, text, True)]
    if catalog.CATALOG[given].kind == "lines":
        items = (line.strip() for line in text.split("\n") if line.strip())
        pieces = ((number, item, True) for number, item in enumerate(items))
    elif how.separator is not None:
        pieces = _separated([text], how.separator)
    return (piece for piece in pieces if piece[0] >= skip)


def _streamed(given: str, how: SourceFormat, skip: int) -> Iterator[Piece]:
    rows = _data_set(given)
    columns = rows.column_names
    if columns and how.field not in columns:
        raise MoreishError(f"{given}: no column '{how.field}' (--field): {', '.join(columns)}")
    for number, row in enumerate(rows.skip(skip) if skip else rows, skip):
        where = f"{given}, row {number + 1:,}"
        yield number, _field(row, how.field, where), True


def _data_set(given: str) -> Any:
    """The training split of `hf:NAME` or `hf:NAME:CONFIG`, as a stream."""
    library = wanted("datasets")
    name, _, config = given.removeprefix(HF).partition(":")
    path = Path(name).expanduser()
    library.disable_progress_bars()
    try:
        found = library.load_dataset(
            str(path) if path.exists() else name, config or None, split="train", streaming=True
        )
    except Exception as error:  # the library, and those that it fetches with, have many classes
        reason = " ".join(str(error).split())[:200]
        raise MoreishError(f"{given} cannot be had ({type(error).__name__}: {reason})") from None
    return found


def _size_of_stream(given: str, how: SourceFormat) -> int:
    splits = _data_set(given).info.splits or {}
    if "train" in splits and splits["train"].num_bytes:
        return int(splits["train"].num_bytes)
    read = 0
    for _, text, _ in _streamed(given, how, 0):
        read += len(text.encode("utf-8", "replace"))
        if read >= UNKNOWN_SIZE // 10:
            return UNKNOWN_SIZE
    return read


def _size_of_file(path: Path, how: SourceFormat) -> int:
    """About how many bytes of text are in a file, from its beginning where it is compressed."""
    on_disk = path.stat().st_size
    if path.name.endswith(PARQUET):
        with _parquet(path) as file:
            _check_column(file, path, how.field)
            column = file.schema_arrow.names.index(how.field)
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            return sum(group.column(column).total_uncompressed_size for group in groups)
    if path.suffix not in COMPRESSED:
        return on_disk
    read = 0
    with path.open("rb") as raw, through(raw, path) as file:
        while some := file.read(1 << 16):
            read += len(some)
            if read >= PEEK:
                return int(read * on_disk / max(1, raw.tell()))
    return read
