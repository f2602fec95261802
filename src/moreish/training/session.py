"""One training from start to end: data, model, loop, log, results."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from moreish.config import BUDGETS, RunConfig, TrainConfig
from moreish.data.joined import Joined
from moreish.data.split import SplitName
from moreish.errors import MoreishError, command
from moreish.evaluate.metrics import (
    Score,
    evaluation_batches,
    evaluation_spans,
    fitting,
    losses_of,
)
from moreish.files import check_space, clear_parts
from moreish.models import CountedModel, Model, build_model
from moreish.models.kneser_ney import KneserNey
from moreish.models.mixture import Mixture
from moreish.record import ENDED, surroundings
from moreish.run import Run, check_free, discard, replaced_by, training_lock
from moreish.terminal import outliving_its_terminal
from moreish.training.budget import Plan, budget_steps, measure, plan_minutes, plan_steps
from moreish.training.checkpoint import KEPT, PROCESSES, Checkpoints
from moreish.training.divergence import DivergenceError
from moreish.training.events import Examined, Note, Report, Started, Working, silent
from moreish.training.initial import SLOWER, check_start, source_of, start_from
from moreish.training.log import Log
from moreish.training.loop import Hooks, Position, Trainer, time_of_step
from moreish.training.lr_range import LRRange
from moreish.training.memory import check_counting, check_memory_of, free_memory
from moreish.training.objective import next_token, with_squared_weights
from moreish.training.optim import build_optimizer, check_optimizer, default_rate
from moreish.training.parallel import in_parts, spread
from moreish.training.planner import planned
from moreish.training.platform import lacking
from moreish.training.prepare import Ready, find_device, make_sampler, prepare, try_rates
from moreish.training.tracking import trackers_of
from moreish.world import (
    ALONE,
    World,
    load_state,
    may_restart,
    parted,
    restarts,
    together,
)

RUNS = Path("runs")
"""Where runs are made when no place is named."""

LARGE = 2_000_000
"""Training tokens, up to which their exact loss is always part of the result."""


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
    with together() as world:
        if not world.first:
            return _follow(world)
        with _leading(world) as lead:
            if out is not None and restarts() and (out / "run.json").is_file():
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
        check_free(out, overwrite=overwrite)
        if (out / "run.json").is_file():
            with training_lock(out):
                pass  # said before the data are prepared
    check_optimizer(config.train.optimizer)  # a model that only counts would not notice
    trackers_of(config.train.track)
    ready, reasons = planned(prepare(config, examined=True))
    # Whatever is wrong with the settings is to be said before anything is written.
    fresh = ready.model()
    if lead.world.size > 1 and isinstance(fresh, CountedModel):
        name = ready.config.model.name
        raise MoreishError(f"{name} only counts, which one process does: start it without others")
    if config.init_from is not None:
        prepared = ready.facts.sources is not None
        check_start(Run.open(Path(config.init_from)), fresh, ready.tokenizer, prepared=prepared)
    if ready.diagnosis is not None:
        report(Examined(diagnosis=ready.diagnosis))
    for note in (*notes, *reasons):
        report(Note(text=note))
    counts = any(isinstance(part, CountedModel | KneserNey) for part in fresh.modules())
    if counts and ready.config.data.weights is not None:
        report(Note(text="what is counted is counted once, whatever the weights"))
    ready, found = _with_rate(ready, report)
    path = out or free_path(f"{ready.facts.name}-{ready.config.model.name}")
    check_space(path, _space(ready), "this run")
    with _new_run(path, ready, overwrite=overwrite) as run:
        if found is not None:
            found.save(run.path)
        if ready.diagnosis is not None:
            ready.diagnosis.save(run.path / "doctor.json")
        ended = lead(run, ready.device, report)
        if not _worth_keeping(run) and replaced_by(path).exists():
            raise KeyboardInterrupt  # it came before there was anything better than the old run
        return run, ended


def _with_rate(ready: Ready, report: Report) -> tuple[Ready, LRRange | None]:
    """With the learning rate, if it has one, and the test that found it."""
    model, config, found = ready.model(), ready.config, None
    if isinstance(model, CountedModel):
        return ready, None
    lr = config.train.lr or default_rate(model, config.train.optimizer)
    if config.train.lr is None and config.init_from is not None and isinstance(lr, float):
        lr *= SLOWER
        report(Note(text=f"learning rate {lr:.2g}, a tenth of the usual: it has learned already"))
    if lr == "auto":
        # With one seed for all runs, so that those that differ in theirs stay comparable.
        fixed = replace(ready, config=config.model_copy(update={"seed": 0}))
        found = try_rates(fixed, report=report)
        lr = found.suggested
        report(Note(text=f"learning rate {lr:.3g}, from a range test"))
    config = config.model_copy(update={"train": config.train.model_copy(update={"lr": lr})})
    build_optimizer(model, config.train)
    return replace(ready, config=config), found


@contextmanager
def _new_run(path: Path, ready: Ready, *, overwrite: bool) -> Iterator[Run]:
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
                    replaced_by(path).rename(path)
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
                discard(replaced_by(path))


def resume(path: Path, *, inexact: bool = False, report: Report) -> tuple[Run, bool]:
    """Go on with an interrupted training from its newest checkpoint, else from the beginning.

    Args:
        inexact: even where it would not end with the bits that it had ended with uninterrupted.

    Raises:
        MoreishError: there is no such run, it came to its end, another process trains it, it would
            not be exact, or its checkpoints are damaged.
    """
    with together() as world:
        if not world.first:
            return _follow(world)
        with _leading(world) as lead:
            return _go_on(path, lead, inexact=inexact, report=report)


def _go_on(path: Path, lead: "Lead", *, inexact: bool, report: Report) -> tuple[Run, bool]:
    """Of an interrupted run, see `resume`."""
    run = Run.open(path)
    with training_lock(path):
        run = Run.open(path)  # as it is now that nobody else can change it
        if run.record.status in ENDED:
            raise MoreishError(
                f"{path} came to its end ({run.record.status}): there is nothing to resume"
            )
        clear_parts(path)
        exact = not inexact
        ended = lead(run, find_device(run.config.train.device), report, exact=exact)
        discard(replaced_by(run.path))  # where its start was killed
    return run, ended


@dataclass
class Lead:
    """The first process tells the others of the run, and all carry it out."""

    world: World
    told: bool = False

    def __call__(
        self, run: Run, device: torch.device, report: Report, *, exact: bool | None = None
    ) -> bool:
        self.told = True
        self.world.tell(json.dumps([str(run.path.absolute()), exact]))
        return _carry_out(run, device, report, exact=exact, world=self.world)


@contextmanager
def _leading(world: World) -> Iterator[Lead]:
    """Whatever goes wrong before the others know of a run, they go home."""
    lead = Lead(world)
    try:
        yield lead
    except BaseException:
        if not lead.told:
            world.tell("null")
        raise


def _follow(world: World) -> tuple[Run, bool]:
    """Train along in the run that the first process has made or opened."""
    told = json.loads(world.tell(""))
    if told is None:  # it says why itself
        raise SystemExit(0)
    path, exact = told
    run = Run.open(path)
    device = find_device(run.config.train.device)
    return run, _carry_out(run, device, silent, exact=exact, world=world)


def free_path(name: str) -> Path:
    """runs/name, or the first of runs/name-2, runs/name-3 … that does not exist."""
    path, number = RUNS / name, 1
    while path.exists():
        number += 1
        path = RUNS / f"{name}-{number}"
    return path


def _carry_out(
    run: Run, device: torch.device, report: Report, *, exact: bool | None, world: World
) -> bool:
    """Train, score and record; returns whether it came to its end.

    Args:
        exact: of a training that goes on: whether that must be exact. None: it begins.
        world: the processes that do it together.
    """
    model = _fresh(run) if exact is None else run.new_model()
    try:
        with outliving_its_terminal():
            if isinstance(model, CountedModel):
                outcome = _count(run, model, report)
            else:
                outcome = _descend(run, model, device, report, exact=exact, world=world)
            began = time.perf_counter()
            scores = {}
            if outcome.ended != "interrupted":
                run.load_weights(model)  # the best, into the memory that is there
                if exact is not None:  # they may be newer than the checkpoint, and better
                    told = _tell(report)
                    outcome.position.best = run.score("val", model, progress=told, world=world)
                scores = _final_scores(run, model, outcome, report, world)
    except KeyboardInterrupt:  # while counting or scoring, or in a hurry
        if world.first:
            run.update(status="interrupted")
        return False
    if not world.first:
        return outcome.ended != "interrupted"
    at = outcome.position
    run.update(
        status=outcome.ended,
        parameters=model.parameter_count(),
        splits={name: score.as_json() for name, score in scores.items()},
        seconds=round(at.seconds, 3),
        evaluation_seconds=round(at.eval_seconds, 3),
        scoring_seconds=round(outcome.val_seconds + time.perf_counter() - began, 3),
        tokens_per_second=round(at.tokens / max(at.seconds - at.before - at.eval_seconds, 1e-9), 1),
    )
    return outcome.ended != "interrupted"


def _fresh(run: Run) -> Model:
    """The model that a training begins with."""
    model = run.new_model()
    if (source := source_of(run)) is not None:
        start_from(source, model)
    return model


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended."""

    ended: str
    position: Position
    val_seconds: float
    """That the last evaluation took."""


