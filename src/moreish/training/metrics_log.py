"""The log of a training run: metrics.jsonl and samples.txt."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moreish.distributed import is_sharded
from moreish.generate import Sampling
from moreish.runs import Run
from moreish.training.events import Evaluated, Event, Report, Rollback, Sampled, Skipped, Step
from moreish.training.trackers import TrackerGroup
from moreish.training.trainer import Trainer
from moreish.utils.files import attach_path, fsync_file, write_atomic

LOG_LINES_PER_EVALUATION = 40
"""Largest number of logged steps between two evaluations."""

STEP_FIELDS = ("step", "tokens", "seconds", "loss", "lr", "gradient_norm", "mfu")
"""Fields of a `Step` that are logged."""

NUM_PREDICTIONS = 6
"""Number of examples whose predictions are logged."""

MAX_SAMPLING_SHARE = 0.03
"""Share of the minutes that sampling during training may take."""


class MetricsLog:
    """Writes metrics.jsonl and samples.txt, and passes every event on."""

    def __init__(self, run: Run, trainer: Trainer, report: Report, *, resuming: bool) -> None:
        self.run, self.trainer, self.report = run, trainer, report
        self.metrics, self.samples = run.path / "metrics.jsonl", run.path / "samples.txt"
        self.every = max(1, trainer.state.plan.eval_every // LOG_LINES_PER_EVALUATION)
        self.trackers = TrackerGroup(run, trainer.state.step, report)
        self._sampling_seconds = self._last_sampling_seconds = 0.0
        if resuming:
            self._rewind(trainer.state.step)

    def __call__(self, event: Event) -> None:
        self.report(event)
        if isinstance(event, Skipped):
            self._write(step=event.step, skipped=event.why)
        elif isinstance(event, Rollback):
            self._rewind(event.step)
            self.trackers.roll_back(event.step)
            self._write(step=event.step, rollback=event.why, lr=event.lr)
        elif isinstance(event, Step) and event.step % self.every == 0:
            entry = {name: getattr(event, name) for name in STEP_FIELDS}
            entry["seconds"] = round(event.seconds, 3)
            self._write(**{name: value for name, value in entry.items() if value is not None})
        elif isinstance(event, Evaluated):
            self._write(step=event.step, val=event.score.as_json(), best=event.best)
            if self._is_sample_due(event.step):
                began = time.perf_counter()
                self._sample(event.step)
                self._last_sampling_seconds = time.perf_counter() - began
                self._sampling_seconds += self._last_sampling_seconds

    def flush(self) -> None:
        """Make the log durable, before the checkpoint that refers to it."""
        fsync_file(self.metrics)
        fsync_file(self.samples)
        self.trackers.flush()

    def close(self) -> None:
        self.trackers.close()

    def _is_sample_due(self, step: int) -> bool:
        """Whether to sample: at the end, and after 1, 2, 4, 8 … evaluations while that stays within
        its share of the minutes. Without minutes, no clock decides."""
        plan, minutes = self.trainer.state.plan, self.trainer.config.minutes
        if step == plan.steps:
            return True
        if (step // plan.eval_every).bit_count() > 1:
            return False
        seconds = self._sampling_seconds + self._last_sampling_seconds
        return minutes is None or seconds <= MAX_SAMPLING_SHARE * minutes * 60

    def _sample(self, step: int) -> None:
        if is_sharded(self.trainer.model):  # sampling would need all processes
            return
        if self.run.kind == "examples":
            predicted = self.run.predict_split(
                self.run.split("val"), NUM_PREDICTIONS, model=self.trainer.model
            )
            self._write_samples(step, predicted.as_lines())
            return
        is_list = self.run.kind == "lines"
        generator = self.run.text_generator(
            prompt="",
            sampling=Sampling(),
            max_tokens=None if is_list else 120,
            model=self.trainer.model,
        )
        self._write_samples(step, list(generator.texts(6 if is_list else 1, lambda ids: True)))

    def _write_samples(self, step: int, texts: list[str]) -> None:
        self._write(step=step, samples=texts)
        _append(self.samples, _format_samples(step, texts))
        self.report(Sampled(step=step, texts=texts))

    def _write(self, **entry: Any) -> None:
        _append(self.metrics, _format_line(entry))
        self.trackers.log(entry)

    def _rewind(self, step: int) -> None:
        """Remove what was logged after `step`, which will be logged again; at the start, all."""
        entries = [entry for entry in self.run.read_metrics() if step > 0 and entry["step"] <= step]
        samples = [_format_samples(e["step"], e["samples"]) for e in entries if "samples" in e]
        write_atomic(self.metrics, "".join(map(_format_line, entries)).encode())
        write_atomic(self.samples, "".join(samples).encode())


def _append(path: Path, text: str) -> None:
    with attach_path(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def _format_line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _format_samples(step: int, texts: list[str]) -> str:
    return f"--- after {step} steps ---\n" + "\n".join(texts) + "\n\n"
