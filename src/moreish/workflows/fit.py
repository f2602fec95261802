"""Training, scoring and recording a run whose folder exists."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from moreish.config import BUDGETS
from moreish.data import SPLIT_TITLES, SplitName, TokenDataset
from moreish.distributed import ProcessGroup, is_sharded, join_process_group
from moreish.errors import MoreishError, command
from moreish.evaluate import Score, evaluate_losses
from moreish.models import CountBasedModel, Mixture, Model
from moreish.planning import check_counting_memory, check_training_memory, free_memory
from moreish.runs import Run, backup_path, environment, remove_run
from moreish.training import (
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
    build_sampler,
    ignore,
    load_warm_start,
    plan_training,
    resolve_device,
    shard_model,
    should_shard,
    training_objective,
    unsupported_settings,
)
from moreish.utils.signals import stop_on_signals, survive_hangup

EXACT_SECONDS = 60.0
"""Duration up to which a large validation split is scored exactly after any training."""

RUNNING_SECONDS = 5.0
"""Duration up to which the running loss is computed after any training."""

MAX_SCORED_TOKENS = 2_000_000
"""Number of training tokens up to which the exact training loss is always part of the result."""

MAX_SCORED_LOGITS = 1 << 30
"""The same for the number of tokens times the size of the vocabulary."""


Resume = Literal["exact", "inexact"]
"""How to resume a training run; exact requires the bits of an uninterrupted run."""


class Coordinator:
    """The processes of one training run (see torch.distributed and torchrun), or the only one."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self._is_announced = False

    @classmethod
    @contextmanager
    def join(cls) -> Iterator["Coordinator"]:
        """Join the processes that the launcher started. If the main one fails before it has
        announced a run, the others exit as well."""
        with join_process_group() as group:
            coordinator = cls(group)
            try:
                yield coordinator
            except BaseException:
                if group.is_main and not coordinator._is_announced:
                    group.broadcast_text("null")
                raise

    def fit(self, run: Run, report: Report, *, resume: Resume | None = None) -> None:
        """Announce a run to the other processes and fit it; for the main process.

        Args:
            run: the run, which all processes can open.
            report: receives every event.
            resume: as in `fit`.
        """
        self._is_announced = True
        self.group.broadcast_text(json.dumps([str(run.path.absolute()), resume]))
        fit(run, report, resume=resume, group=self.group)

    def follow(self) -> Run:
        """Wait for the run of the main process and fit it too; for the other processes.

        Raises:
            SystemExit: the main process failed before it had a run, and reports why.
        """
        announced = json.loads(self.group.broadcast_text(""))
        if announced is None:
            raise SystemExit(0)
        path, resume = announced
        run = Run.open(Path(path))
        fit(run, ignore, resume=resume, group=self.group)
        return run


def fit(run: Run, report: Report, *, resume: Resume | None, group: ProcessGroup) -> None:
    """Train the model of a run, score it and record the result.

    Args:
        run: the run, whose folder exists.
        report: receives every event.
        resume: how to resume the run; None starts it.
        group: the processes that train together.
    """
    fitting = _Fitting(run, report, group)
    model = run.new_model()
    try:
        with survive_hangup():
            if isinstance(model, CountBasedModel):
                status = fitting.count(model)
            else:
                status = fitting.optimize(model, resume)
            began = time.perf_counter()
            scores = {}
            if status != "interrupted":
                run.load_weights(model)  # the best, in place
                if resume is not None:  # they may be newer than the checkpoint, and better
                    fitting.state.best = fitting.validate(model)
                scores = fitting.final_scores(model)
    except KeyboardInterrupt:  # while counting or scoring, or the second Ctrl-C
        if group.is_main:
            run.update(status="interrupted")
        return
    if group.is_main:
        if status != "interrupted":  # before the run is finished: no resumption would remove it
            remove_run(backup_path(run.path))
        state = fitting.state
        train_seconds = state.seconds - state.overhead_seconds - state.eval_seconds
        run.update(
            status=status,
            parameters=model.num_parameters(),
            splits=scores,
            seconds=round(state.seconds, 3),
            evaluation_seconds=round(state.eval_seconds, 3),
            scoring_seconds=round(fitting.val_seconds + time.perf_counter() - began, 3),
            tokens_per_second=round(state.tokens / max(train_seconds, 1e-9), 1),
        )


def _warm_start(run: Run, model: Model) -> None:
    """Give a new model the weights of the run that it starts from, if there is one, or its own if
    it is trained longer."""
    if run.record.first_step:
        run.load_initial_weights(model)
    elif (source := run.config.init_from) is not None:
        load_warm_start(Run.open(Path(source)), model)


