"""The terminal: its console, progress bars, and the view of a training run."""

import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from moreish import training
from moreish.errors import visible
from moreish.python_errors import spell
from moreish.runs import DatasetInfo
from moreish.ui.tables import SPLIT_TITLES, clock, warning_lines
from moreish.utils.files import format_bytes
from moreish.utils.text import plural

PLAIN_LINES = 12
"""Progress lines that a training run prints where there is no terminal to draw a bar on."""

TITLE_WIDTH = 11
"""Width of the titles in the summary of a training run."""

ROW_WIDTH = 80 - TITLE_WIDTH
"""Width of the texts beside them, on a terminal of 80 columns."""

RUNG_WIDTH = 79
"""Length of the line of a finished rung of the ladder."""

PLAIN_SECONDS = 10.0
"""Seconds between two progress lines of a preparation, likewise."""


COMMAND = re.compile("^.*: ((?:moreish|iconv) .*)$", re.DOTALL)
"""Matches a message that ends with a command."""


class PipeSafeConsole(Console):
    """A console that discards its output once the reading end of a pipe is closed, so that training
    continues under `moreish train | head`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text without markup; it breaks lines between words, and only on
    a terminal."""
    found = PipeSafeConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
    found.soft_wrap = not found.is_terminal
    return found


def print_indented(out: Console, first: Text, text: Text, *, repeat: bool = False) -> None:
    """Print a text after another one; where it takes several lines, all begin below its first, or
    after the other one if that is to be repeated."""
    if out.soft_wrap:
        out.print(Text.assemble(first, text))
        return
    width = max(20, out.width - len(first))
    for number, line in enumerate(text.wrap(out, width) or [Text()]):
        line.rstrip()
        out.print(Text.assemble(first if repeat or not number else " " * len(first), line))


def print_message(out: Console, message: Text | str, style: str = "") -> None:
    """Print a message; where it ends with a command and does not fit on a line, the command has a
    line of its own that the console does not break, so that it can be copied."""
    text = Text(message, style) if isinstance(message, str) else message
    found = COMMAND.search(text.plain)
    if found is None or out.soft_wrap or text.cell_len <= out.width:
        out.print(text)
        return
    out.print(text[: found.start(1) - 1])
    out.print(text[found.start(1) :], soft_wrap=True)


