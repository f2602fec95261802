"""Writing so that a file is either the old one or the new one, whole, whatever happens."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PART = ".part"
"""Ending of what is being written and not yet in its place."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename, flush the folder."""
    beside = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        write_durable(beside, content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_durable(path: Path, content: bytes) -> None:
    """Write and flush to disk."""
    with named(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors say which file: that of a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a loss of power."""
    if os.name == "nt":  # Windows cannot open folders, and flushes their entries itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(data: Any) -> bytes:
    """JSON as our files hold it. Numbers that JSON lacks (NaN, infinity) are a mistake of ours."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
