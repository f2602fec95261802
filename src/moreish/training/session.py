"""One training from start to end: data, model, loop, log, results."""

import copy
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moreish.config import BUDGETS, RunConfig, TrainConfig
from moreish.data.batches import Sampler
from moreish.data.split import SplitName
from moreish.data.text import Corpus, read_corpus
from moreish.data.tokens import Tokens, encode_corpus, fingerprint
from moreish.errors import MoreishError, command
from moreish.evaluate.loss import token_losses
from moreish.evaluate.metrics import Score, evaluation_batches, evaluation_spans, losses_of
from moreish.files import named
from moreish.generate.sampling import Sampling
from moreish.models import CountedModel, Model, ModelConfig, build_model
from moreish.models.mixture import Mixture
from moreish.record import ENDED, DataFacts
from moreish.run import Run, check_free, replaced_by
from moreish.tokenizers import Tokenizer, tokenizer_class
from moreish.training.budget import Plan, budget_steps, measure, plan_minutes, plan_steps
from moreish.training.checkpoint import restore_checkpoint, save_checkpoint
from moreish.training.events import Evaluated, Event, Note, Report, Sampled, Started, Step, Working
from moreish.training.loop import DivergenceError, Hooks, Position, Trainer
from moreish.training.lr_range import LRRange, lr_range
from moreish.training.objective import next_token, with_squared_weights
from moreish.training.optim import build_optimizer

CHECKPOINTS = "checkpoints"

RUNS = Path("runs")
"""Where runs are made when no place is named."""

WINDOW = 64
"""Predictions in a piece of training text, for models that set no length themselves."""

SAMPLING = 0.03
"""Share of the minutes that samples on the way may take."""

LARGE = 2_000_000
"""Training tokens, up to which their exact loss is always part of the result."""

LOGGED = 40
"""Log lines between two evaluations, at the most."""


def train(
    config: RunConfig, out: Path | None, *, overwrite: bool, report: Report
) -> tuple[Run, bool]:
    """Train what `config` says; returns the run, and whether it came to its end.

    Args:
        out: the run folder; None finds a free name in `runs/`.
        overwrite: whether a run at `out` may be replaced.

    Raises:
        MoreishError: a user's mistake; then no run folder was made.
    """
    if out is not None:
        check_free(out, overwrite=overwrite)
    ready = prepare(config)
    # Whatever is wrong with the settings is to be said before anything is written.
    model = ready.model()
    config = ready.config
    if not isinstance(model, CountedModel):
        lr = config.train.lr or model.learning_rate
        if lr == "auto":
            found = try_rates(ready, report=report)
            lr = found.suggested
            report(Note(text=f"learning rate {lr:.3g}, from a range test"))
        config = config.model_copy(update={"train": config.train.model_copy(update={"lr": lr})})
        build_optimizer(model, config.train)
    path = out or free_path(f"{ready.facts.name}-{config.model.name}")
    alone = not path.parent.exists()
    run = Run.create(path, config, ready.tokenizer, ready.splits, ready.facts, overwrite=overwrite)
    replaced = replaced_by(path)
    try:
        run, ended = _carry_out(run, ready.device, report, resuming=False)
        if replaced.exists() and not (run.has_weights or _has_checkpoints(run)):
            raise KeyboardInterrupt  # it came before there was anything better than the old run
        return run, ended
    except (Exception, KeyboardInterrupt) as error:
        if not (run.has_weights or _has_checkpoints(run)):  # nothing there is worth keeping
            shutil.rmtree(path, ignore_errors=True)
            if replaced.exists():
                replaced.rename(path)
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
        shutil.rmtree(replaced, ignore_errors=True)


