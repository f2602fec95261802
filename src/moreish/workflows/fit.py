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
    SINGLE_PROCESS,
    ProcessGroup,
    is_sharded,
    load_state,
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
from moreish.planning import check_counting_memory, check_training_memory, free_memory
from moreish.runs import Run, environment
from moreish.training import (
    PROCESSES_KEY,
    Checkpoints,
    DivergenceError,
    Hooks,
    MetricsLog,
    Note,
    Progress,
    Report,
    Started,
    StepPlan,
    Trainer,
    TrainState,
    budget_steps,
    build_sampler,
    ignore,
    load_warm_start,
    measure_step_seconds,
    median_seconds,
    next_token_loss,
    plan_minutes,
    plan_steps,
    shard_model,
    should_shard,
    unsupported_settings,
    warm_start_source,
    with_weight_penalty,
)
from moreish.utils.sighup import survive_hangup

LARGE = 2_000_000
"""Training tokens, up to which their exact loss is always part of the result."""


def fit(
    run: Run, device: torch.device, report: Report, *, exact: bool | None, group: ProcessGroup
) -> bool:
    """Train, score and record; returns whether it came to its end.

    Args:
        exact: of a training that goes on: whether that must be exact. None: it begins.
        group: the processes that do it together.
    """
    model = _fresh(run) if exact is None else run.new_model()
    try:
        with survive_hangup():
            if isinstance(model, CountBasedModel):
                outcome = _count(run, model, report)
            else:
                outcome = _descend(run, model, device, report, exact=exact, group=group)
            began = time.perf_counter()
            scores = {}
            if outcome.ended != "interrupted":
                run.load_weights(model)  # the best, into the memory that is there
                if exact is not None:  # they may be newer than the checkpoint, and better
                    told = _tell(report)
                    outcome.state.best = run.score("val", model, progress=told, group=group)
                scores = _final_scores(run, model, outcome, report, group)
    except KeyboardInterrupt:  # while counting or scoring, or in a hurry
        if group.is_main:
            run.update(status="interrupted")
        return False
    if not group.is_main:
        return outcome.ended != "interrupted"
    at = outcome.state
    run.update(
        status=outcome.ended,
        parameters=model.num_parameters(),
        splits={name: score.as_json() for name, score in scores.items()},
        seconds=round(at.seconds, 3),
        evaluation_seconds=round(at.eval_seconds, 3),
        scoring_seconds=round(outcome.val_seconds + time.perf_counter() - began, 3),
        tokens_per_second=round(
            at.tokens / max(at.seconds - at.overhead_seconds - at.eval_seconds, 1e-9), 1
        ),
    )
    return outcome.ended != "interrupted"


