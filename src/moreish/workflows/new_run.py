"""New run folders: where they go, what they need, and what happens when they fail."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path

from moreish.data import ShardedArray
from moreish.errors import MoreishError, command
from moreish.runs import (
    Run,
    backup_path,
    remove_run,
    replacement_lock,
    restore_run,
    training_lock,
)
from moreish.training import TrainingSetup, build_meta_model, peak_disk_bytes
from moreish.utils.files import check_disk_space
from moreish.utils.platforms import IS_WINDOWS, rename_folder

RUNS = Path("runs")
"""The folder of new runs that have no name."""


@contextmanager
def new_run(
    out: Path | None, setup: TrainingSetup, *, overwrite: bool, files: Mapping[str, bytes]
) -> Iterator[Run]:
    """Create a run folder and lock it.

    If an error leaves nothing worth keeping in it, it is removed and the run that it replaced is
    restored.

    Args:
        out: the folder; None finds a free name in `runs/`.
        setup: the data and settings of the run.
        overwrite: whether a run at `out` may be replaced.
        files: other files of the run, by name.
    """
    path = out or free_path(f"{setup.facts.name}-{setup.config.model.name}")
    check_disk_space(path, _disk_space(setup), "this run")
    is_first = not path.parent.exists()
    if overwrite:
        restore_run(path)
    is_replacing = (path / "run.json").is_file()
    with replacement_lock(path) if is_replacing else nullcontext():
        run = Run.create(
            path,
            setup.config,
            setup.tokenizer,
            setup.splits,
            setup.facts,
            overwrite=overwrite,
            files=files,
        )
    with ExitStack() as locks:
        locks.enter_context(training_lock(path))
        try:
            yield run
            if not _is_worth_keeping(run) and backup_path(path).exists():
                raise KeyboardInterrupt  # so early that the replaced run is restored
        except (Exception, KeyboardInterrupt) as error:
            if not _is_worth_keeping(run):
                if IS_WINDOWS:  # which neither removes nor renames a folder with an open file
                    locks.close()
                shutil.rmtree(path, ignore_errors=True)
                if is_replacing:
                    _restore(path, error)
                elif is_first:
                    with suppress(OSError):  # another run may be there by now
                        path.parent.rmdir()
            elif isinstance(error, OSError):
                raise MoreishError(
                    f"{error.strerror or error}: {error.filename}; when that is fixed, resume with "
                    f"{command('train', '--resume', path)}"
                ) from None
            raise
        finally:
            if is_replacing and _is_worth_keeping(run):
                remove_run(backup_path(path))


def _restore(path: Path, error: BaseException) -> None:
    """Put the run that was to be replaced at `path` back. Raises MoreishError where Windows does
    not let go of the failed one: the replaced one is then kept where it is."""
    try:
        rename_folder(backup_path(path), path)
    except (MoreishError, FileExistsError):
        kept = f"the run that it was to replace is kept in {backup_path(path)}"
        raise MoreishError(f"{str(error) or 'interrupted'}; {kept}") from None


def free_path(name: str) -> Path:
    """Return runs/name, or the first of runs/name-2, runs/name-3, … that does not exist."""
    places = (RUNS / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(path for path in places if not path.exists())


def _is_worth_keeping(run: Run) -> bool:
    return run.has_weights or any(run.checkpoints.glob("step-*"))


def _disk_space(setup: TrainingSetup) -> int:
    """Return the peak size of a run folder in bytes."""
    model = build_meta_model(setup.config.model, setup.tokenizer.vocab_size)
    data = sum(
        tokens.ids_N.nbytes
        for name, tokens in setup.splits.items()
        if name != "train" or not isinstance(tokens.ids_N, ShardedArray)  # which is not copied
    )
    return data + peak_disk_bytes(model, setup.config.train)
