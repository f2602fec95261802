"""Where a run may be created, and what happens to the run that it replaces."""

import shlex
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from moreish.errors import MoreishError
from moreish.utils.files import LOCK, PARTIAL_SUFFIX, file_lock
from moreish.utils.platforms import IS_WINDOWS


def is_run(path: Path) -> bool:
    """Whether a folder is a run folder."""
    return (path / "run.json").is_file()


def backup_path(path: Path) -> Path:
    """Where the run that a new one at `path` replaces is kept until the new one is under way."""
    path = path if path.name else path.absolute()  # the current folder
    return path.parent / f".{path.name}.replaced"


def check_not_replaced(path: Path) -> None:
    """Raise MoreishError if there is no run at `path` because replacing it was interrupted."""
    if not path.exists() and is_run(backup_path(path)):
        raise MoreishError(
            f"replacing {path} was interrupted; the old run is still there: "
            f"{shlex.join(['mv', str(backup_path(path)), str(path)])}"
        )


def restore_run(path: Path) -> None:
    """Put a run back whose replacement was interrupted.

    Raises:
        MoreishError: another process is replacing it.
    """
    if not path.exists() and is_run(backup := backup_path(path)):
        with training_lock(backup):
            backup.rename(path)


def remove_run(path: Path) -> None:
    """Remove a run folder; anything else is left alone, except for an empty folder."""
    if is_run(path):
        for child in path.iterdir():
            if child.name != "run.json":  # last, so that the rest of it is removed after a kill
                shutil.rmtree(child, ignore_errors=True)
                with suppress(OSError):
                    child.unlink()
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.rmdir()


def training_lock(path: Path) -> AbstractContextManager[None]:
    """Lock the run folder at `path`, so that no other process trains in it.

    Raises:
        MoreishError: another process does.
    """
    message = f"another process is training {path}: wait until it ends"
    return file_lock(path / LOCK, message)


@contextmanager
def replacement_lock(path: Path) -> Iterator[None]:
    """Lock the run folder at `path` while it is renamed. Windows renames no folder with an open
    file, so the lock is released at once there.

    Raises:
        MoreishError: another process trains in it.
    """
    with ExitStack() as stack:
        stack.enter_context(training_lock(path))
        if IS_WINDOWS:
            stack.close()
        yield


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Check that a run can be created at `path`.

    Raises:
        MoreishError: it cannot, and why.
    """
    if path.name in ("", ".."):
        raise MoreishError(f"--out {path}: give the run a folder of its own, e.g. runs/mine")
    if path.name.endswith(PARTIAL_SUFFIX):
        raise MoreishError(f"--out {path}: unfinished folders end in {PARTIAL_SUFFIX}; rename it")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:  # the library that reads weights opens no such file
        raise MoreishError(f"--out {path}: this path is not valid UTF-8; choose another") from None
    for parent in path.absolute().parents:
        if is_run(parent):
            raise MoreishError(f"--out {path}: {parent} is a run folder, which cannot hold another")
        if parent.is_file():
            raise MoreishError(f"--out {path}: {parent} is a file, not a folder")
    is_empty = path.is_dir() and not any(path.iterdir())
    if is_empty or not (path.exists() or path.is_symlink()):
        if not overwrite:
            check_not_replaced(path)
        return
    if not overwrite:
        raise MoreishError(f"{path} exists: choose another --out, or replace it with --overwrite")
    if path.is_symlink() or not is_run(path):
        raise MoreishError(f"{path} is not a run folder, so --overwrite will not replace it")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise MoreishError(f"you are inside {path}: change to another folder to replace it")


def other_runs(path: Path) -> str:
    """The end of an error message that lists the runs beside or in `path`, if any."""
    folder = path if path.is_dir() else path.parent
    runs = sorted(str(found.parent) for found in folder.glob("*/run.json"))
    return f"; there are {', '.join(runs[:5])}" if runs else ""
