"""Writing so that a file is either the old one or the new one, whole, whatever happens."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from moreish.errors import MoreishError

PARTIAL_SUFFIX = ".part"
"""Ending of what is being written and not yet in its place."""

MAX_JSON_BYTES = 1 << 26
"""Bytes of a JSON file; a larger one is none of ours."""

SPARE = 1 << 16
"""Bytes that a file system needs beside what is written: names, blocks that are not full."""


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write beside, flush to disk, rename, flush the folder."""
    beside = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        write_durable(beside, [content] if isinstance(content, bytes) else content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_durable(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write and flush to disk. By system calls alone, so that tests can make each of them fail."""
    with naming_errors(path):
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, how, 0o666)
        try:
            for piece in pieces:
                left = memoryview(piece).cast("B")
                while left:  # a write may be a short one
                    left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Errors say which file: that of a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def fsync_file(path: Path) -> None:
    """Flush to disk what was appended to a file, if there is one."""
    with naming_errors(path), suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR)  # Windows flushes only what may be written
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a loss of power."""
    if os.name == "nt":  # Windows cannot open folders, and flushes their entries itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Remove what a process that was killed left half written below `folder`."""
    for part in folder.rglob(f"*{PARTIAL_SUFFIX}"):
        shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)


def check_disk_space(place: Path, needed: int, what: str) -> None:
    """Raises OSError when there is no room for so many bytes at `place`, or above it."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if needed + SPARE > free:
        reason = f"{what} takes {format_bytes(needed)} of disk, and {format_bytes(free)} are free"
        raise OSError(errno.ENOSPC, reason, str(there))


def format_bytes(count: float) -> str:
    """A number of bytes for people.

    >>> format_bytes(1_234_567)
    '1.2 MB'
    """
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while count >= 1000 and len(units) > 1:
        count, _ = count / 1000, units.pop()
    small = count < 10 and units[-1] != "bytes"
    return f"{count:.1f} {units[-1]}" if small else f"{count:.0f} {units[-1]}"


def summarize_paths(paths: Sequence[Path]) -> str:
    """The names of some files, for people.

    >>> summarize_paths([Path("a/b.txt"), Path("c.txt")])
    'b.txt, c.txt'
    """
    return ", ".join(path.name for path in paths[:3]) + (", …" if paths[3:] else "")


@contextmanager
def file_lock(path: Path, otherwise: str, *, seconds: float = 0.0) -> Iterator[None]:
    """While open, no other process has `path` locked; the system lets go of it when this one dies.

    Raises:
        MoreishError: another has, and keeps it for longer than `seconds`; it says `otherwise`.
    """
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise MoreishError(otherwise) from None
    try:
        yield
    finally:
        lock.release()


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError, or ValueError when it is none, or far too large."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {format_bytes(MAX_JSON_BYTES)}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def encode_json(data: Any) -> bytes:
    """JSON as our files hold it. Numbers that JSON lacks (NaN, infinity) are a mistake of ours."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
