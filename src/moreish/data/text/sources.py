"""What the Python functions accept as a source: names, paths, items and texts in memory."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from moreish.data.text.files import has_table_header
from moreish.errors import MoreishError
from moreish.settings import Tree
from moreish.utils.files import MAX_NAME_BYTES, MEMORY_PREFIX
from moreish.utils.text import shorten

Source = str | Path | Iterable[str | Path]
"""A built-in data set, a file or a folder; several paths; or the items of a list."""


@contextmanager
def source_settings(
    source: Source | None,
    text: str | None = None,
    *,
    name: str = "text",
    column: str | int | None = None,
) -> Iterator[Tree]:
    """Yield the settings `data.*` of a source. A text in memory, or a list of items, is a temporary
    file in the meantime: a run keeps what it needs of it.

    Args:
        source: a data set, file or folder; an iterable of paths (`Path`) or of items (`str`).
        text: a text, in place of a source.
        name: the name of the temporary file of `text`, which names the run.
        column: the column to learn; a text with it, or with the header of a table, is CSV.

    Raises:
        MoreishError: there are both, the source is a table or mixed, an item is empty or has a
            line end, or a lone surrogate is no character.
    """
    if text is not None and source is not None:
        raise MoreishError("give a source or text=, not both")
    if text is None and source is None:
        yield {}
        return
    if isinstance(source, str | Path):
        if _is_text(str(source)):
            shown = shorten(repr(str(source)))
            raise MoreishError(
                f"no file, folder or built-in data set {shown}: a text itself goes to standard "
                "input, -"
            )
        yield {"source": str(source)}
        return
    if isinstance(source, Mapping) or hasattr(source, "columns") or hasattr(source, "column_names"):
        raise MoreishError("the source is a table: give one column of it, e.g. df['review']")
    parts = [] if source is None else list(source)
    if parts and all(isinstance(part, Path) for part in parts):
        yield {"source": list(map(str, parts))}
        return
    kind: Tree = {}
    if text is None:
        text, name, kind = "\n".join(_checked_items(parts)) + "\n", "items", {"kind": "lines"}
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise MoreishError(
            f"character {error.start:,} of the {name} is half of a character (a lone surrogate, "
            f"U+{ord(text[error.start]):04X}): remove it"
        ) from None
    with tempfile.TemporaryDirectory(prefix=MEMORY_PREFIX) as folder:
        is_table = not kind and (column is not None or has_table_header(text))
        path = Path(folder) / f"{name}{'.csv' if is_table else '.txt'}"
        path.write_bytes(raw)
        yield {"source": str(path), **kind}


def _is_text(source: str) -> bool:
    """Return whether a source is a text rather than a name: of several lines, or too long."""
    names = source.replace("\\", "/").split("/")
    return "\n" in source or any(
        len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for name in names
    )


def _checked_items(parts: list[str | Path]) -> list[str]:
    """Return the items of a list. Raises MoreishError if one of them cannot be one."""
    if not parts:
        raise MoreishError("the list of items is empty: there is no text to train on")
    items: list[str] = []
    for number, part in enumerate(parts):
        where = f"item {number:,} (counted from 0)"
        if isinstance(part, Path):
            raise MoreishError(
                f"{where} is the path {part}, and others are not paths: give only paths, or only "
                "strings"
            )
        if not isinstance(part, str):
            raise MoreishError(
                f"{where} is {shorten(repr(part))}, not a string: leave it out (pandas: .dropna()) "
                "or convert it with str()"
            )
        if not part:
            raise MoreishError(f"{where} is empty: leave out empty strings")
        if len(part.splitlines()) != 1 or part.splitlines()[0] != part:
            raise MoreishError(
                f"{where}, {part[:40]!r}, has a line end: replace line ends by spaces, as in "
                "' '.join(item.split()), or give running text in text="
            )
        items.append(part)
    if files := [item for item in items if _is_file(item)]:
        other = next((item for item in items if item not in files), None)
        rest = "" if other is None else f", and {shorten(repr(other))} is not"
        raise MoreishError(
            f"{shorten(repr(files[0]))} is the name of a file{rest}: give files as pathlib.Path; "
            "items of such a name go in text=, one per line, with --as lines"
        )
    return items


def _is_file(name: str) -> bool:
    with suppress(OSError, ValueError):
        return Path(name).is_file()
    return False