def _count(run: Run, model: CountedModel, report: Report) -> Outcome:
    tokens = run.split("train")
    check_counting(model, tokens)
    position = Position(plan=Plan(steps=0, eval_every=1))
    report(_started(run, model, position, torch.device("cpu")))
    if any(getattr(run.config.train, budget) is not None for budget in BUDGETS):
        report(Note(text=f"{run.config.model.name} is counted: it needs no {', '.join(BUDGETS)}"))
    began = time.perf_counter()
    model.fit(tokens)
    position.seconds, position.tokens = time.perf_counter() - began, tokens.predictions
    run.save_weights(model)
    began = time.perf_counter()
    position.best = run.score("val", progress=_tell(report))
    return Outcome(ended="finished", position=position, val_seconds=time.perf_counter() - began)


def _descend(
    run: Run,
    model: Model,
    device: torch.device,
    report: Report,
    *,
    exact: bool | None,
    world: World,
) -> Outcome:
    """Train by gradients; parts that are counted are counted first."""
    config = run.config.train
    began = time.perf_counter()
    check_counting(model, run.split("train"))
    model.before_training(run.split("train"))
    model.to(device)
    for note in lacking(config, model, device):
        report(Note(text=note))
    if in_parts(model, config, world, world.share(free_memory(device))):
        spread(model, world, device)
    trainer = Trainer(
        model,
        make_sampler(run.config, run.split("train"), model),
        config,
        objective=with_squared_weights(next_token, config.squared_weights),
        position=Position(plan=Plan(steps=1, eval_every=1)),
        device=device,
        world=world,
    )
    memory = None if parted(model) else check_memory_of(trainer)
    surrounded = surroundings(str(device))
    if world.size > 1:
        surrounded[PROCESSES] = str(world.size)
    checkpoints = Checkpoints(run.checkpoints, run.record.sha256, surrounded)
    with stop_on_signals() as stopping:
        if exact is not None and checkpoints:
            if (before := checkpoints.processes) not in (None, world.size):
                now = f"{world.size} now, {before} before: the same up to rounding"
                report(Note(text=f"processes: {now}"))
            for damaged in checkpoints.restore(trainer, inexact=not exact):
                report(Note(text=f"{damaged} is damaged: an older one is taken"))
            if trainer.position.best is not None and not run.has_weights:
                raise MoreishError(
                    f"{run.path} is damaged: its model.safetensors, the best weights so far, is "
                    "missing; put it back, or train again with --overwrite"
                )
        else:
            if exact is not None:
                report(Note(text="it has no checkpoint yet, so it starts from the beginning"))
                load_state(model, _fresh(run).state_dict())
            plan = make_plan(run, trainer, stopping, began)
            spent = world.share(time.perf_counter() - began)
            trainer.position = Position(plan=plan, seconds=spent, before=spent, planned_at=spent)
            if world.first:
                run.update(status="training")
        log = Log(run, trainer, report, resuming=exact is not None) if world.first else None
        report(_started(run, model, trainer.position, device, memory, world))

        start = replace(trainer.position)

        def checkpoint() -> None:
            if log is not None:
                log.flush()
            checkpoints.save(trainer)

        def go_back() -> None:
            if checkpoints:
                checkpoints.restore(trainer, inexact=True)  # whether it is, was asked at the start
                return
            fresh = _fresh(run)
            fresh.before_training(run.split("train"))
            trainer.begin(fresh, replace(start))

        hooks = Hooks(
            evaluate=lambda: run.score("val", model, progress=_tell(report), world=world),
            keep_best=lambda: run.save_weights(model, world),
            checkpoint=checkpoint,
            go_back=go_back,
            stopping=stopping,
            report=log or silent,
        )
        try:
            ended = trainer.run(hooks)
        except DivergenceError as error:
            if world.first:
                run.update(status="diverged")
            raise _explained(error, run) from None
        finally:
            if log is not None:
                log.close()
        if not world.share(run.has_weights):  # interrupted before the first evaluation
            run.save_weights(model, world)
    if isinstance(model, Mixture) and ended != "interrupted":
        trainer.position.best = _weigh(run, model, report, world)
    return Outcome(ended=ended, position=trainer.position, val_seconds=trainer.last_eval_seconds)