def _fresh(run: Run) -> Model:
    """The model that a training begins with."""
    model = run.new_model()
    if (source := warm_start_source(run)) is not None:
        load_warm_start(source, model)
    return model


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended."""

    ended: str
    state: TrainState
    val_seconds: float
    """That the last evaluation took."""


def _count(run: Run, model: CountBasedModel, report: Report) -> Outcome:
    tokens = run.split("train")
    check_counting_memory(model, tokens)
    state = TrainState(plan=StepPlan(steps=0, eval_every=1))
    report(_started(run, model, state, torch.device("cpu")))
    if run.config.train.track is not None:
        report(Note(text="train.track is for what is trained in steps, and this is counted"))
    if any(getattr(run.config.train, budget) is not None for budget in BUDGETS):
        report(Note(text=f"{run.config.model.name} is counted: it needs no {', '.join(BUDGETS)}"))
    began = time.perf_counter()
    model.fit_counts(tokens)
    state.seconds, state.tokens = time.perf_counter() - began, tokens.num_predictions
    run.save_weights(model)
    began = time.perf_counter()
    state.best = run.score("val", progress=_tell(report))
    return Outcome(ended="finished", state=state, val_seconds=time.perf_counter() - began)


def _descend(
    run: Run,
    model: Model,
    device: torch.device,
    report: Report,
    *,
    exact: bool | None,
    group: ProcessGroup,
) -> Outcome:
    """Train by gradients; parts that are counted are counted first."""
    config = run.config.train
    began = time.perf_counter()
    check_counting_memory(model, run.split("train"))
    model.fit_counts(run.split("train"))
    model.to(device)
    for note in unsupported_settings(config, model, device):
        report(Note(text=note))
    if should_shard(model, config, group, group.broadcast(free_memory(device))):
        shard_model(model, config, group, device)
    trainer = Trainer(
        model,
        build_sampler(run.config, run.split("train"), model),
        config,
        objective=with_weight_penalty(next_token_loss, config.squared_weights),
        state=TrainState(plan=StepPlan(steps=1, eval_every=1)),
        device=device,
        group=group,
    )
    memory = None if is_sharded(model) else check_training_memory(trainer)
    surrounded = environment(str(device))
    if group.size > 1:
        surrounded[PROCESSES_KEY] = str(group.size)
    checkpoints = Checkpoints(run.checkpoints, run.record.sha256, surrounded)
    with stop_on_signals() as should_stop:
        if exact is not None and checkpoints:
            if (before := checkpoints.processes) not in (None, group.size):
                now = f"{group.size} now, {before} before: the same up to rounding"
                report(Note(text=f"processes: {now}"))
            for damaged in checkpoints.restore(trainer, inexact=not exact):
                report(Note(text=f"{damaged} is damaged: an older one is taken"))
            if trainer.state.best is not None and not run.has_weights:
                raise MoreishError(
                    f"{run.path} is damaged: its model.safetensors, the best weights so far, is "
                    "missing; put it back, or train again with --overwrite"
                )
        else:
            if exact is not None:
                report(Note(text="it has no checkpoint yet, so it starts from the beginning"))
                load_state(model, _fresh(run).state_dict())
            plan = make_plan(run, trainer, should_stop, began)
            spent = group.broadcast(time.perf_counter() - began)
            trainer.state = TrainState(
                plan=plan, seconds=spent, overhead_seconds=spent, planned_at=spent
            )
            if group.is_main:
                run.update(status="training")
        log = (
            MetricsLog(run, trainer, report, resuming=exact is not None) if group.is_main else None
        )
        report(_started(run, model, trainer.state, device, memory, group))

        start = replace(trainer.state)

        def checkpoint() -> None:
            if log is not None:
                log.flush()
            checkpoints.save(trainer)

        def roll_back() -> None:
            if checkpoints:
                checkpoints.restore(trainer, inexact=True)  # whether it is, was asked at the start
                return
            fresh = _fresh(run)
            fresh.fit_counts(run.split("train"))
            trainer.reset(fresh, replace(start))

        hooks = Hooks(
            evaluate=lambda: run.score("val", model, progress=_tell(report), group=group),
            save_best=lambda: run.save_weights(model, group),
            checkpoint=checkpoint,
            roll_back=roll_back,
            should_stop=should_stop,
            report=log or ignore,
        )
        try:
            ended = trainer.train(hooks)
        except DivergenceError as error:
            if group.is_main:
                run.update(status="diverged")
            raise _explained(error, run) from None
        finally:
            if log is not None:
                log.close()
        if not group.broadcast(run.has_weights):  # interrupted before the first evaluation
            run.save_weights(model, group)
    if isinstance(model, Mixture) and ended != "interrupted":
        trainer.state.best = _weigh(run, model, report, group)
    return Outcome(ended=ended, state=trainer.state, val_seconds=trainer.last_eval_seconds)


def _explained(error: DivergenceError, run: Run) -> DivergenceError:
    """With what the batch begins, and what is left."""
    text = ""
    if error.batch is not None:
        ids = error.batch.tokens_BT[0].numpy()
        text = f" Its batch begins with {run.tokenizer.decode(ids)[:30]!r}."
    kept = f"The best weights until then are kept: {command('sample', run.path)}"
    nothing = "There were no weights yet that are worth keeping"
    return DivergenceError(f"{error}.{text} {kept if run.has_weights else nothing}")


def _weigh(run: Run, model: Mixture, report: Report, group: ProcessGroup) -> Score:
    """Set the weight of the best network's mixture on validation; returns its score there."""
    run.load_weights(model)
    validation = run.split("val")
    alone = []
    for weight in (1.0, 0.0):  # each part as the mixture has it, in the same windows
        model.weight.fill_(weight)
        alone.append(evaluate_losses(model, validation, group=group))
    model.fit_weight(*alone)
    run.save_weights(model, group)
    report(Note(text=f"on validation the network weighs {model.weight:.3f} in the mixture"))
    return run.score("val", model, progress=_tell(report), group=group)


