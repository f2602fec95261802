"""What is logged, shown by other programs too. metrics.jsonl stays the truth: trackers are told
what is written there, and a training goes on without one that fails.

A new tracker is one class and one line in `REGISTRY`.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, ClassVar, final

from moreish.errors import MoreishError, nearest
from moreish.runs import Run
from moreish.settings import Tree, to_toml
from moreish.training.events import Note, Report

PROJECT = "moreish"
"""Of runs on wandb, unless WANDB_PROJECT names one."""


STEPS = ("loss", "lr", "gradient_norm", "mfu")
"""Of a step, what is told."""

SCORES = ("loss", "bits_per_char", "bits_per_byte")
"""Of an evaluation."""


class Tracker(ABC):
    """Shows a run elsewhere."""

    begins_anew: ClassVar[bool] = False
    """Whether it has to be told everything again where a training goes on or goes back."""

    @abstractmethod
    def __init__(self, run: Run, step: int) -> None:
        """`step` that the training begins after; more than 0: it goes on."""

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """What was measured after `step` steps."""

    @abstractmethod
    def texts(self, step: int, texts: Iterable[str]) -> None:
        """What the model wrote then."""

    @abstractmethod
    def roll_back(self, step: int) -> None:
        """The training goes on from `step`: what was told of later ones does not count."""

    @abstractmethod
    def flush(self) -> None:
        """A checkpoint is saved: what was told until now must last."""

    @abstractmethod
    def close(self) -> None:
        """The training ends, or pauses."""


@final
class TensorBoard(Tracker):
    """Event files in the run's folder `tensorboard`."""

    def __init__(self, run: Run, step: int) -> None:
        self.folder = run.path / "tensorboard"
        self._open(step)
        if step == 0:
            self._settings(run.record.config)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Readers forget what stands in older files from this step on; older are those whose names
        # come first, which begin with the second that they were made in.
        while any(self.folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(0.1)
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else 0)

    def _settings(self, config: Tree) -> None:
        from torch.utils.tensorboard.summary import hparams

        self.writer.add_text("settings", f"```toml\n{to_toml(_without_none(config))}\n```", 0)
        file = self.writer.file_writer
        assert file is not None
        for summary in hparams(flat(config), {"val/loss": 0.0}):
            file.add_summary(summary, 0)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def texts(self, step: int, texts: Iterable[str]) -> None:
        shown = "\n\n".join(f"```\n{text}\n```" for text in texts)  # Markdown
        self.writer.add_text("samples", shown, step)

    def roll_back(self, step: int) -> None:
        self.writer.close()
        self._open(step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


@final
class Wandb(Tracker):
    """Runs of Weights & Biases, which take nothing back. So a training that goes on begins a new
    one, in the group of the first, and tells it everything again."""

    begins_anew = True

    def __init__(self, run: Run, step: int) -> None:
        self.of = run
        self._open(step)

    def _open(self, step: int) -> None:
        import wandb

        record, name = self.of.record, self.of.path.name
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=f"{name} {record.sha256[:8]} {record.created}",
            name=f"{name} from step {step}" if step else name,
            dir=str(self.of.path),
            config=record.config,
            settings=wandb.Settings(console="off", silent=True),
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def texts(self, step: int, texts: Iterable[str]) -> None:
        self.run.log({"samples": "\n".join(texts)}, step=step)

    def roll_back(self, step: int) -> None:
        self.run.finish()
        self._open(step)

    def flush(self) -> None:
        """It writes or sends by itself."""

    def close(self) -> None:
        self.run.finish()


REGISTRY: Mapping[str, type[Tracker]] = MappingProxyType(
    {"tensorboard": TensorBoard, "wandb": Wandb}
)


def parse_trackers(track: str | None) -> list[str]:
    """The names in `train.track`, which commas part. Raises MoreishError where one is unknown."""
    names = [name.strip() for name in track.split(",")] if track else []
    for name in names:
        if name not in REGISTRY:
            hint = nearest(name, REGISTRY)
            raise MoreishError(f"train.track={track}: there is no tracker {name!r}: {hint}")
    return names


def require_trackers(track: str | None) -> list[str]:
    """As `parse_trackers`. Raises MoreishError where the package of one is not installed, too."""
    names = parse_trackers(track)
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            raise MoreishError(
                f"train.track={name} needs a package: pip install 'moreish[{name}]'"
            ) from None
    return names


class TrackerGroup:
    """All trackers of a run."""

    def __init__(self, run: Run, step: int, report: Report) -> None:
        """`step` that the training begins after. Raises MoreishError when one does not begin."""
        self.run, self.report = run, report
        self.trackers: dict[str, Tracker] = {}
        self.last: tuple[int, float] | None = None
        for name in require_trackers(run.config.train.track):
            try:
                self.trackers[name] = REGISTRY[name](run, step)
            except Exception as error:  # of libraries that have many
                hint = "; WANDB_MODE=offline needs no network" if name == "wandb" else ""
                self.close()
                raise MoreishError(f"{name} does not begin: {_said(error)}{hint}") from None
        self._tell_again(step)

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Tell what is written to metrics.jsonl."""
        self._tell(entry, self.trackers)

    def roll_back(self, step: int) -> None:
        """The training goes on from `step`."""
        self._each(self.trackers, lambda tracker: tracker.roll_back(step))
        self._tell_again(step)

    def flush(self) -> None:
        self._each(self.trackers, lambda tracker: tracker.flush())

    def close(self) -> None:
        self._each(self.trackers, lambda tracker: tracker.close())

    def _tell_again(self, step: int) -> None:
        """What stands in metrics.jsonl up to `step`, to those that have to begin anew."""
        self.last = None
        anew = {name: tracker for name, tracker in self.trackers.items() if tracker.begins_anew}
        if step and anew:
            for entry in self.run.read_metrics():
                if entry["step"] <= step:
                    self._tell(entry, anew)

    def _tell(self, entry: Mapping[str, Any], trackers: Mapping[str, Tracker]) -> None:
        step, numbers = entry["step"], self._numbers(entry)
        if numbers:
            self._each(trackers, lambda tracker: tracker.numbers(step, numbers))
        if texts := entry.get("samples"):
            self._each(trackers, lambda tracker: tracker.texts(step, texts))

    def _numbers(self, entry: Mapping[str, Any]) -> dict[str, float]:
        if (score := entry.get("val")) is not None:
            self.last = None  # its time is none of the training's speed
            return {f"val/{name}": score[name] for name in SCORES if score[name] is not None}
        if "loss" not in entry:
            return {}
        found = {f"train/{name}": entry[name] for name in STEPS if name in entry}
        before, self.last = self.last, (entry["tokens"], entry["seconds"])
        if before is not None and entry["seconds"] > before[1]:
            speed = (entry["tokens"] - before[0]) / (entry["seconds"] - before[1])
            found["train/tokens_per_second"] = speed
        return found

    def _each(self, trackers: Mapping[str, Tracker], tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(trackers.items()):
            if name not in self.trackers:
                continue
            try:
                tell(tracker)
            except Exception as error:  # a network that fails must not end a training
                del self.trackers[name]
                rest = "it is told nothing more, metrics.jsonl has everything"
                self.report(Note(text=f"{name} failed ({_said(error)}): {rest}"))


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by their full names, without those that are open.

    >>> flat({"seed": 0, "train": {"lr": 0.1, "steps": None}})
    {'seed': 0, 'train.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}{key}.")
        elif value is not None:
            found[path + key] = value if isinstance(value, int | float | str) else str(value)
    return found


def _without_none(tree: Mapping[str, Any]) -> Tree:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None
    }


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