class TrainingView:
    """Shows the events of a training run: a progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, out: Console | None = None, *, brief: bool = False) -> None:
        """
        Args:
            out: the console to print on; None creates one on standard output.
            brief: whether to show only the progress bar, for many training runs one after another.
        """
        self.out = out or console()
        self.brief = brief
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._name = ""

    def __call__(self, event: training.Event) -> None:
        match event:
            case training.Started():
                self._loss = self._val = math.nan
                self._printed = 0.0
                self._name = event.config["model"]["name"]
                if not self.brief:
                    for title, value in describe_start(event):
                        self.print_row(title, value)
                    self.out.print()
            case training.Step():
                self._show_step(event)
            case training.Evaluated():
                self._val = event.score.loss
            case training.Sampled() if not self.brief:
                is_list = len(event.texts) > 1
                text = visible(" | ".join(event.texts) if is_list else event.texts[0])
                is_start = event.step == 0
                label = (
                    "before the first step" if is_start else f"after {plural(event.step, 'step')}"
                )
                self.out.print(Text(label, "dim"))
                self.print_text(text)
            case training.Progress(what=what, share=share, size=size):
                if size is None:
                    self.show_progress(what, share)
                else:
                    self._show_bytes(what, round(share * size), size)
            case training.Skipped():
                self.out.print(f"Skipped step {event.step:,}: {event.why}", style="yellow")
            case training.Rollback():
                rate = f"learning rate now {event.lr:.2g}"
                text = f"Rolled back to step {event.step:,}, {rate}: {event.why}"
                self.out.print(text, style="yellow")
            case training.Audited() if not self.brief:
                for line in warning_lines(event.audit):
                    print_message(self.out, line)
            case training.Note():
                print_message(self.out, spell(event.text), "dim")

    def print_row(self, title: str, value: str) -> None:
        """Print a text after a title; its further lines are indented."""
        print_indented(self.out, Text(f"{title:<{TITLE_WIDTH}}", "dim"), Text(value))

    def print_text(self, text: str) -> None:
        """Print generated text, which keeps its lines, indented."""
        for line in text.split("\n"):
            print_indented(self.out, Text("  "), Text(line, "italic"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def rung(self, entry: Mapping[str, Any], number: int, total: int) -> None:
        """Print one line for a finished rung of the ladder."""
        self.close()
        loss = entry["splits"]["val"]["loss"]
        place = f"{number:>{len(str(total))}} of {total}"
        line = f"{place}  {entry['rung']:<15} {math.inf if loss is None else loss:.4f}  "
        sample = visible("  ".join(entry["samples"]).replace("\n", " ↵ "))
        sample = sample[: max(20, RUNG_WIDTH - len(line))]
        self.out.print(Text.assemble(line, (sample, "italic")))

    def _show_bytes(self, what: str, done: int, total: int) -> None:
        """Show how many bytes of a text are prepared; a total of 0 is unknown."""
        now = time.perf_counter()
        if what != self._name:
            self.close()
            self._name, self._start, self._printed = what, (now, done), now
        pace = (done - self._start[1]) / max(now - self._start[0], 1e-9)
        facts = f"{done / 1e6:,.0f} of about {total / 1e6:,.0f} MB  {pace / 1e6:,.1f} MB/s"
        if pace > 0:
            facts += f"  {clock((total - done) / pace)} left"
        if self.out.is_terminal:
            bar = self._draw(what, None)
            facts = facts if total else ""
            bar.update(self._task, completed=done, total=total or None, facts=facts)
        elif total and now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self.out.print(f"{what}  {done / total:.0%}  {facts}")

    def _draw(self, description: str, total: float | None) -> Progress:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[facts]}"),
                console=self.out,
                transient=True,
            )
            self._task = self._bar.add_task(description, total=total, facts="")
            self._bar.start()
        return self._bar

    def _show_step(self, event: training.Step) -> None:
        now = time.perf_counter()
        if math.isnan(self._loss):  # the first step
            self._loss, self._start = event.loss, (now, event.tokens)
        self._loss = 0.95 * self._loss + 0.05 * event.loss
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

    def show_progress(self, what: str, share: float) -> None:
        """Show the fraction of other work that is done, unless the bar shows training."""
        if not self.out.is_terminal:
            return
        if self._bar is None:
            self._draw(what, 1.0)
        elif not self._bar.tasks[self._task].description.startswith("training "):
            self._bar.update(self._task, description=what, completed=share)
            if share >= 1:
                self.close()


def describe_start(event: training.Started) -> list[tuple[str, str]]:
    """Return a summary of the data and the settings, as rows of a title and a text."""
    data, config = event.data, event.config
    if data.kind == "lines":
        size = (
            f"{plural(data.documents, 'line')} ({data.distinct:,} distinct), "
            f"{data.shortest} to {data.longest} characters"
        )
    elif data.kind == "examples":
        what = {"label": "labels", "words": "sequences of symbols", "text": "text"}
        size = (
            f"{plural(data.documents, 'example')}, the targets are {what[data.targets or 'text']}"
        )
    else:
        several = f" in {plural(data.documents, 'document')}" if data.documents > 1 else ""
        size = f"running text, {plural(data.characters, 'character')}{several}"
    parts = data.split_documents or data.tokens
    if config["data"].get("validation_file") is not None:
        rule = "files of their own"
    elif config["data"]["split"] == "lecture":
        rule = "as in the lecture"
    elif data.sources is not None:
        rule = "by chunk; duplicates stay in one split"
    elif data.kind == "lines":
        rule = "by line, at random"
    elif config.get("task") is not None:
        rule = "no problem is in two of them"
    elif data.kind == "examples":
        rule = "by input, at random"
    else:
        rule = "by position"
    shares = ", ".join(f"{count:,} {SPLIT_TITLES[name]}" for name, count in parts.items())
    rows = [("data", f"{data.name}: {size}"), *(("", spell(note)) for note in data.notes)]
    if data.sources is not None:
        rows.append(("", _mix(data.sources, config["data"]["weights"])))
    rows.append(("split", f"{shares} ({rule})"))
    rows.append(("vocabulary", _vocabulary(data, config["data"]["tokenizer"])))
    model = config["model"]
    context = f", context {model['context']}" if "context" in model else ""
    order = f", order {model['order']}" if "order" in model else ""
    size = ""
    if event.parameters:
        ratio = data.tokens["train"] / event.parameters
        ratio_shown = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
        size = f", {event.parameters:,} parameters ({ratio_shown} training tokens per parameter)"
    rows.append(("model", f"{model['name']}{size}{context}{order}"))
    longest, maximum = data.longest_item, event.max_length
    if longest is None or maximum is None or maximum > longest:
        pass
    elif data.kind == "examples":
        rows.append(("", f"of examples longer than {maximum - 1} tokens only the end is read"))
    else:
        rows.append(("", f"lines longer than {maximum - 1} tokens are split into windows"))
    if event.steps:
        rows.append(("training", _length(event)))
    return [*rows, ("run", event.path)]


def _mix(sources: Mapping[str, int], weights: Mapping[str, float] | None) -> str:
    """Return the share of the training batches that comes from each source."""
    shares = sources if weights is None else weights
    total = sum(shares.values())
    parts = [
        f"{name} {shares[name] / total:.1%} ({tokens:,} tokens)" for name, tokens in sources.items()
    ]
    return f"prepared text; batches from {', '.join(parts)}"


def _vocabulary(data: DatasetInfo, tokenizer: str) -> str:
    boundary = " and a boundary token" if data.boundary else ""
    count = data.vocabulary - data.boundary
    if tokenizer == "char":
        alphabet = "".join(filter(str.isprintable, data.alphabet)).strip()
        shown = Text(alphabet)
        shown.truncate(ROW_WIDTH, overflow="ellipsis")  # to fit on a line of its own
        return f"{plural(count, 'character')}{boundary}: {shown.plain}"
    if tokenizer in ("byte", "word"):
        return f"{plural(count, tokenizer)}{boundary}"
    learned = {"bpe": "learned from the training split", "gpt2": "GPT-2's"}
    return f"{plural(count, 'token')}{boundary}, {learned.get(tokenizer, f'of {tokenizer}')}"


def _length(event: training.Started) -> str:
    train = event.config["train"]
    if event.from_step and train["minutes"] is not None:
        length = f"from step {event.from_step:,}, about {event.steps - event.from_step:,} more"
    elif event.from_step:
        length = f"steps {event.from_step:,} to {event.steps:,}"
    elif train["minutes"] is not None:
        length = f"about {event.steps:,} steps in {train['minutes']:g} min"
    else:
        length = plural(event.steps, "step")
    # Some sums on a GPU add in any order.
    bits = " (reproducible up to rounding)" if event.device.startswith("cuda") else ""
    where, each = event.device, ""
    if event.processes > 1:
        how = "FSDP" if event.sharded else "DDP"
        where, each = f"{event.processes} processes ({where.split(':')[0]}, {how})", " each"
    memory = ""
    if event.memory is not None:
        memory = f", about {format_bytes(event.memory)} of memory{each}"
    return f"{length} on {where}, seed {event.config['seed']}{bits}{memory}"