def make_plan(
    run: Run, trainer: Trainer, should_stop: Callable[[], bool], began: float
) -> StepPlan:
    """Steps and evaluations for the budget; minutes, of which some are gone since `began`, are
    turned into steps by a short trial."""
    plan = _plan_for_budget(run, trainer, should_stop, began)
    every = run.config.train.eval_every
    return plan if every is None else StepPlan(steps=plan.steps, eval_every=every)


def _plan_for_budget(
    run: Run, trainer: Trainer, should_stop: Callable[[], bool], began: float
) -> StepPlan:
    config: TrainConfig = run.config.train
    validation = run.split("val")
    spans = evaluation_spans(trainer.model, validation)
    steps = budget_steps(config, trainer.sampler)
    if steps is not None:
        step_positions = trainer.sampler.batch(0).tokens_BT.numel()
        return plan_steps(steps, step_positions, float(spans.length_W.sum()))
    assert config.minutes is not None
    group = trainer.group
    step_seconds = measure_step_seconds(trainer, should_stop, seconds=min(0.5, config.minutes))
    some = spans[:: max(1, len(spans) // 2000)]
    batches = list(evaluation_batches(trainer.model, validation, some, group))
    positions = sum(batch.tokens_BT.numel() for _, batch in batches)

    def evaluate_some() -> None:
        with torch.inference_mode():
            for _, batch in batches:
                batch_losses(trainer.model, batch, 1)

    eval_seconds = median_seconds(evaluate_some, should_stop, seconds=0.0, least=1, group=group)
    eval_seconds *= float(spans.length_W.sum()) / group.broadcast(positions) / group.size
    left = max(0.0, config.minutes - group.broadcast(time.perf_counter() - began) / 60)
    return plan_minutes(left, step_seconds, eval_seconds)


def _final_scores(
    run: Run, model: Model, outcome: Outcome, report: Report, group: ProcessGroup
) -> dict[SplitName, Score]:
    """Of the best weights: validation, as measured when they were the best; and training, unless
    that is large and would take longer than the training itself did."""
    best = outcome.state.best
    assert best is not None
    predictions = run.split("train").num_predictions
    expected = outcome.val_seconds * predictions / best.tokens
    if run.uses_prepared_data and predictions > LARGE:
        report(Note(text="prepared text: validation is scored, all of the training split is not"))
        return {"val": best}
    if predictions > LARGE and expected > outcome.state.seconds:
        ask = command("eval", run.path)
        report(Note(text=f"the training split would take {expected / 60:.0f} minutes: {ask}"))
        return {"val": best}
    scored = run.score("train", model, progress=_tell(report), group=group)
    return {"train": scored, "val": best}


def _tell(report: Report) -> Callable[[str, float], None]:
    return lambda split, share: report(Progress(what=f"evaluating {split}", share=share))


def _started(
    run: Run,
    model: Model,
    state: TrainState,
    device: torch.device,
    memory: float | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Started:
    return Started(
        path=str(run.path),
        data=run.record.data,
        config=run.record.config,
        parameters=model.num_parameters(),
        max_length=model.max_length,
        steps=state.plan.steps,
        from_step=state.step,
        device=str(device),
        memory=memory,
        processes=group.size,
        sharded=is_sharded(model),
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
