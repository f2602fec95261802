"""Sources of text: files, folders, built-in data sets and Hugging Face data sets."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moreish.data import catalog
from moreish.data.shard_layout import refuse_prepared
from moreish.data.shards.readers import (
    HF,
    Piece,
    SourceFormat,
    file_text_bytes,
    is_readable,
    read_built_in,
    read_file,
    read_stream,
    stream_bytes,
    uncompressed_name,
)
from moreish.errors import MoreishError, nearest
from moreish.utils.files import summarize_paths

SAMPLED_FILES = 16
"""Number of files from which the size of a source is estimated."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, a folder or a data set."""

    name: str
    """Unique name, by which the source can be weighted."""
    given: str
    """The source as the user named it."""
    files: tuple[Path, ...]
    """Empty for a data set."""
    skipped: tuple[Path, ...] = ()
    """Files of a folder that have an unknown format or another encoding."""

    @property
    def parts(self) -> int:
        """Number of files; 1 for a data set."""
        return len(self.files) or 1

    def part_name(self, part: int) -> str:
        """The name of a part, for messages."""
        return str(self.files[part]) if self.files else self.given

    def pieces(self, part: int, source_format: SourceFormat, skip: int = 0) -> Iterator[Piece]:
        """The documents of a part, but for the first `skip`, which are skipped quickly.

        Raises:
            MoreishError: the part is damaged or has another format; the message says where.
        """
        if self.files:
            return read_file(self.files[part], source_format, skip)
        read = read_built_in if self.given in catalog.CATALOG else read_stream
        return read(self.given, source_format, skip)

    def text_bytes(self, source_format: SourceFormat) -> int:
        """The approximate size of the text, in bytes."""
        if self.given in catalog.CATALOG and not self.files:
            return len(catalog.load_dataset(self.given).encode())
        if not self.files:
            return stream_bytes(self.given, source_format)
        sample = self.files[:SAMPLED_FILES]
        text = sum(file_text_bytes(path, source_format) for path in sample)
        on_disk = max(1, sum(path.stat().st_size for path in sample))
        return int(text / on_disk * sum(path.stat().st_size for path in self.files))


def find_sources(given: Iterable[str], source_format: SourceFormat) -> list[Source]:
    """Resolve the names that a user gave.

    Args:
        given: paths, built-in data sets, or `hf:NAME`.
        source_format: options that decide which files of a folder are readable.

    Raises:
        MoreishError: a source does not exist, or a folder has no readable file.
    """
    sources: list[Source] = []
    for text in given:
        if not text.removeprefix(HF):
            raise MoreishError(f"the source '{text}' is empty: name a file, folder or data set")
        name, path = _unique_name(text, sources), Path(text).expanduser()
        files: tuple[Path, ...] = ()
        skipped: tuple[Path, ...] = ()
        if path.is_file() and not text.startswith(HF):
            files = (path,)
        elif path.is_dir() and not text.startswith(HF):
            files, skipped = _find_files(path, source_format)
            if not files:
                seen = f"; there are {summarize_paths(skipped)}" if skipped else ""
                raise MoreishError(
                    f"{path} holds no {source_format.encoding} text (--encoding), JSON lines or "
                    f"Parquet{seen}"
                )
        elif not text.startswith(HF) and (text not in catalog.CATALOG or path.exists()):
            raise MoreishError(
                f"no file, folder or built-in data set '{text}': {nearest(text, catalog.CATALOG)} "
                "(one on the hub is hf:NAME)"
            )
        sources.append(Source(name=name, given=text, files=files, skipped=skipped))
    if not sources:
        raise MoreishError("name at least one file, folder or data set (hf:NAME)")
    return sources


def _unique_name(given: str, others: list[Source]) -> str:
    """A name for a source that none of the others has."""
    path = Path(given).expanduser().resolve()
    if given.startswith(HF):
        base = given.removeprefix(HF).rstrip("/").rpartition("/")[2]
    else:
        base = path.name if path.is_dir() else uncompressed_name(path).partition(".")[0]
    name = re.sub(r"[^\w-]+", "-", base).strip("-") or "source"
    taken = {source.name for source in others}
    candidates = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _find_files(
    folder: Path, source_format: SourceFormat
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The readable files below a folder in the order of their paths, and the other ones; hidden
    files are ignored."""
    refuse_prepared(folder)
    if (folder / "run.json").is_file():
        raise MoreishError(f"{folder} is a run, not a text")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    readable = {path: is_readable(path, source_format) for path in paths}
    files = tuple(path for path in paths if readable[path])
    return files, tuple(path for path in paths if not readable[path])