def resume(path: Path, *, report: Report) -> tuple[Run, bool]:
    """Go on with an interrupted training from its newest checkpoint, else from the beginning.

    Raises:
        MoreishError: there is no such run, it came to its end, or its checkpoints are damaged.
    """
    run = Run.open(path)
    if run.record.status in ENDED:
        raise MoreishError(
            f"{path} came to its end ({run.record.status}): there is nothing to resume"
        )
    ended = _carry_out(run, find_device(run.config.train.device), report, resuming=True)
    shutil.rmtree(replaced_by(run.path), ignore_errors=True)  # where its start was killed
    return ended


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Data and settings, understood and fitted to each other."""

    config: RunConfig
    tokenizer: Tokenizer
    splits: dict[SplitName, Tokens]
    facts: DataFacts
    device: torch.device

    def model(self) -> Model:
        """Freshly initialised. Raises MoreishError when it is too large for the machine."""
        check_memory(self.config.model, self.tokenizer.vocab_size, self.device)
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)


def prepare(config: RunConfig) -> Ready:
    """Read and split the data, and fit to them what the settings leave open."""
    device = find_device(config.train.device)
    corpus = read_corpus(config.data.source, config.data.kind, config.data.encoding)
    tokenizer = tokenizer_class(config.data.tokenizer).build(
        corpus.documents, boundary=corpus.has_boundary
    )
    splits = encode_corpus(corpus, tokenizer, config.data.split, config.data.split_seed)
    facts = describe(corpus, tokenizer, splits)
    model = config.model.for_data(facts.longest_item, tokenizer.vocab_size)
    config = config.model_copy(update={"model": model})
    return Ready(config=config, tokenizer=tokenizer, splits=splits, facts=facts, device=device)


def try_rates(ready: Ready, *, report: Report, **options: Any) -> LRRange:
    """The learning-rate range test of these settings; `options` as in `lr_range`.

    Raises:
        MoreishError: the model is counted, or no rate can be found.
    """
    model, config = ready.model(), ready.config
    if isinstance(model, CountedModel):
        raise MoreishError(f"{config.model.name} is counted: it has no learning rate")
    return lr_range(
        model,
        make_sampler(config, ready.splits["train"], model),
        config.train,
        with_squared_weights(next_token, config.train.squared_weights),
        device=ready.device,
        progress=lambda share: report(Working(what="testing learning rates", share=share)),
        **options,
    )


def find_device(name: str) -> torch.device:
    """The device that `train.device` names; "auto" is a CUDA GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()  # some kinds exist and cannot reckon
    except (RuntimeError, AssertionError, ImportError, AttributeError):
        raise MoreishError(f"train.device={name}: there is no such device here; try auto") from None
    return device


def free_path(name: str) -> Path:
    """runs/name, or the first of runs/name-2, runs/name-3 … that does not exist."""
    path, number = RUNS / name, 1
    while path.exists():
        number += 1
        path = RUNS / f"{name}-{number}"
    return path


def describe(corpus: Corpus, tokenizer: Tokenizer, splits: dict[SplitName, Tokens]) -> DataFacts:
    """What the user and later readers of run.json want to know of the data."""
    items = corpus.kind == "lines"
    lengths = [len(document) for document in corpus.documents]
    return DataFacts(
        name=corpus.name,
        kind=corpus.kind,
        documents=len(corpus.documents),
        distinct=len(set(corpus.documents)),
        characters=sum(lengths),
        shortest=min(lengths),
        longest=max(lengths),
        longest_item=max(tokens.longest_item for tokens in splits.values()) if items else None,
        vocabulary=tokenizer.vocab_size,
        boundary=tokenizer.has_boundary,
        alphabet="".join(sorted(set().union(*corpus.documents)))[:200],
        split_documents={n: len(t.boundaries) - 1 for n, t in splits.items()} if items else None,
        tokens={name: len(tokens.ids_N) for name, tokens in splits.items()},
        sha256={name: fingerprint(tokens) for name, tokens in splits.items()},
        notes=corpus.notes,
    )