class _Fitting:
    """The phases of `fit`, which share the run, the report and the processes."""

    def __init__(self, run: Run, report: Report, group: ProcessGroup) -> None:
        self.run, self.report, self.group = run, report, group
        self.config = run.config.train
        self.state = TrainState(plan=StepPlan(steps=0, eval_every=1))
        self.val_seconds = 0.0
        """Duration of the last evaluation."""

    def _note(self, text: str) -> None:
        self.report(Note(text=text))

    def _report_start(self, model: Model, **details: Any) -> None:
        self.report(
            Started(
                path=str(self.run.path),
                data=self.run.record.data,
                config=self.run.record.config,
                parameters=model.num_parameters(),
                max_length=model.max_length,
                steps=self.state.plan.steps,
                from_step=self.state.step,
                **details,
            )
        )

    def score(
        self,
        split: SplitName,
        model: Model,
        tokens: TokenDataset | None = None,
        *,
        brief: bool = False,
    ) -> Score:
        def progress(name: str, share: float) -> None:
            self.report(Progress(what=f"evaluating {SPLIT_TITLES[name]}", share=share))

        return self.run.score(
            split, model, progress=progress, group=self.group, tokens=tokens, brief=brief
        )

    def validate(self, model: Model) -> Score:
        """Score the validation split, or a sample of a large one."""
        return self.score("val", model, self.run.validation_sample, brief=True)

    def count(self, model: CountBasedModel) -> str:
        """Fit a count-based model, and return the status of the run."""
        run, config, tokens = self.run, self.config, self.run.split("train")
        check_counting_memory(model, tokens)
        self._report_start(model)
        name = run.config.model.name
        if config.track is not None:
            self._note(f"train.track has no effect: {name} counts and takes no steps")
        if any(getattr(config, budget) is not None for budget in BUDGETS):
            self._note(f"{', '.join(BUDGETS)} have no effect: {name} counts and takes no steps")
        began = time.perf_counter()
        model.fit_counts(tokens)
        self.state.seconds, self.state.tokens = time.perf_counter() - began, tokens.num_predictions
        run.save_weights(model)
        began = time.perf_counter()
        self.state.best = self.validate(run.model)
        self.val_seconds = time.perf_counter() - began
        return "finished"

    def optimize(self, model: Model, resume: Resume | None) -> str:
        """Train a model by gradient descent, after counting its n-grams if it has any.

        Returns:
            The status of the run.

        Raises:
            DivergenceError: the loss or the gradient stays non-finite.
            MoreishError: the run does not fit into memory, or cannot be resumed.
        """
        run, config, group, tokens = self.run, self.config, self.group, self.run.split("train")
        device, began = resolve_device(config.device, type(model)), time.perf_counter()
        origin = environment(device, group.size)
        checkpoints = Checkpoints(run.checkpoints, run.record.sha256, origin)
        is_new = resume is None or not checkpoints
        if is_new:
            _warm_start(run, model)
        check_counting_memory(model, tokens)
        model.fit_counts(tokens)
        model.to(device)
        for note in unsupported_settings(config, model, device):
            self._note(note)
        if should_shard(model, config, group, group.broadcast(free_memory(device))):
            shard_model(model, config, group, device)
        trainer = Trainer(
            model,
            build_sampler(run.config, tokens, model),
            config,
            objective=training_objective(config.label_smoothing, config.squared_weights),
            state=self.state,
            device=device,
            group=group,
        )
        memory = None if is_sharded(model) else check_training_memory(trainer)
        with stop_on_signals() as should_stop:
            if not is_new:
                assert resume is not None
                for note in checkpoints.restore(trainer, inexact=resume == "inexact"):
                    self._note(note)
                if trainer.state.best is not None and not run.has_weights:
                    raise MoreishError(
                        f"{run.path} is damaged: its model.safetensors, the best weights so far, "
                        "is missing; restore it, or train again with --overwrite"
                    )
            else:
                if resume is not None:
                    self._note("There is no checkpoint yet: starting from the beginning.")
                plan = plan_training(run, trainer, should_stop, began)
                first, best = run.record.first_step, None
                if first:
                    plan = replace(plan, steps=first + plan.steps, from_step=first)
                    best = self.validate(model)
                spent = group.seconds_since(began)
                trainer.state = TrainState(
                    plan=plan, step=first, first_step=first, best=best, best_step=first,
                    seconds=spent, overhead_seconds=spent, planned_at=spent,
                )  # fmt: skip
                if group.is_main:
                    run.update(status="training")
            log = None
            if group.is_main:
                goes_on = resume is not None or run.record.first_step > 0
                log = MetricsLog(run, trainer, self.report, resuming=goes_on)
            self.state = trainer.state
            self._report_start(
                model, device=str(device), memory=memory, processes=group.size,
                sharded=is_sharded(model),
            )  # fmt: skip
            try:
                status = trainer.train(self._hooks(trainer, checkpoints, log, should_stop))
            except DivergenceError as error:
                if group.is_main:
                    run.update(status="diverged")
                raise _explain_divergence(error, run) from None
            finally:
                if log is not None:
                    log.close()
            self.state, self.val_seconds = trainer.state, trainer.last_scoring_seconds
            if 0 < run.record.first_step == self.state.best_step and status != "interrupted":
                self._note(
                    "Training longer did not lower the validation loss: the weights from before "
                    "are kept."
                )
            if not group.broadcast(run.has_weights):  # interrupted before the first evaluation
                run.save_weights(model, group)
        if isinstance(model, Mixture) and status != "interrupted":
            self.state.best = self._fit_mixture_weight(model)
        return status

    def _hooks(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints,
        log: MetricsLog | None,
        should_stop: Callable[[], bool],
    ) -> Hooks:
        """Connect a trainer to the folder of its run."""
        run, model, start = self.run, trainer.model, replace(trainer.state)

        def save_checkpoint() -> None:
            if log is not None:
                log.flush()
            checkpoints.save(trainer)

        def restore() -> None:
            if checkpoints:
                checkpoints.restore(trainer, inexact=True)  # exactness was checked at the start
                return
            initial = run.new_model()
            _warm_start(run, initial)
            initial.fit_counts(run.split("train"))
            trainer.reset(initial, replace(start))

        return Hooks(
            evaluate=lambda: self.validate(model),
            save_best=lambda: run.save_weights(model, self.group),
            save_checkpoint=save_checkpoint,
            restore=restore,
            should_stop=should_stop,
            report=log or ignore,
        )

    def _fit_mixture_weight(self, model: Mixture) -> Score:
        """Set the network's weight in a mixture on validation, and return the score with it."""
        self.run.load_weights(model)
        losses = []
        for weight in (1.0, 0.0):  # the network alone, then the counts alone
            model.weight.fill_(weight)
            losses.append(evaluate_losses(model, self.run.validation_sample, group=self.group))
        model.fit_weight(*losses)
        self.run.save_weights(model, self.group)
        self._note(
            f"Weight of the network in the mixture: {model.weight:.3f} (fitted on validation)."
        )
        return self.validate(model)

    def final_scores(self, model: Model) -> dict[SplitName, Score]:
        """Return the scores of the best weights: on validation as measured in training, or exactly
        if that was a sample and it does not take longer than training; and on the training split,
        likewise if it is large. Ctrl-C leaves the score of the sample."""
        best = self.state.best
        assert best is not None
        whole = self.run.split("val").num_targets
        if best.tokens < whole or best.predicted is not None:
            expected = self.val_seconds * whole / best.tokens
            if expected > max(self.state.seconds, EXACT_SECONDS):
                self._note_sample(best)
                return {"val": best}
            try:
                exact = self.score("val", model)
            except KeyboardInterrupt:
                if self.group.size > 1:
                    raise
                self._note_sample(best)
                return {"val": best}
            self.val_seconds *= exact.tokens / best.tokens
            best = exact
        if self.group.size == 1:
            seconds = max(self.state.seconds, RUNNING_SECONDS)
            best = self.run.add_running_loss(best, "val", model, max_seconds=seconds)
        predictions = self.run.split("train").num_targets
        expected = self.val_seconds * predictions / best.tokens
        logits = predictions * model.vocab_size
        if predictions > MAX_SCORED_TOKENS or logits > MAX_SCORED_LOGITS:
            if self.run.uses_prepared_data:
                self._note("The training split of prepared text is not scored; validation is.")
                return {"val": best}
            if expected > self.state.seconds:
                minutes = f"{expected / 60:.0f} minutes" if expected > 90 else f"{expected:.0f} s"
                evaluate = command("eval", self.run.path)
                self._note(f"Scoring the training split would take {minutes}: {evaluate}")
                return {"val": best}
        return {"train": self.score("train", model), "val": best}

    def _note_sample(self, best: Score) -> None:
        evaluate = command("eval", self.run.path)
        self._note(
            f"The validation loss is that of a sample of {best.tokens:,} tokens; of all: {evaluate}"
        )


def _explain_divergence(error: DivergenceError, run: Run) -> DivergenceError:
    """Add to the message the beginning of the batch, and the command that uses the saved
    weights."""
    text = ""
    if error.batch is not None:
        ids = error.batch.tokens_BT[0].numpy()
        text = f" Its batch begins with {run.tokenizer.decode(ids)[:30]!r}."
    kept = f"The best weights so far are kept: {command('sample', run.path)}"
    return DivergenceError(
        f"{error}.{text} {kept if run.has_weights else 'No weights were saved yet'}"
    )
