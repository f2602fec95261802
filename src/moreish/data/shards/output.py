"""Checks of the folder that a dataset is prepared in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moreish.data.shard_layout import MANIFEST, PROGRESS, TOKENIZER, preparation_state
from moreish.data.shards.dataset import Manifest
from moreish.data.shards.readers import SourceFormat
from moreish.data.shards.sources import Source, find_sources
from moreish.errors import MoreishError
from moreish.utils.files import file_lock, read_json, user_path

LOCK = ".lock"


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Create a folder and lock it; a new one is removed at the end if it is still empty.

    Raises:
        MoreishError: another process has locked it.
    """
    is_new, lock = not out.exists(), out / LOCK
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(lock, f"another process is preparing {out}: wait until it ends"):
        try:
            yield
        finally:
            if is_new and [*out.iterdir()] == [lock]:
                with suppress(OSError):  # Windows cannot remove open files
                    lock.unlink()
                    out.rmdir()


def check_folder(out: Path) -> None:
    """Check that a folder is new, empty or a prepared dataset.

    Raises:
        MoreishError: it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise MoreishError(f"--out {out} is a file, not a folder")
    if not out.exists() or preparation_state(out) != "other":
        return
    early_files = (LOCK, TOKENIZER, PROGRESS)  # what an interrupted start leaves
    if not all(path.name.startswith(early_files) for path in out.iterdir()):
        raise MoreishError(f"--out {out} holds something else: name a folder of its own")


def check_sources_outside(out: Path, sources: Sequence[Source]) -> None:
    """Check that the folder and the sources do not contain each other.

    Raises:
        MoreishError: they do.
    """
    folder = out.resolve()
    for source in sources:
        if folder in [parent for path in source.files for parent in path.resolve().parents]:
            raise MoreishError(f"--out {out}: {source.argument} lies in it; choose another folder")
        place = user_path(source.argument).resolve()
        if place in (folder, *folder.parents):  # also for the name of a data set
            raise MoreishError(f"--out {out} is {source.argument} or in it; choose another folder")


def check_same_arguments(out: Path, stored: dict[str, Any], current: dict[str, Any]) -> None:
    """Check that a folder was prepared with the same arguments, completely or in part.

    Raises:
        MoreishError: an argument differs.
    """
    for name in current:
        if stored.get(name) != current[name]:
            raise MoreishError(
                f"{out} was prepared with {name}={stored.get(name)}, not {current[name]}: choose "
                "another --out, or --overwrite"
            )


def check_sources_unchanged(
    out: Path, manifest: Manifest, names: Sequence[str], source_format: SourceFormat
) -> None:
    """Check that the sources of a prepared dataset have the same files and sizes, if they exist.

    Raises:
        MoreishError: they have changed.
    """
    try:
        sources = find_sources(names, source_format)
    except MoreishError:
        return  # they were removed, and are no longer needed
    stored = [(file.path, file.bytes) for source in manifest.sources for file in source.files]
    if stored != [(str(path), path.stat().st_size) for s in sources for path in s.files]:
        raise MoreishError(
            f"the sources have changed since {out} was prepared: choose another --out, or "
            "--overwrite"
        )


def has_no_shards(out: Path) -> bool:
    """Return whether a preparation has started but not written any tokens, so that it can
    restart."""
    if preparation_state(out) != "begun":
        return False
    try:
        return read_json(out / PROGRESS)["shards"] == []
    except (OSError, ValueError, LookupError, TypeError):
        return False


def clear_folder(out: Path) -> None:
    """Remove the files of a prepared dataset; the file that marks it as one is removed last."""
    if preparation_state(out) == "other":
        return
    for path in (*out.glob("*.npy"), out / TOKENIZER, out / PROGRESS, out / MANIFEST):
        path.unlink(missing_ok=True)
