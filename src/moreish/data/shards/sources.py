"""Sources of text: files, folders, built-in data sets and Hugging Face data sets."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moreish.data import catalog
from moreish.data.shard_layout import refuse_prepared
from moreish.data.shards import readers
from moreish.data.shards.readers import HF, Piece, SourceFormat
from moreish.errors import MoreishError, nearest
from moreish.utils.files import summarize_paths, user_path, visible_files

SAMPLED_FILES = 16
"""Number of files from which the size of a source is estimated."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, a folder or a data set."""

    name: str
    """Unique name, by which the source can be weighted."""
    argument: str
    """The source as the user named it."""
    format: SourceFormat
    files: list[Path]
    """Empty for a data set."""
    skipped: list[Path]
    """Files of a folder that have an unknown format or another encoding."""

    @property
    def parts(self) -> int:
        """Number of files; 1 for a data set."""
        return len(self.files) or 1

    def part_name(self, part: int) -> str:
        """Return the name of a part, for messages."""
        return str(self.files[part]) if self.files else self.argument

    def pieces(self, part: int, skip: int = 0) -> Iterator[Piece]:
        """Yield the documents of a part except the first `skip`, which are skipped quickly.

        Raises:
            MoreishError: the part is damaged or has another format; the message says where.
        """
        if self.files:
            return readers.read_file(self.files[part], self.format, skip)
        read = readers.read_built_in if self.argument in catalog.CATALOG else readers.read_stream
        return read(self.argument, self.format, skip)

    def text_bytes(self) -> int:
        """Return the approximate size of the text, in bytes."""
        if not self.files and self.argument in catalog.CATALOG:
            return len(catalog.load_dataset(self.argument).encode())
        if not self.files:
            return readers.stream_bytes(self.argument, self.format)
        sizes = [path.stat().st_size for path in self.files]
        text = sum(
            readers.file_text_bytes(path, self.format) for path in self.files[:SAMPLED_FILES]
        )
        return int(text / max(1, sum(sizes[:SAMPLED_FILES])) * sum(sizes))


def find_sources(names: Iterable[str], source_format: SourceFormat) -> list[Source]:
    """Find the sources that a user named.

    Args:
        names: paths, built-in data sets, or `hf:NAME`.
        source_format: options that decide which files of a folder are readable.

    Raises:
        MoreishError: a source does not exist, or a folder has no readable file.
    """
    sources: list[Source] = []
    for argument in names:
        if not argument.removeprefix(HF):
            raise MoreishError(f"the source '{argument}' is empty: name a file, folder or data set")
        path = user_path(argument)
        files: list[Path] = []
        skipped: list[Path] = []
        if argument.startswith(HF):
            pass
        elif path.is_file():
            files = [path]
        elif path.is_dir():
            refuse_prepared(path)
            if (path / "run.json").is_file():
                raise MoreishError(f"{path} is a run, not a text")
            for file in visible_files(path):
                (files if readers.is_readable(file, source_format) else skipped).append(file)
            if not files:
                seen = f"; there are {summarize_paths(skipped)}" if skipped else ""
                raise MoreishError(
                    f"{path} holds no {source_format.encoding} text (--encoding), JSON lines or "
                    f"Parquet{seen}"
                )
        elif argument not in catalog.CATALOG or path.exists():
            raise MoreishError(
                f"no file, folder or built-in data set '{argument}': "
                f"{nearest(argument, catalog.CATALOG)}"
                " (one on the hub is hf:NAME)"
            )
        name = _unique_name(argument, {source.name for source in sources})
        sources.append(
            Source(name=name, argument=argument, format=source_format, files=files, skipped=skipped)
        )
    if not sources:
        raise MoreishError("name at least one file, folder or data set (hf:NAME)")
    return sources


def _unique_name(argument: str, taken: set[str]) -> str:
    path = user_path(argument).resolve()
    if argument.startswith(HF):
        base = argument.removeprefix(HF).rstrip("/").rpartition("/")[2]
    else:
        base = path.name if path.is_dir() else readers.uncompressed_name(path).partition(".")[0]
    name = re.sub(r"[^\w-]+", "-", base).strip("-") or "source"
    candidates = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)
