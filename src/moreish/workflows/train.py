"""Train a model: from a text and settings to a finished run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moreish.config import RunConfig
from moreish.distributed import may_restart, restart_count
from moreish.errors import MoreishError, command
from moreish.models import CountBasedModel, KneserNey, Model
from moreish.planning import resolve_auto_model
from moreish.runs import ENDED_STATUSES, Run, backup_path, check_run_path, remove_run, training_lock
from moreish.training import (
    FINE_TUNING_LR_SCALE,
    LOGS,
    LR_RANGE_FILE,
    Audited,
    LRRange,
    Note,
    Report,
    TrainingSetup,
    audit_beginning,
    build_optimizer,
    check_optimizer,
    check_warm_start,
    default_lr,
    parse_trackers,
    resolve_device,
    run_lr_range_test,
    set_up,
)
from moreish.utils.files import remove_partial_files
from moreish.workflows.fit import Coordinator
from moreish.workflows.new_run import new_run


def train(
    config: RunConfig,
    out: Path | None,
    *,
    overwrite: bool,
    report: Report,
    notes: tuple[str, ...] = (),
) -> Run:
    """Train a model in a new run folder.

    One of several processes of a launcher trains together with the others. If the launcher restarts
    them because one died, they resume the run at `out`.

    Args:
        config: the settings of the run.
        out: the run folder; None finds a free name in `runs/`.
        overwrite: whether a run at `out` may be replaced.
        report: a function that is called with every event.
        notes: sentences about the settings, for the user.

    Raises:
        MoreishError: a setting or the source is invalid; no run folder was created.
    """
    with Coordinator.join() as coordinator:
        if not coordinator.group.is_main:
            return coordinator.follow()
        if out is not None and restart_count() and (out / "run.json").is_file():
            return _resume(out, coordinator, inexact=False, report=report)
        check_request(config, out, overwrite=overwrite)

        setup = set_up(config)
        audit = audit_beginning(setup.corpus, config.data)
        setup, reasons = resolve_auto_model(setup)
        model = setup.build_model()  # for checks and the default rate; `fit` builds its own
        remarks = check_model(model, setup, processes=coordinator.group.size)
        if audit is not None:
            report(Audited(audit=audit))
        for text in (*notes, *reasons, *remarks):
            report(Note(text=text))
        setup, lr_test = choose_lr(model, setup, report)

        files = {}
        if lr_test is not None:
            files[LR_RANGE_FILE] = lr_test.encode()
        if audit is not None:
            files["doctor.json"] = audit.encode()
        with new_run(out, setup, overwrite=overwrite, files=files) as run:
            coordinator.fit(run, report)
        return run


def resume(
    path: Path,
    *,
    inexact: bool = False,
    budget: Mapping[str, Any] | None = None,
    report: Report,
) -> Run:
    """Resume an interrupted run from its newest checkpoint, or else from the beginning; or train a
    finished one longer.

    Args:
        path: the run folder.
        inexact: whether to resume even where the result would not be the same bit for bit.
        budget: how long to train a finished run further, as in `BudgetConfig`.
        report: a function that is called with every event.

    Raises:
        MoreishError: there is no such run, it has finished, another process trains it, it would not
            be exact, or its checkpoints are damaged.
    """
    with Coordinator.join() as coordinator:
        if not coordinator.group.is_main:
            return coordinator.follow()
        return _resume(path, coordinator, inexact=inexact, budget=budget, report=report)


def _resume(
    path: Path,
    coordinator: Coordinator,
    *,
    inexact: bool,
    budget: Mapping[str, Any] | None = None,
    report: Report,
) -> Run:
    Run.open(path)  # raises when it is not a run
    with training_lock(path):
        run = Run.open(path)  # as it is now that no other process can change it
        has_ended = run.record.status in ENDED_STATUSES
        if not run.split_names:
            raise MoreishError(f"{path} cannot be resumed: its model was imported, without data")
        if run.record.status == "diverged":
            raise MoreishError(f"{path} cannot be resumed: it diverged; train with a lower --lr")
        if has_ended and not budget:
            longer = command("train", "--resume", path, "--minutes", "5")
            raise MoreishError(
                f"{path} cannot be resumed: its status is '{run.record.status}'; to train it "
                f"longer: {longer}"
            )
        if budget and not has_ended:
            first = command("train", "--resume", path)
            raise MoreishError(f"{path} is interrupted: first resume it, {first}")
        remove_partial_files(path, "model.safetensors", *LOGS)
        remove_partial_files(run.checkpoints)
        if budget:
            run.extend(budget)
            coordinator.fit(run, report)
            return run
        coordinator.fit(run, report, resume="inexact" if inexact else "exact")
        remove_run(backup_path(run.path))  # left behind where the start of this run was killed
    return run


def check_request(config: RunConfig, out: Path | None, *, overwrite: bool) -> None:
    """Check the run folder, the device, the optimizer and the trackers before any work is done.

    Raises:
        MoreishError: one of them cannot be used.
    """
    if out is None and may_restart():
        raise MoreishError("name the run, --out runs/NAME: a restart has to resume it")
    if out is not None:
        check_run_path(out, overwrite=overwrite)
        if (out / "run.json").is_file():
            with training_lock(out):  # raises when another process trains it
                pass
    check_optimizer(config.train.optimizer)
    parse_trackers(config.train.track)
    resolve_device(config.train.device)


def check_model(model: Model, setup: TrainingSetup, *, processes: int) -> list[str]:
    """Check the model before anything is written.

    Returns:
        Notes for the user.

    Raises:
        MoreishError: the model is too large, or does not fit the processes or the warm start.
    """
    config = setup.config
    if processes > 1 and isinstance(model, CountBasedModel):
        raise MoreishError(f"{config.model.name} is fitted by counting, which takes one process")
    longest = setup.facts.longest_target
    if longest is not None and model.max_length is not None and model.max_length < longest:
        raise MoreishError(
            f"--context {model.max_length}: the longest target has {longest} tokens with its end, "
            "and targets are never cut; give at least as many, or leave out these examples"
        )
    if config.init_from is not None:
        source = Run.open(Path(config.init_from))
        is_prepared = setup.facts.sources is not None
        check_warm_start(source, model, setup.tokenizer, prepared=is_prepared)
    counts = any(isinstance(part, CountBasedModel | KneserNey) for part in model.modules())
    if counts and config.data.weights is not None:
        return ["The n-gram counts ignore --weight: they count everything once."]
    return []


def choose_lr(
    model: Model, setup: TrainingSetup, report: Report
) -> tuple[TrainingSetup, LRRange | None]:
    """Choose the learning rate if the settings leave it open.

    Returns:
        The setup with a learning rate, which count-based models lack, and the range test that
        found it, if there was one.
    """
    config, lr_test = setup.config, None
    if isinstance(model, CountBasedModel):
        return setup, None
    lr = config.train.lr or default_lr(model, config.train.optimizer)
    if config.train.lr is None and config.init_from is not None and isinstance(lr, float):
        lr *= FINE_TUNING_LR_SCALE
        report(Note(text=f"Learning rate {lr:.2g}: a tenth of the usual one, for fine-tuning."))
    if lr == "auto":
        # With one seed for all runs, so that runs that differ in their seed stay comparable.
        fixed_seed = replace(setup, config=config.model_copy(update={"seed": 0}))
        lr_test = run_lr_range_test(fixed_seed, report=report)
        lr = lr_test.suggested
        report(Note(text=f"Learning rate {lr:.3g}, found by a range test."))
    config = config.model_copy(update={"train": config.train.model_copy(update={"lr": lr})})
    build_optimizer(model, config.train)  # raises when the optimizer's settings do not fit
    return replace(setup, config=config), lr_test
