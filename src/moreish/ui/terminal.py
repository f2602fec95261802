"""The terminal: its console, progress bars, and the view of a training."""

import math
import os
import time
from collections.abc import Mapping
from typing import IO, Any, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from moreish.errors import visible
from moreish.runs import DatasetInfo
from moreish.training import (
    Audited,
    Evaluated,
    Event,
    Note,
    Progress,
    Rollback,
    Sampled,
    Skipped,
    Started,
    Step,
)
from moreish.ui.tables import SPLIT_TITLES, clock, plural, warning_lines
from moreish.utils.files import format_bytes

PLAIN_LINES = 12
"""Progress lines that a training prints where there is no terminal to draw a bar on."""


class PatientConsole(Console):
    """A console that goes quiet when its reader exits, so that `moreish train | head` still
    trains."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_output(self.file)


def console(*, stderr: bool = False) -> Console:
    """A console that prints paths and samples unchanged: no markup, no line breaks inside."""
    return PatientConsole(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def discard_output(stream: IO[str]) -> None:
    """Send what is still to be written to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class TrainingView:
    """Shows the events of a training: a progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, out: Console | None = None, *, brief: bool = False) -> None:
        """Create a view.

        Args:
            out: the console to print on; None creates one on standard output.
            brief: whether to show only the progress bar, for many trainings one after another.
        """
        self.out = out or console()
        self.brief = brief
        self._bar: ProgressBar | None = None
        self._task = TaskID(0)
        self._loss = math.nan
        self._val = math.nan
        self._start = (0.0, 0)
        self._printed = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._loss = self._val = math.nan
                self._printed = 0.0
                self._name = event.config["model"]["name"]
                self._start = (time.perf_counter(), 0)
                if not self.brief:
                    self._started(event)
            case Step():
                self._step(event)
            case Evaluated():
                self._val = event.score.loss
            case Sampled():
                if not self.brief:
                    self._sampled(event)
            case Progress():
                self._working(event)
            case Skipped():
                self.out.print(Text(f"Skipped step {event.step:,}: {event.why}", style="yellow"))
            case Rollback():
                text = (
                    f"Rolled back to step {event.step:,}, learning rate now {event.lr:.2g}: "
                    f"{event.why}"
                )
                self.out.print(Text(text, style="yellow"))
            case Audited():
                if not self.brief:
                    for line in warning_lines(event.audit):
                        self.out.print(line)
            case Note():
                self.out.print(Text(event.text, style="dim"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _started(self, event: Started) -> None:
        for key, value in describe_start(event):
            self.out.print(Text(f"{key:<11}", style="dim") + Text(value))
        self.out.print()

    def rung(self, entry: Mapping[str, Any]) -> None:
        """Print one line for a finished rung of the ladder."""
        self.close()
        loss = entry["splits"]["val"]["loss"]
        line = Text(f"{entry['rung']:<14} {math.inf if loss is None else loss:.4f}  ")
        sample = visible("  ".join(entry["samples"]).replace("\n", " ↵ "))[:60]
        self.out.print(line + Text(sample, style="italic"))

    def _draw(self, columns: str, total: float) -> ProgressBar:
        if self._bar is None:
            self._bar = ProgressBar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[facts]}"),
                console=self.out,
                transient=True,
            )
            self._task = self._bar.add_task(columns, total=total, facts="")
            self._bar.start()
        return self._bar

    def _step(self, event: Step) -> None:
        first = math.isnan(self._loss)
        self._loss = event.loss if first else 0.95 * self._loss + 0.05 * event.loss
        if first:
            self._start = (time.perf_counter(), event.tokens)
        now = time.perf_counter()
        pace = (event.tokens - self._start[1]) / max(now - self._start[0], 1e-9)
        facts = f"loss {self._loss:.3f}"
        if not math.isnan(self._val):
            facts += f"  validation {self._val:.3f}"
        facts += f"  {pace:,.0f} tokens/s"
        if event.mfu is not None:
            facts += f"  MFU {event.mfu:.0%}"
        facts += f"  {clock(event.seconds_left)} left"
        if self.out.is_terminal:
            bar = self._draw(f"training {self._name}", event.steps)
            bar.update(self._task, completed=event.step, total=event.steps, facts=facts)
        elif not self.brief and event.step / event.steps >= self._printed + 1 / PLAIN_LINES:
            self._printed = event.step / event.steps
            self.out.print(f"step {event.step:,} of {event.steps:,}  {facts}")
        if event.step == event.steps:
            self.close()

    def _sampled(self, event: Sampled) -> None:
        label = Text(f"after {event.step:,} steps  ", style="dim")
        is_list = len(event.texts) > 1
        shown = visible("  ".join(event.texts)) if is_list else repr(event.texts[0])
        self.out.print(label + Text(shown, style="italic"))

    def _working(self, event: Progress) -> None:
        if not self.out.is_terminal:
            return
        if self._bar is None:
            self._draw(event.what, 1.0)
        elif not self._bar.tasks[self._task].description.startswith("training "):
            self._bar.update(self._task, description=event.what, completed=event.share)
            if event.share >= 1:
                self.close()


def describe_start(event: Started) -> list[tuple[str, str]]:
    """How data and settings were understood, as rows of a title and a text for the user to
    check."""
    data, config = event.data, event.config
    if data.kind == "lines":
        size = (
            f"{plural(data.documents, 'line')} ({data.distinct:,} distinct), "
            f"{data.shortest} to {data.longest} characters"
        )
    else:
        unit = "file" if data.sources is None else "document"
        files = f" in {plural(data.documents, unit)}" if data.documents > 1 else ""
        size = f"running text, {plural(data.characters, 'character')}{files}"
    parts = data.split_documents or data.tokens
    if config["data"]["split"] == "lecture":
        rule = "as in the lecture"
    elif data.sources is not None:
        rule = "by passage; duplicates stay in one split"
    elif data.kind == "lines":
        rule = "by line; duplicates stay in one split"
    else:
        rule = "by position"
    shares = ", ".join(f"{count:,} {SPLIT_TITLES[name]}" for name, count in parts.items())
    rows = [("data", f"{data.name}: {size}")]
    rows += [("", note) for note in data.notes]
    if data.sources is not None:
        rows += [("", _mix(data.sources, config["data"]["weights"]))]
    rows += [("split", f"{shares} ({rule})")]
    rows += [("vocabulary", _vocabulary(data, config["data"]["tokenizer"]))]
    model = config["model"]
    context = f", context {model['context']}" if "context" in model else ""
    order = f", order {model['order']}" if "order" in model else ""
    each = data.tokens["train"] / max(1, event.parameters)
    each_shown = f"{each:,.0f}" if each >= 10 else f"{each:.2g}"
    ratio = f"{each_shown} training tokens per parameter"
    size = f", {event.parameters:,} parameters ({ratio})" if event.parameters else ""
    rows += [("model", f"{model['name']}{size}{context}{order}")]
    longest, most = data.longest_item, event.max_length
    if longest is not None and most is not None and most <= longest:
        rows += [("", f"lines longer than {most - 1} tokens are trained on in windows")]
    if event.steps:
        apiece = " each" if event.processes > 1 else ""
        memory = (
            ""
            if event.memory is None
            else f", about {format_bytes(event.memory)} of memory{apiece}"
        )
        rows += [("training", _length(event) + memory)]
    rows += [("run", event.path)]
    return rows


def _mix(sources: Mapping[str, int], weights: Mapping[str, float] | None) -> str:
    """The share of the training batches that comes from each source."""
    shares = sources if weights is None else weights
    total = sum(shares.values())
    parts = [
        f"{name} {shares[name] / total:.1%} ({tokens:,} tokens)" for name, tokens in sources.items()
    ]
    return f"prepared text; batches from {', '.join(parts)}"


def _vocabulary(data: DatasetInfo, tokenizer: str) -> str:
    boundary = " and a boundary token" if data.boundary else ""
    if tokenizer == "char":
        alphabet = "".join(c if c.isprintable() else "" for c in data.alphabet).strip()
        shown = alphabet if len(alphabet) <= 70 else alphabet[:70] + "…"
        count = data.vocabulary - data.boundary
        return f"{plural(count, 'character')}{boundary}: {shown}"
    count = data.vocabulary - data.boundary
    if tokenizer in ("byte", "word"):
        return f"{plural(count, tokenizer)}{boundary}"
    learned = {"bpe": "learned from the training split", "gpt2": "GPT-2's"}
    return f"{plural(count, 'token')}{boundary}, {learned.get(tokenizer, f'of {tokenizer}')}"


def _length(event: Started) -> str:
    train = event.config["train"]
    if event.from_step:
        length = f"steps {event.from_step:,} to {event.steps:,}"
    elif train["minutes"] is not None:
        length = f"about {event.steps:,} steps in {train['minutes']:g} min"
    else:
        length = plural(event.steps, "step")
    # Some sums on a GPU add in any order.
    bits = " (reproducible up to rounding)" if event.device.startswith("cuda") else ""
    where = event.device
    if event.processes > 1:
        how = "FSDP" if event.sharded else "DDP"
        where = f"{event.processes} processes ({where.split(':')[0]}, {how})"
    return f"{length} on {where}, seed {event.config['seed']}{bits}"
