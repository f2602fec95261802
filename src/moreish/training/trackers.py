"""Experiment trackers show what is written to metrics.jsonl in other programs. A training run
continues without a tracker that fails.

A new tracker is one class and one line in `REGISTRY`.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, final

from moreish.errors import MoreishError, nearest, one_line
from moreish.runs import Run
from moreish.settings import to_toml
from moreish.training.events import Note, Report
from moreish.utils.extras import import_extra

STEP_METRICS = ("loss", "lr", "gradient_norm", "mfu")
SCORE_METRICS = ("loss", "bits_per_char", "bits_per_byte")


class Tracker(ABC):
    """Shows the metrics and samples of one run."""

    needs_replay: ClassVar[bool] = False
    """Whether the metrics so far must be logged again after a resumption or a rollback."""

    def __init__(self, run: Run, step: int) -> None:
        """Start tracking `run`, whose training starts or resumes after `step` steps."""
        self.run = run
        self.open(step)

    @abstractmethod
    def open(self, step: int) -> None:
        """Start a log that continues after `step` steps; later entries of older logs are void."""

    @abstractmethod
    def log_metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    @abstractmethod
    def log_texts(self, step: int, texts: Iterable[str]) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def flush(self) -> None:  # noqa: B027 (some trackers need not)
        """Make everything so far durable: a checkpoint is about to be saved."""

    def roll_back(self, step: int) -> None:
        """Continue after `step` steps, as the run does."""
        self.close()
        self.open(step)


@final
class TensorBoard(Tracker):
    """Writes event files to the run's folder `tensorboard`."""

    def open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        folder, config = self.run.path / "tensorboard", self.run.record.config
        # `purge_step` makes readers drop later steps of older files. They order files by name,
        # which begins with the second of creation.
        while any(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(0.1)
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0)
        if step == 0:
            self.writer.add_text("settings", f"```toml\n{to_toml(config)}\n```", 0)
            assert self.writer.file_writer is not None
            for summary in hparams(flatten(config), {"val/loss": 0.0}):
                self.writer.file_writer.add_summary(summary, 0)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def log_texts(self, step: int, texts: Iterable[str]) -> None:
        markdown = "\n\n".join(f"```\n{text}\n```" for text in texts)
        self.writer.add_text("samples", markdown, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


@final
class Wandb(Tracker):
    """Logs to Weights & Biases, where logged steps cannot be deleted. A training run that resumes
    or rolls back therefore starts a new run, in the same group, and logs everything again."""

    needs_replay = True

    def open(self, step: int) -> None:
        import wandb

        record, path = self.run.record, self.run.path
        self.wandb_run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "moreish"),
            group=f"{path.name} {record.sha256[:8]} {record.created}",
            name=f"{path.name} from step {step}" if step else path.name,
            dir=str(path),
            config=record.config,
            settings=wandb.Settings(console="off", silent=True),
        )

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.wandb_run.log(dict(values), step=step)

    def log_texts(self, step: int, texts: Iterable[str]) -> None:
        self.wandb_run.log({"samples": "\n".join(texts)}, step=step)

    def close(self) -> None:
        self.wandb_run.finish()


REGISTRY: Mapping[str, type[Tracker]] = MappingProxyType(
    {"tensorboard": TensorBoard, "wandb": Wandb}
)


def parse_trackers(track: str | None, *, installed: bool = True) -> list[str]:
    """Split `train.track` at its commas.

    Args:
        track: the setting.
        installed: whether the packages of the trackers must be installed.

    Raises:
        MoreishError: a tracker is unknown, or its package is missing.
    """
    names = [name.strip() for name in track.split(",")] if track else []
    for name in names:
        if name not in REGISTRY:
            hint = nearest(name, REGISTRY)
            raise MoreishError(f"train.track={track}: there is no tracker {name!r}: {hint}")
        if installed:
            import_extra(name, name, f"train.track={name}")
    return names


class TrackerGroup:
    """All trackers of a run."""

    def __init__(self, run: Run, step: int, report: Report) -> None:
        """Start the trackers of a training run that starts or resumes after `step` steps.

        Raises:
            MoreishError: a tracker cannot start.
        """
        self.run, self.report = run, report
        self.trackers: dict[str, Tracker] = {}
        self._last: tuple[int, float] | None = None
        for name in parse_trackers(run.config.train.track):
            try:
                self.trackers[name] = REGISTRY[name](run, step)
            except Exception as error:  # libraries raise many kinds
                hint = "; WANDB_MODE=offline needs no network" if name == "wandb" else ""
                self.close()
                raise MoreishError(f"{name} cannot start: {_summary(error)}{hint}") from None
        self._replay(step)

    def log(self, entry: Mapping[str, Any], names: Collection[str] | None = None) -> None:
        """Log a line of metrics.jsonl to the trackers of these names, or to all."""
        if metrics := self._metrics(entry):
            self._call("log_metrics", entry["step"], metrics, names=names)
        if texts := entry.get("samples"):
            self._call("log_texts", entry["step"], texts, names=names)

    def roll_back(self, step: int) -> None:
        self._call("roll_back", step)
        self._replay(step)

    def flush(self) -> None:
        self._call("flush")

    def close(self) -> None:
        self._call("close")

    def _replay(self, step: int) -> None:
        """Log metrics.jsonl up to `step` again, to the trackers that need it."""
        self._last = None
        names = [name for name, tracker in self.trackers.items() if tracker.needs_replay]
        if step and names:
            for entry in self.run.read_metrics():
                if entry["step"] <= step:
                    self.log(entry, names)

    def _metrics(self, entry: Mapping[str, Any]) -> dict[str, float]:
        if (score := entry.get("val")) is not None:
            self._last = None  # the speed excludes evaluations
            return {f"val/{name}": score[name] for name in SCORE_METRICS if score[name] is not None}
        if "loss" not in entry:
            return {}
        metrics = {f"train/{name}": entry[name] for name in STEP_METRICS if name in entry}
        before, self._last = self._last, (entry["tokens"], entry["seconds"])
        if before is not None and entry["seconds"] > before[1]:
            speed = (entry["tokens"] - before[0]) / (entry["seconds"] - before[1])
            metrics["train/tokens_per_second"] = speed
        return metrics

    def _call(self, method: str, *arguments: Any, names: Collection[str] | None = None) -> None:
        """Call a method of the trackers, and drop those that fail."""
        for name, tracker in list(self.trackers.items()):
            if names is not None and name not in names:
                continue
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a network error must not end a training run
                del self.trackers[name]
                rest = "it gets no more metrics; metrics.jsonl has all of them"
                self.report(Note(text=f"{name} failed ({_summary(error)}): {rest}"))


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings by their full names, without those that are None.

    >>> flatten({"seed": 0, "train": {"lr": 0.1, "steps": None}})
    {'seed': 0, 'train.lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}{key}.")
        elif value is not None:
            flat[path + key] = value if isinstance(value, int | float | str) else str(value)
    return flat


def _summary(error: Exception) -> str:
    return one_line(error).rstrip(".") or type(error).__name__
