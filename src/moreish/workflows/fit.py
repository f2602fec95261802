"""A run is carried out: model, loop, log, results."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from moreish.config import BUDGETS, TrainConfig
from moreish.data import SplitName
from moreish.distributed import (
    ALONE,
    World,
    load_state,
    parted,
)
from moreish.errors import MoreishError, command
from moreish.evaluate import (
    Score,
    batch_losses,
    evaluate_losses,
    evaluation_batches,
    evaluation_spans,
)
from moreish.models import CountBasedModel, Mixture, Model
from moreish.planning import check_counting, check_memory_of, free_memory
from moreish.runs import Run, environment
from moreish.training import (
    PROCESSES,
    Checkpoints,
    DivergenceError,
    Hooks,
    Log,
    Note,
    Plan,
    Position,
    Report,
    Started,
    Trainer,
    Working,
    budget_steps,
    in_parts,
    lacking,
    make_sampler,
    measure,
    next_token,
    plan_minutes,
    plan_steps,
    silent,
    source_of,
    spread,
    start_from,
    time_of_step,
    with_squared_weights,
)
from moreish.utils.sighup import survive_hangup

LARGE = 2_000_000
"""Training tokens, up to which their exact loss is always part of the result."""


def carry_out(
    run: Run, device: torch.device, report: Report, *, exact: bool | None, world: World
) -> bool:
    """Train, score and record; returns whether it came to its end.

    Args:
        exact: of a training that goes on: whether that must be exact. None: it begins.
        world: the processes that do it together.
    """
    model = _fresh(run) if exact is None else run.new_model()
    try:
        with survive_hangup():
            if isinstance(model, CountBasedModel):
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
        parameters=model.num_parameters(),
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


def _count(run: Run, model: CountBasedModel, report: Report) -> Outcome:
    tokens = run.split("train")
    check_counting(model, tokens)
    position = Position(plan=Plan(steps=0, eval_every=1))
    report(_started(run, model, position, torch.device("cpu")))
    if run.config.train.track is not None:
        report(Note(text="train.track is for what is trained in steps, and this is counted"))
    if any(getattr(run.config.train, budget) is not None for budget in BUDGETS):
        report(Note(text=f"{run.config.model.name} is counted: it needs no {', '.join(BUDGETS)}"))
    began = time.perf_counter()
    model.fit_counts(tokens)
    position.seconds, position.tokens = time.perf_counter() - began, tokens.num_predictions
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
    model.fit_counts(run.split("train"))
    model.to(device)
    for note in lacking(config, model, device):
        report(Note(text=note))
    if in_parts(model, config, world, world.share(free_memory(device))):
        spread(model, config, world, device)
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
    surrounded = environment(str(device))
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
            fresh.fit_counts(run.split("train"))
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
        alone.append(evaluate_losses(model, validation, world=world))
    model.fit_weight(*alone)
    run.save_weights(model, world)
    report(Note(text=f"on validation the network weighs {model.weight:.3f} in the mixture"))
    return run.score("val", model, progress=_tell(report), world=world)


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
        return plan_steps(steps, step_positions, float(spans.length_W.sum()))
    assert config.minutes is not None
    world = trainer.world
    step_seconds = time_of_step(trainer, stopping, seconds=min(0.5, config.minutes))
    some = spans[:: max(1, len(spans) // 2000)]
    batches = list(evaluation_batches(trainer.model, validation, some, world))
    positions = sum(batch.tokens_BT.numel() for _, batch in batches)

    def evaluate_some() -> None:
        with torch.inference_mode():
            for _, batch in batches:
                batch_losses(trainer.model, batch, 1)

    eval_seconds = measure(evaluate_some, stopping, seconds=0.0, least=1, world=world)
    eval_seconds *= float(spans.length_W.sum()) / world.share(positions) / world.size
    left = max(0.0, config.minutes - world.share(time.perf_counter() - began) / 60)
    return plan_minutes(left, step_seconds, eval_seconds)


def _final_scores(
    run: Run, model: Model, outcome: Outcome, report: Report, world: World
) -> dict[SplitName, Score]:
    """Of the best weights: validation, as measured when they were the best; and training, unless
    that is large and would take longer than the training itself did."""
    best = outcome.position.best
    assert best is not None
    predictions = run.split("train").num_predictions
    expected = outcome.val_seconds * predictions / best.tokens
    if run.uses_prepared_data and predictions > LARGE:
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
        parameters=model.num_parameters(),
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
