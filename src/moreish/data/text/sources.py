"""What the Python functions accept as a source: names, paths, items and texts in memory."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moreish.data.text.files import has_table_header
from moreish.errors import MoreishError
from moreish.settings import Tree
from moreish.utils.files import MEMORY_PREFIX

Source = str | Path | Iterable[str | Path]
"""A built-in data set, a file or a folder; several paths; or the items of a list."""


@contextmanager
def source_settings(
    source: Source | None,
    text: str | None = None,
    *,
    name: str = "text",
    column: str | None = None,
) -> Iterator[Tree]:
    """Yield the settings `data.*` of a source. A text in memory, or a list of items, is a temporary
    file in the meantime: a run keeps what it needs of it.

    Args:
        source: a data set, file or folder; an iterable of paths (`Path`) or of items (`str`).
        text: a text, in place of a source.
        name: the name of the temporary file of `text`, which names the run.
        column: the column to learn; a text with it, or with the header of a table, is CSV.

    Raises:
        MoreishError: there are both, or an item is empty or has a line end.
    """
    if text is not None and source is not None:
        raise MoreishError("give a source or text=, not both")
    if text is None and source is None:
        yield {}
        return
    if isinstance(source, str | Path):
        yield {"source": str(source)}
        return
    parts = [] if source is None else list(source)
    if parts and all(isinstance(part, Path) for part in parts):
        yield {"source": list(map(str, parts))}
        return
    kind: Tree = {}
    if text is None:
        items = [part for part in parts if isinstance(part, str)]
        if len(items) < len(parts) or not items:
            raise MoreishError("a list of items needs strings, and a list of files needs paths")
        if all(Path(item).is_file() for item in items):
            raise MoreishError("these items are names of files: give them as pathlib.Path")
        if broken := [item for item in items if len(item.splitlines()) != 1]:
            raise MoreishError(
                f"the item {broken[0][:40]!r} is not one line: give text= for running text"
            )
        text, name, kind = "\n".join(items) + "\n", "items", {"kind": "lines"}
    with tempfile.TemporaryDirectory(prefix=MEMORY_PREFIX) as folder:
        is_table = not kind and (column is not None or has_table_header(text))
        path = Path(folder) / f"{name}{'.csv' if is_table else '.txt'}"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        yield {"source": str(path), **kind}