def check_memory(config: ModelConfig, vocab_size: int, device: torch.device) -> None:
    """Raises MoreishError when the weights, as training needs them, cannot fit into the machine."""
    try:
        with torch.device("meta"):  # shapes without memory
            parameters = build_model(config, vocab_size).parameter_count()
    except RuntimeError as error:
        raise MoreishError(f"this model cannot be built: {error}") from None
    needed = parameters * 4 * 4  # float32: weights, gradients, AdamW's two moments
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > there:
        raise MoreishError(
            f"a {config.name} of {parameters:,} parameters needs {needed / 1e9:,.0f} GB to train, "
            f"and this machine has {there / 1e9:,.0f} GB: make it smaller"
        )


def _carry_out(
    run: Run, device: torch.device, report: Report, *, resuming: bool
) -> tuple[Run, bool]:
    model = run.new_model()
    try:
        if isinstance(model, CountedModel):
            outcome = _count(run, model, report)
        else:
            outcome = _descend(run, model, device, report, resuming=resuming)
        began = time.perf_counter()
        scores = {}
        if outcome.ended != "interrupted":
            if resuming:  # the weights may be newer than the checkpoint, and better than it knows
                outcome.position.best = run.score("val", progress=_tell(report))
            scores = _final_scores(run, outcome, report)
    except KeyboardInterrupt:  # while counting or scoring, or in a hurry
        run.update(status="interrupted")
        return run, False
    at = outcome.position
    run.update(
        status=outcome.ended,
        parameters=model.parameter_count(),
        splits={name: score.as_json() for name, score in scores.items()},
        seconds=round(at.seconds, 3),
        evaluation_seconds=round(at.eval_seconds, 3),
        scoring_seconds=round(outcome.val_seconds + time.perf_counter() - began, 3),
        tokens_per_second=round(at.tokens / max(at.seconds - at.eval_seconds, 1e-9), 1),
    )
    return run, outcome.ended != "interrupted"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended."""

    ended: str
    position: Position
    val_seconds: float
    """That the last evaluation took."""


def _count(run: Run, model: CountedModel, report: Report) -> Outcome:
    position = Position(plan=Plan(steps=0, eval_every=1))
    report(_started(run, model, position, torch.device("cpu")))
    if any(getattr(run.config.train, budget) is not None for budget in BUDGETS):
        report(Note(text=f"{run.config.model.name} is counted: it needs no {', '.join(BUDGETS)}"))
    tokens = run.split("train")
    began = time.perf_counter()
    model.fit(tokens)
    position.seconds, position.tokens = time.perf_counter() - began, tokens.predictions
    run.save_weights(model)
    began = time.perf_counter()
    position.best = run.score("val", progress=_tell(report))
    return Outcome(ended="finished", position=position, val_seconds=time.perf_counter() - began)


def _descend(
    run: Run, model: Model, device: torch.device, report: Report, *, resuming: bool
) -> Outcome:
    """Train by gradients; parts that are counted are counted first."""
    config = run.config.train
    for part in model.modules():
        if isinstance(part, CountedModel):
            part.fit(run.split("train"))
    trainer = Trainer(
        model,
        make_sampler(run.config, run.split("train"), model),
        config,
        objective=with_squared_weights(next_token, config.squared_weights),
        position=Position(plan=Plan(steps=1, eval_every=1)),
        device=device,
    )
    checkpoints = run.path / CHECKPOINTS
    with stop_on_signals() as stopping:
        if resuming and _has_checkpoints(run):
            restore_checkpoint(checkpoints, trainer)
            if trainer.position.best is not None and not run.has_weights:
                raise MoreishError(
                    f"{run.path} is damaged: its model.safetensors, the best weights so far, is "
                    "missing; put it back, or train again with --overwrite"
                )
        else:
            if resuming:
                report(Note(text="it has no checkpoint yet, so it starts from the beginning"))
            trainer.position.plan = make_plan(run, trainer, stopping)
            run.update(status="training")
        log = Log(run, trainer, report, resuming=resuming)
        report(_started(run, model, trainer.position, device))
        hooks = Hooks(
            evaluate=lambda: run.score("val", model, progress=_tell(report)),
            keep_best=lambda: run.save_weights(model),
            checkpoint=lambda: save_checkpoint(checkpoints, trainer),
            stopping=stopping,
            report=log,
        )
        try:
            ended = trainer.run(hooks)
        except DivergenceError as error:
            run.update(status="diverged")
            kept = f"the best weights until then are kept: {command('sample', run.path)}"
            nothing = "there were no weights yet that are worth keeping"
            raise MoreishError(f"{error}; {kept if run.has_weights else nothing}") from None
        if not run.has_weights:  # interrupted before the first evaluation
            run.save_weights(model)
    if isinstance(model, Mixture) and ended != "interrupted":
        trainer.position.best = _weigh(run, model, report)
    return Outcome(ended=ended, position=trainer.position, val_seconds=trainer.last_eval_seconds)


def _weigh(run: Run, model: Mixture, report: Report) -> Score:
    """Set the weight of the best network's mixture on validation; returns its score there."""
    run.load_weights(model)
    validation = run.split("val")
    model.set_weight(losses_of(model.network, validation), losses_of(model.counts, validation))
    run.save_weights(model)
    report(Note(text=f"on validation the network weighs {model.weight:.3f} in the mixture"))
    return run.score("val", model, progress=_tell(report))


