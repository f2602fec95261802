"""Files that are replaced as a whole, durable writes, locks, disk space and JSON."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from moreish.errors import MoreishError

MAX_NAME_BYTES = 255
"""Longest name of a file or folder."""

PARTIAL_SUFFIX = ".part"
"""Suffix of files and folders that are being written and will be renamed when complete."""

PARTIAL_NAME = re.compile(rf"(.+)\.\d+(?:\.old)?{re.escape(PARTIAL_SUFFIX)}", re.DOTALL)
"""Matches their whole names: the final name, and the process that writes them."""

LOCK = ".lock"
"""File that is locked by the process that works in its folder."""

MAX_JSON_BYTES = 1 << 26
"""Largest JSON file that is read: Moreish writes none that are larger."""

RESERVED_BYTES = 1 << 16
"""Disk space that a file system needs for names and partly filled blocks."""


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file, which holds either the old or the new content whatever happens.

    Args:
        path: the file.
        content: bytes, or chunks of them.

    Raises:
        OSError: the disk is full, or the like.
    """
    partial = partial_path(path)
    try:
        write_durable(partial, [content] if isinstance(content, bytes) else content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_durable(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file and flush it to disk.

    It uses system calls only, so that tests can make each of them fail.

    Raises:
        OSError: the disk is full, or the like.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    with attach_path(path), _flushed_at_end(path, flags) as descriptor:
        for chunk in chunks:
            write_all(descriptor, chunk)


@contextmanager
def _flushed_at_end(path: Path, flags: int) -> Iterator[int]:
    """Open a file or folder, and flush it to disk at the end."""
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all bytes to an open file, with several calls where one writes only a part."""
    rest = memoryview(content).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def attach_path(path: Path) -> Iterator[None]:
    """Add the path to every OSError: that of a full disk has none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def fsync_file(path: Path) -> None:
    """Flush a file to disk, if it exists."""
    # Windows flushes only files opened for writing.
    with attach_path(path), suppress(FileNotFoundError), _flushed_at_end(path, os.O_RDWR):
        pass


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power failure."""
    if os.name != "nt":  # Windows cannot open folders, and flushes their entries itself
        with _flushed_at_end(folder, os.O_RDONLY):
            pass


MEMORY_PREFIX = "moreish-"
"""How the names of temporary folders begin that hold a text in memory."""


def is_in_memory(source: str | Path) -> bool:
    """Return whether a source is the temporary file of a text in memory, as of standard input."""
    folder = Path(source).parent
    is_temporary = folder.parent == Path(tempfile.gettempdir())
    return is_temporary and folder.name.startswith(MEMORY_PREFIX)


def user_path(path: str | Path) -> Path:
    """Return the path that a user wrote, in which `~` is a home folder.

    Raises:
        MoreishError: there is no such home folder, or no file can have this name.
    """
    if str(path).isspace():
        raise MoreishError("the path is blank: name a file or folder")
    try:
        raw = os.fsencode(path)
        if "\0" not in os.fsdecode(raw) and len(max(raw.split(b"/"), key=len)) <= MAX_NAME_BYTES:
            return Path(path).expanduser()
    except UnicodeEncodeError:
        pass
    except RuntimeError:
        raise MoreishError(
            f"{path}: there is no home folder of that name; write the whole path, or ./{path} for "
            "a file of this name"
        ) from None
    raise MoreishError(
        f"{str(path)[:80]!r}: no file can have this name; it is too long, or has what is not text"
    )


def partial_path(path: Path) -> Path:
    """Return where this process writes a file or folder that will be renamed to `path`."""
    return path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def remove_partial_files(folder: Path, *names: str) -> None:
    """Remove the incomplete files and folders that a killed process left in `folder`.

    Args:
        folder: the folder.
        names: the final names of files that only this process may write now, because it holds a
            lock; without names, all files in the folder are such.
    """
    for partial in list(folder.iterdir()) if folder.is_dir() else ():
        match = PARTIAL_NAME.fullmatch(partial.name)
        if match is not None and (not names or match[1] in names):
            shutil.rmtree(partial, ignore_errors=True)
            partial.unlink(missing_ok=True)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Create a folder to be filled and then renamed to `path`; it is removed if that fails.

    It is locked meanwhile. The unlocked ones, which killed processes left for the same path, are
    removed first.
    """
    hidden = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in list(path.parent.iterdir()):
        match = PARTIAL_NAME.fullmatch(other.name)
        if match is not None and match[1] == hidden.name:
            with suppress(MoreishError, OSError), file_lock(other / LOCK, "it is being filled"):
                shutil.rmtree(other)
    partial = partial_path(hidden)
    partial.mkdir()
    try:
        with file_lock(partial / LOCK, "it is being removed"):
            yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_disk_space(place: Path, needed: int, what: str) -> None:
    """Check that a file system has room before anything is written.

    Args:
        place: a file or folder, which need not exist yet.
        needed: bytes.
        what: the name of what is to be written, for the message.

    Raises:
        OSError: there is too little space.
    """
    folder = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed + RESERVED_BYTES > free:
        reason = f"{what} takes {format_bytes(needed)} of disk, and {format_bytes(free)} are free"
        raise OSError(errno.ENOSPC, reason, str(folder))


def format_bytes(count: float) -> str:
    """Format a number of bytes with a decimal unit.

    >>> format_bytes(1_234_567)
    '1.2 MB'
    """
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while count >= 1000 and len(units) > 1:
        count, _ = count / 1000, units.pop()
    small = count < 10 and units[-1] != "bytes"
    return f"{count:.1f} {units[-1]}" if small else f"{count:.0f} {units[-1]}"


def visible_files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by path, except hidden files and folders."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def summarize_paths(paths: Sequence[Path]) -> str:
    """Return the names of up to three files.

    >>> summarize_paths([Path("a/b.txt"), Path("c.txt")])
    'b.txt, c.txt'
    """
    return ", ".join(path.name for path in paths[:3]) + (", …" if paths[3:] else "")


@contextmanager
def file_lock(path: Path, message: str, *, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock file, which the system releases when the process ends.

    Args:
        path: the lock file; it is created.
        message: the error message if another process holds the lock.
        seconds: how long to wait for it.

    Raises:
        MoreishError: another process holds the lock.
    """
    try:
        lock = FileLock(path).acquire(timeout=seconds)
    except Timeout:
        raise MoreishError(message) from None
    with lock:
        yield


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, nested too deeply, or larger than `MAX_JSON_BYTES`.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {format_bytes(MAX_JSON_BYTES)}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encode_json(data: Any) -> bytes:
    """Serialize data as Moreish's JSON files; NaN and infinity, which JSON lacks, are rejected."""
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # a command line with bytes that are not UTF-8, which are escaped
        return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()