def _explained(error: DivergenceError, run: Run) -> DivergenceError:
    """With what the batch begins, and what is left."""
    text = ""
    if error.batch is not None:
        ids = error.batch.tokens_BT[0].numpy()
        text = f" Its batch begins with {run.tokenizer.decode(ids)[:30]!r}."
    kept = f"The best weights until then are kept: {command('sample', run.path)}"
    nothing = "There were no weights yet that are worth keeping"
    return DivergenceError(f"{error}.{text} {kept if run.has_weights else nothing}")


def _weigh(run: Run, model: Mixture, report: Report, world: World) -> Score:
    """Set the weight of the best network's mixture on validation; returns its score there."""
    run.load_weights(model)
    validation = run.split("val")
    alone = []
    for weight in (1.0, 0.0):  # each part as the mixture has it, in the same windows
        model.weight.fill_(weight)
        alone.append(losses_of(model, validation, world=world))
    model.set_weight(*alone)
    run.save_weights(model, world)
    report(Note(text=f"on validation the network weighs {model.weight:.3f} in the mixture"))
    return run.score("val", model, progress=_tell(report), world=world)


def _worth_keeping(run: Run) -> bool:
    return run.has_weights or any(run.checkpoints.glob("step-*"))


def _space(ready: Ready) -> int:
    """Bytes of disk that a run takes: its data, its best weights and its checkpoints."""
    with torch.device("meta"):  # shapes without memory
        model = build_model(ready.config.model, ready.tokenizer.vocab_size)
    data = sum(
        tokens.ids_N.nbytes
        for name, tokens in ready.splits.items()
        if name != "train" or not isinstance(tokens.ids_N, Joined)  # which is not copied
    )
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    if isinstance(model, CountedModel):
        return data + weights
    moments = 2 * sum(parameter.nbytes for parameter in model.parameters())
    # One more of each while it is written.
    return data + 2 * weights + (KEPT + 1) * (weights + moments)