def _has_checkpoints(run: Run) -> bool:
    return any((run.path / CHECKPOINTS).glob("step-*"))


def make_sampler(run_config: RunConfig, tokens: Tokens, model: Model) -> Sampler:
    """Training batches as the settings want them."""
    config, seed = run_config.train, run_config.seed
    if model.max_length is not None:
        length, overlap = model.max_length, 0
    else:
        length, overlap = WINDOW + model.context - 1, model.context - 1
    pieces = Sampler(tokens, batch_size=1, length=length, overlap=overlap, seed=seed).pieces
    mean_length = tokens.predictions / pieces
    rows = max(1, round(config.batch_tokens / mean_length))
    if config.batch_size is not None:
        rows = config.batch_size if isinstance(config.batch_size, int) else pieces
    return Sampler(tokens, batch_size=min(rows, pieces), length=length, overlap=overlap, seed=seed)


def make_plan(run: Run, trainer: Trainer, stopping: Callable[[], bool]) -> Plan:
    """Steps and evaluations for the budget; minutes are turned into steps by a short trial."""
    plan = _plan_for_budget(run, trainer, stopping)
    every = run.config.train.eval_every
    return plan if every is None else Plan(steps=plan.steps, eval_every=every)


def _plan_for_budget(run: Run, trainer: Trainer, stopping: Callable[[], bool]) -> Plan:
    config: TrainConfig = run.config.train
    validation = run.split("val")
    spans = evaluation_spans(trainer.model, validation)
    steps = budget_steps(config, trainer.sampler)
    if steps is not None:
        step_positions = trainer.sampler.batch(0).tokens_BT.numel()
        return plan_steps(steps, step_positions, float(spans.length_S.sum()))
    assert config.minutes is not None
    trial = Trainer(
        copy.deepcopy(trainer.model),
        trainer.sampler,
        config,
        objective=trainer.objective,
        position=Position(plan=Plan(steps=1_000_000, eval_every=1)),
        device=trainer.device,
    )
    step_seconds = measure(trial.step, stopping, seconds=min(1.0, config.minutes * 3))
    some = spans[:: max(1, len(spans) // 2000)]
    batches = list(evaluation_batches(trainer.model, validation, some))
    positions = sum(batch.tokens_BT.numel() for _, batch in batches)

    def evaluate_some() -> None:
        with torch.inference_mode():
            for _, batch in batches:
                there = batch.to(trial.device)
                token_losses(trial.model(there.tokens_BT)[0], there.targets_BT)

    eval_seconds = measure(evaluate_some, stopping, seconds=0.0, least=1)
    eval_seconds *= float(spans.length_S.sum()) / positions
    return plan_minutes(config.minutes, step_seconds, eval_seconds)


def _final_scores(run: Run, outcome: Outcome, report: Report) -> dict[SplitName, Score]:
    """Of the best weights: validation, as measured when they were the best; and training, unless
    that is large and would take longer than the training itself did."""
    best = outcome.position.best
    assert best is not None
    predictions = run.split("train").predictions
    expected = outcome.val_seconds * predictions / best.tokens
    if predictions > LARGE and expected > outcome.position.seconds:
        ask = command("eval", run.path)
        report(Note(text=f"the training split would take {expected / 60:.0f} minutes: {ask}"))
        return {"val": best}
    return {"train": run.score("train", progress=_tell(report)), "val": best}


def _tell(report: Report) -> Callable[[str, float], None]:
    return lambda split, share: report(Working(what=f"evaluating {split}", share=share))


def _started(run: Run, model: Model, position: Position, device: torch.device) -> Started:
    return Started(
        path=str(run.path),
        data=run.record.data,
        config=run.record.config,
        parameters=model.parameter_count(),
        max_length=model.max_length,
        steps=position.plan.steps,
        from_step=position.step,
        device=str(device),
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


class Log:
    """Writes metrics.jsonl and samples.txt, and passes every event on."""

    def __init__(self, run: Run, trainer: Trainer, report: Report, *, resuming: bool) -> None:
        self.run, self.trainer, self.report = run, trainer, report
        self.metrics, self.samples = run.path / "metrics.jsonl", run.path / "samples.txt"
        self.spent = self.last = 0.0
        self.every = max(1, trainer.position.plan.eval_every // LOGGED)
        if resuming:
            self._rewind(trainer.position.step)

    def __call__(self, event: Event) -> None:
        self.report(event)
        if isinstance(event, Step) and event.step % self.every == 0:
            self._write(
                step=event.step,
                tokens=event.tokens,
                seconds=round(event.seconds, 3),
                loss=event.loss,
                lr=event.lr,
                gradient_norm=event.gradient_norm,
            )
        elif isinstance(event, Evaluated):
            self._write(step=event.step, val=event.score.as_json(), best=event.best)
            plan = self.trainer.position.plan
            number = event.step // plan.eval_every
            # After 1, 2, 4, 8 … evaluations while it is cheap, and at the end.
            if event.step == plan.steps or (number & (number - 1) == 0 and self._affordable()):
                began = time.perf_counter()
                self._sample(event.step)
                self.last = time.perf_counter() - began
                self.spent += self.last

    def _affordable(self) -> bool:
        """Whether another sample keeps them within their share of the minutes. Without minutes,
        no clock decides."""
        minutes = self.trainer.config.minutes
        return minutes is None or self.spent + self.last <= SAMPLING * minutes * 60

    def _sample(self, step: int) -> None:
        """Let the model as it is now write something."""
        items = self.run.kind == "lines"
        writer = self.run.writer(
            prompt="",
            sampling=Sampling(),
            max_tokens=None if items else 120,
            model=self.trainer.model,
        )
        texts = list(writer.texts(6 if items else 1, lambda ids: True))
        self._write(step=step, samples=texts)
        self._show(step, texts)
        self.report(Sampled(step=step, texts=texts))

    def _write(self, **entry: Any) -> None:
        with named(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _show(self, step: int, texts: list[str]) -> None:
        with named(self.samples), self.samples.open("a", encoding="utf-8") as file:
            file.write(f"--- after {step} steps ---\n" + "\n".join(texts) + "\n\n")

    def _rewind(self, step: int) -> None:
        """Forget what was logged after `step`: it will be logged again."""
        entries = [entry for entry in self.run.logged() if entry["step"] <= step]
        self.metrics.write_text("", "utf-8")
        self.samples.write_text("", "utf-8")
        for entry in entries:
            self._write(**entry)
            if "samples" in entry:
                self._show(entry["step"], entry["samples"])
