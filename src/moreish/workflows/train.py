"""One training from start to end: what it is of, where it lies, and who takes part."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from moreish.config import RunConfig
from moreish.data import ShardedArray
from moreish.distributed import (
    ProcessGroup,
    join_process_group,
    may_restart,
    restart_count,
)
from moreish.errors import MoreishError, command
from moreish.models import CountBasedModel, KneserNey, build_model
from moreish.planning import resolve_auto_model
from moreish.runs import ENDED_STATUSES, Run, backup_path, check_run_path, remove_run, training_lock
from moreish.training import (
    CHECKPOINTS_KEPT,
    FINE_TUNING_LR_SCALE,
    Audited,
    LRRange,
    Note,
    Report,
    TrainingSetup,
    build_optimizer,
    check_optimizer,
    check_warm_start,
    default_lr,
    ignore,
    require_trackers,
    resolve_device,
    run_lr_range_test,
    set_up,
)
from moreish.utils.files import check_disk_space, remove_partial_files
from moreish.workflows.fit import fit

RUNS = Path("runs")
"""Where runs are made when no place is named."""


def train(
    config: RunConfig,
    out: Path | None,
    *,
    overwrite: bool,
    report: Report,
    notes: tuple[str, ...] = (),
) -> tuple[Run, bool]:
    """Train what `config` says; returns the run, and whether it came to its end.

    Args:
        out: the run folder; None finds a free name in `runs/`.
        overwrite: whether a run at `out` may be replaced.
        notes: what to say about the settings, once they are known to be good.

    Started by a launcher as one of several processes, it trains together with the others; started
    anew by it, because one of them died, it goes on in the run at `out`.

    Raises:
        MoreishError: a user's mistake; then no run folder was made.
    """
    with join_process_group() as group:
        if not group.is_main:
            return _follow(group)
        with _leading(group) as lead:
            if out is not None and restart_count() and (out / "run.json").is_file():
                return _go_on(out, lead, inexact=False, report=report)
            return _begin(config, out, lead, overwrite=overwrite, report=report, notes=notes)


def _begin(
    config: RunConfig,
    out: Path | None,
    lead: "Lead",
    *,
    overwrite: bool,
    report: Report,
    notes: tuple[str, ...],
) -> tuple[Run, bool]:
    """A new run, see `train`."""
    if out is None and may_restart():
        raise MoreishError("name the run, --out runs/…: a restart is to go on in it")
    if out is not None:
        check_run_path(out, overwrite=overwrite)
        if (out / "run.json").is_file():
            with training_lock(out):
                pass  # said before the data are prepared
    check_optimizer(config.train.optimizer)  # a model that only counts would not notice
    require_trackers(config.train.track)
    ready, reasons = resolve_auto_model(set_up(config, examined=True))
    # Whatever is wrong with the settings is to be said before anything is written.
    fresh = ready.model()
    if lead.group.size > 1 and isinstance(fresh, CountBasedModel):
        name = ready.config.model.name
        raise MoreishError(f"{name} only counts, which one process does: start it without others")
    if config.init_from is not None:
        prepared = ready.facts.sources is not None
        check_warm_start(
            Run.open(Path(config.init_from)), fresh, ready.tokenizer, prepared=prepared
        )
    if ready.audit is not None:
        report(Audited(audit=ready.audit))
    for note in (*notes, *reasons):
        report(Note(text=note))
    counts = any(isinstance(part, CountBasedModel | KneserNey) for part in fresh.modules())
    if counts and ready.config.data.weights is not None:
        report(Note(text="what is counted is counted once, whatever the weights"))
    ready, found = _with_rate(ready, report)
    path = out or free_path(f"{ready.facts.name}-{ready.config.model.name}")
    check_disk_space(path, _space(ready), "this run")
    with _new_run(path, ready, overwrite=overwrite) as run:
        if found is not None:
            found.save(run.path)
        if ready.audit is not None:
            ready.audit.save(run.path / "doctor.json")
        ended = lead(run, ready.device, report)
        if not _worth_keeping(run) and backup_path(path).exists():
            raise KeyboardInterrupt  # it came before there was anything better than the old run
        return run, ended


def _with_rate(ready: TrainingSetup, report: Report) -> tuple[TrainingSetup, LRRange | None]:
    """With the learning rate, if it has one, and the test that found it."""
    model, config, found = ready.model(), ready.config, None
    if isinstance(model, CountBasedModel):
        return ready, None
    lr = config.train.lr or default_lr(model, config.train.optimizer)
    if config.train.lr is None and config.init_from is not None and isinstance(lr, float):
        lr *= FINE_TUNING_LR_SCALE
        report(Note(text=f"learning rate {lr:.2g}, a tenth of the usual: it has learned already"))
    if lr == "auto":
        # With one seed for all runs, so that those that differ in theirs stay comparable.
        fixed = replace(ready, config=config.model_copy(update={"seed": 0}))
        found = run_lr_range_test(fixed, report=report)
        lr = found.suggested
        report(Note(text=f"learning rate {lr:.3g}, from a range test"))
    config = config.model_copy(update={"train": config.train.model_copy(update={"lr": lr})})
    build_optimizer(model, config.train)
    return replace(ready, config=config), found


@contextmanager
def _new_run(path: Path, ready: TrainingSetup, *, overwrite: bool) -> Iterator[Run]:
    """A new run folder, locked. When an error ends it before anything worth keeping was made, it
    goes again, and the run that it replaced comes back."""
    alone = not path.parent.exists()
    replacing = (path / "run.json").is_file()
    with training_lock(path) if replacing else nullcontext():
        run = Run.create(
            path, ready.config, ready.tokenizer, ready.splits, ready.facts, overwrite=overwrite
        )
    with training_lock(path):
        try:
            yield run
        except (Exception, KeyboardInterrupt) as error:
            if not _worth_keeping(run):
                shutil.rmtree(path, ignore_errors=True)
                if replacing:
                    backup_path(path).rename(path)
                elif alone:
                    with suppress(OSError):  # somebody else's run may be there by now
                        path.parent.rmdir()
            elif isinstance(error, OSError):
                raise MoreishError(
                    f"{error.strerror or error}: {error.filename}; when that is mended, go on with "
                    f"{command('train', '--resume', path)}"
                ) from None
            raise
        finally:
            if replacing:
                remove_run(backup_path(path))


def resume(path: Path, *, inexact: bool = False, report: Report) -> tuple[Run, bool]:
    """Go on with an interrupted training from its newest checkpoint, else from the beginning.

    Args:
        inexact: even where it would not end with the bits that it had ended with uninterrupted.

    Raises:
        MoreishError: there is no such run, it came to its end, another process trains it, it would
            not be exact, or its checkpoints are damaged.
    """
    with join_process_group() as group:
        if not group.is_main:
            return _follow(group)
        with _leading(group) as lead:
            return _go_on(path, lead, inexact=inexact, report=report)


def _go_on(path: Path, lead: "Lead", *, inexact: bool, report: Report) -> tuple[Run, bool]:
    """Of an interrupted run, see `resume`."""
    run = Run.open(path)
    with training_lock(path):
        run = Run.open(path)  # as it is now that nobody else can change it
        if run.record.status in ENDED_STATUSES:
            raise MoreishError(
                f"{path} came to its end ({run.record.status}): there is nothing to resume"
            )
        remove_partial_files(path)
        exact = not inexact
        ended = lead(run, resolve_device(run.config.train.device), report, exact=exact)
        remove_run(backup_path(run.path))  # where its start was killed
    return run, ended


@dataclass
class Lead:
    """The first process tells the others of the run, and all carry it out."""

    group: ProcessGroup
    told: bool = False

    def __call__(
        self, run: Run, device: torch.device, report: Report, *, exact: bool | None = None
    ) -> bool:
        self.told = True
        self.group.broadcast_text(json.dumps([str(run.path.absolute()), exact]))
        return fit(run, device, report, exact=exact, group=self.group)


@contextmanager
def _leading(group: ProcessGroup) -> Iterator[Lead]:
    """Whatever goes wrong before the others know of a run, they go home."""
    lead = Lead(group)
    try:
        yield lead
    except BaseException:
        if not lead.told:
            group.broadcast_text("null")
        raise


def _follow(group: ProcessGroup) -> tuple[Run, bool]:
    """Train along in the run that the first process has made or opened."""
    told = json.loads(group.broadcast_text(""))
    if told is None:  # it says why itself
        raise SystemExit(0)
    path, exact = told
    run = Run.open(path)
    device = resolve_device(run.config.train.device)
    return run, fit(run, device, ignore, exact=exact, group=group)


def free_path(name: str) -> Path:
    """runs/name, or the first of runs/name-2, runs/name-3 … that does not exist."""
    path, number = RUNS / name, 1
    while path.exists():
        number += 1
        path = RUNS / f"{name}-{number}"
    return path


def _worth_keeping(run: Run) -> bool:
    return run.has_weights or any(run.checkpoints.glob("step-*"))


def _space(ready: TrainingSetup) -> int:
    """Bytes of disk that a run takes: its data, its best weights and its checkpoints."""
    with torch.device("meta"):  # shapes without memory
        model = build_model(ready.config.model, ready.tokenizer.vocab_size)
    data = sum(
        tokens.ids_N.nbytes
        for name, tokens in ready.splits.items()
        if name != "train" or not isinstance(tokens.ids_N, ShardedArray)  # which is not copied
    )
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    if isinstance(model, CountBasedModel):
        return data + weights
    moments = 2 * sum(parameter.nbytes for parameter in model.parameters())
    # One more of each while it is written.
    return data + 2 * weights + (CHECKPOINTS_KEPT + 1) * (weights + moments)