def make_plan(run: Run, trainer: Trainer, stopping: Callable[[], bool], began: float) -> Plan:
    """Steps and evaluations for the budget; minutes, of which some are gone since `began`, are
    turned into steps by a short trial."""
    plan = _plan_for_budget(run, trainer, stopping, began)
    every = run.config.train.eval_every
    return plan if every is None else Plan(steps=plan.steps, eval_every=every)


def _plan_for_budget(
    run: Run, trainer: Trainer, stopping: Callable[[], bool], began: float
) -> Plan:
    config: TrainConfig = run.config.train
    validation = run.split("val")
    spans = evaluation_spans(trainer.model, validation)
    steps = budget_steps(config, trainer.sampler)
    if steps is not None:
        step_positions = trainer.sampler.batch(0).tokens_BT.numel()
        return plan_steps(steps, step_positions, float(spans.length_S.sum()))
    assert config.minutes is not None
    world = trainer.world
    step_seconds = time_of_step(trainer, stopping, seconds=min(0.5, config.minutes))
    some = spans[:: max(1, len(spans) // 2000)]
    batches = list(evaluation_batches(trainer.model, validation, some, world))
    positions = sum(batch.tokens_BT.numel() for _, batch in batches)

    def evaluate_some() -> None:
        with torch.inference_mode():
            for _, batch in batches:
                fitting(trainer.model, batch, 1)

    eval_seconds = measure(evaluate_some, stopping, seconds=0.0, least=1, world=world)
    eval_seconds *= float(spans.length_S.sum()) / world.share(positions) / world.size
    left = max(0.0, config.minutes - world.share(time.perf_counter() - began) / 60)
    return plan_minutes(left, step_seconds, eval_seconds)


def _final_scores(
    run: Run, model: Model, outcome: Outcome, report: Report, world: World
) -> dict[SplitName, Score]:
    """Of the best weights: validation, as measured when they were the best; and training, unless
    that is large and would take longer than the training itself did."""
    best = outcome.position.best
    assert best is not None
    predictions = run.split("train").predictions
    expected = outcome.val_seconds * predictions / best.tokens
    if run.is_prepared and predictions > LARGE:
        report(Note(text="prepared text: validation is scored, all of the training split is not"))
        return {"val": best}
    if predictions > LARGE and expected > outcome.position.seconds:
        ask = command("eval", run.path)
        report(Note(text=f"the training split would take {expected / 60:.0f} minutes: {ask}"))
        return {"val": best}
    scored = run.score("train", model, progress=_tell(report), world=world)
    return {"train": scored, "val": best}


def _tell(report: Report) -> Callable[[str, float], None]:
    return lambda split, share: report(Working(what=f"evaluating {split}", share=share))


def _started(
    run: Run,
    model: Model,
    position: Position,
    device: torch.device,
    memory: float | None = None,
    world: World = ALONE,
) -> Started:
    return Started(
        path=str(run.path),
        data=run.record.data,
        config=run.record.config,
        parameters=model.parameter_count(),
        max_length=model.max_length,
        steps=position.plan.steps,
        from_step=position.step,
        device=str(device),
        memory=memory,
        processes=world.size,
        parted=parted(model),
    )


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """While open, the first Ctrl-C (or SIGTERM) only raises a flag; the second interrupts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals belong to the main thread
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
