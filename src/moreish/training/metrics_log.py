"""What a training leaves to read: metrics.jsonl and samples.txt."""

import json
import time
from collections.abc import Mapping
from typing import Any

from moreish.distributed import is_sharded
from moreish.generate import Sampling
from moreish.runs import Run
from moreish.training.events import (
    Evaluated,
    Event,
    Report,
    Rollback,
    Sampled,
    Skipped,
    Step,
)
from moreish.training.trackers import TrackerGroup
from moreish.training.trainer import Trainer
from moreish.utils.files import attach_path, fsync_file, write_atomic

LOG_LINES_PER_EVALUATION = 40
"""Between two evaluations, at the most."""

MAX_SAMPLING_SHARE = 0.03
"""Share of the minutes that samples on the way may take."""


class MetricsLog:
    """Writes metrics.jsonl and samples.txt, and passes every event on."""

    def __init__(self, run: Run, trainer: Trainer, report: Report, *, resuming: bool) -> None:
        self.run, self.trainer, self.report = run, trainer, report
        self.metrics, self.samples = run.path / "metrics.jsonl", run.path / "samples.txt"
        self.spent = self.last = 0.0
        self.every = max(1, trainer.state.plan.eval_every // LOG_LINES_PER_EVALUATION)
        self.tracking = TrackerGroup(run, trainer.state.step, report)
        if resuming:
            self._rewind(trainer.state.step)

    def __call__(self, event: Event) -> None:
        self.report(event)
        if isinstance(event, Skipped):
            self._write(step=event.step, skipped=event.why)
        elif isinstance(event, Rollback):
            self._rewind(event.step)
            self.tracking.roll_back(event.step)
            self._write(step=event.step, rollback=event.why, lr=event.lr)
        elif isinstance(event, Step) and event.step % self.every == 0:
            self._write(
                step=event.step,
                tokens=event.tokens,
                seconds=round(event.seconds, 3),
                loss=event.loss,
                lr=event.lr,
                gradient_norm=event.gradient_norm,
                **({} if event.mfu is None else {"mfu": event.mfu}),
            )
        elif isinstance(event, Evaluated):
            self._write(step=event.step, val=event.score.as_json(), best=event.best)
            plan = self.trainer.state.plan
            number = event.step // plan.eval_every
            # After 1, 2, 4, 8 … evaluations while it is cheap, and at the end.
            if event.step == plan.steps or (number & (number - 1) == 0 and self._affordable()):
                began = time.perf_counter()
                self._sample(event.step)
                self.last = time.perf_counter() - began
                self.spent += self.last

    def flush(self) -> None:
        """On to the disk, before the checkpoint that goes with it."""
        fsync_file(self.metrics)
        fsync_file(self.samples)
        self.tracking.flush()

    def close(self) -> None:
        """The training ends, or pauses."""
        self.tracking.close()

    def _affordable(self) -> bool:
        """Whether another sample keeps them within their share of the minutes. Without minutes,
        no clock decides."""
        minutes = self.trainer.config.minutes
        return minutes is None or self.spent + self.last <= MAX_SAMPLING_SHARE * minutes * 60

    def _sample(self, step: int) -> None:
        """Let the model as it is now write something; one that is in parts needs all processes."""
        if is_sharded(self.trainer.model):
            return
        items = self.run.kind == "lines"
        writer = self.run.text_generator(
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
        with attach_path(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
        self.tracking(entry)

    def _show(self, step: int, texts: list[str]) -> None:
        with attach_path(self.samples), self.samples.open("a", encoding="utf-8") as file:
            file.write(_shown(step, texts))

    def _rewind(self, step: int) -> None:
        """Forget what was logged after `step`: it will be logged again."""
        entries = [entry for entry in self.run.read_metrics() if entry["step"] <= step]
        shown = [_shown(e["step"], e["samples"]) for e in entries if "samples" in e]
        write_atomic(self.metrics, "".join(map(_line, entries)).encode())
        write_atomic(self.samples, "".join(shown).encode())


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _shown(step: int, texts: list[str]) -> str:
    return f"--- after {step} steps ---\n" + "\n".join(texts) + "\n\n"
