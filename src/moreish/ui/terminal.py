"""What people see on a terminal: progress, tables, coloured text."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from moreish.data import PER_PARAMETER, Diagnosis, Finding, SplitName
from moreish.errors import command, visible
from moreish.evaluate import Score, TextNovelty, Token, TokenizerStats, TokenSurprisal, format_bits
from moreish.runs import DataFacts, Group
from moreish.training import (
    Evaluated,
    Event,
    Examined,
    LRRange,
    Note,
    Sampled,
    Skipped,
    Started,
    Step,
    WentBack,
    Working,
)
from moreish.utils.files import in_bytes

SPLIT_TITLES: dict[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}

PLAIN_LINES = 12
"""Progress lines of a training where there is no terminal to draw a bar on."""


class PatientConsole(Console):
    """A console that falls silent when its reader goes: `moreish train | head` still trains."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        hush(self.file)


def console(*, stderr: bool = False) -> Console:
    """Prints paths and samples as they are: no markup in them, no word broken in two."""
    return PatientConsole(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def hush(stream: IO[str]) -> None:
    """Let what is still to be written go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class TrainingView:
    """Shows a training as it goes: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, out: Console | None = None, *, brief: bool = False) -> None:
        """`brief`: only the bar, for many trainings one after another."""
        self.out = out or console()
        self.brief = brief
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss = math.nan
        self._val = math.nan
        self._began = (0.0, 0)
        self._printed = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._loss = self._val = math.nan
                self._printed = 0.0
                self._name = event.config["model"]["name"]
                self._began = (time.perf_counter(), 0)
                if not self.brief:
                    self._started(event)
            case Step():
                self._step(event)
            case Evaluated():
                self._val = event.score.loss
            case Sampled():
                if not self.brief:
                    self._sampled(event)
            case Working():
                self._working(event)
            case Skipped():
                self.out.print(Text(f"step {event.step:,} left out: {event.why}", style="yellow"))
            case WentBack():
                text = f"back to step {event.step:,}, on with a rate of {event.lr:.2g}: {event.why}"
                self.out.print(Text(text, style="yellow"))
            case Examined():
                if not self.brief:
                    for line in warning_lines(event.diagnosis):
                        self.out.print(line)
            case Note():
                self.out.print(Text(event.text, style="dim"))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _started(self, event: Started) -> None:
        for key, value in understood(event):
            self.out.print(Text(f"{key:<11}", style="dim") + Text(value))
        self.out.print()

    def rung(self, entry: Mapping[str, Any]) -> None:
        """A rung of the ladder is done: one line."""
        self.close()
        loss = entry["splits"]["val"]["loss"]
        line = Text(f"{entry['rung']:<14} {math.inf if loss is None else loss:.4f}  ")
        sample = visible("  ".join(entry["samples"]).replace("\n", " ↵ "))[:60]
        self.out.print(line + Text(sample, style="italic"))

    def _draw(self, columns: str, total: float) -> Progress:
        if self._bar is None:
            self._bar = Progress(
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
            self._began = (time.perf_counter(), event.tokens)
        now = time.perf_counter()
        pace = (event.tokens - self._began[1]) / max(now - self._began[0], 1e-9)
        facts = f"loss {self._loss:.3f}"
        if not math.isnan(self._val):
            facts += f"  validation {self._val:.3f}"
        facts += f"  {pace / 1000:,.0f}k tokens/s"
        if event.utilisation is not None:
            facts += f"  {event.utilisation:.0%} of the GPU's peak"
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
        many = len(event.texts) > 1
        shown = visible("  ".join(event.texts)) if many else repr(event.texts[0])
        self.out.print(label + Text(shown, style="italic"))

    def _working(self, event: Working) -> None:
        if not self.out.is_terminal:
            return
        if self._bar is None:
            self._draw(event.what, 1.0)
        elif not self._bar.tasks[self._task].description.startswith("training "):
            self._bar.update(self._task, description=event.what, completed=event.share)
            if event.share >= 1:
                self.close()


def understood(event: Started) -> list[tuple[str, str]]:
    """What Moreish makes of data and settings, as rows for the user to check."""
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
        rule = "by passage, equal ones kept together"
    elif data.kind == "lines":
        rule = "by line, copies of one line kept together"
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
    size = f", {event.parameters:,} parameters ({each:,.{int(each < 10)}f} training tokens each)"
    size = size if event.parameters else ""
    rows += [("model", f"{model['name']}{size}{context}{order}")]
    longest, most = data.longest_item, event.max_length
    if longest is not None and most is not None and most <= longest:
        rows += [("", f"lines longer than {most - 1} characters are learned in pieces")]
    if event.steps:
        apiece = " each" if event.processes > 1 else ""
        memory = (
            "" if event.memory is None else f", about {in_bytes(event.memory)} of memory{apiece}"
        )
        rows += [("training", _length(event) + memory)]
    rows += [("run", event.path)]
    return rows


def _mix(sources: Mapping[str, int], weights: Mapping[str, float] | None) -> str:
    """Which share of the training comes from which source."""
    shares = sources if weights is None else weights
    total = sum(shares.values())
    told = [
        f"{name} {shares[name] / total:.1%} ({tokens:,} tokens)" for name, tokens in sources.items()
    ]
    return f"prepared; trained on {', '.join(told)}"


def _vocabulary(data: DataFacts, tokenizer: str) -> str:
    boundary = " and the boundary" if data.boundary else ""
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
    # Some of a GPU's sums add in any order.
    bits = " (the same up to rounding each time)" if event.device.startswith("cuda") else ""
    where = event.device
    if event.processes > 1:
        how = "a part of the weights in each" if event.parted else "the weights in each"
        where = f"{event.processes} processes ({where.split(':')[0]}, {how})"
    return f"{length} on {where}, seed {event.config['seed']}{bits}"


def plural(count: int, noun: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clock(seconds: float) -> str:
    """`0:59`, `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def warning_lines(diagnosis: Diagnosis) -> list[Text]:
    """Of what the doctor found only what can be mended, or is grave."""
    told = [finding for finding in diagnosis.findings if finding.grave or finding.mend]
    if not told:
        return []
    looked = "" if diagnosis.whole else "the beginning was looked at; "
    more = Text(f"  {looked}more: {command('doctor', *diagnosis.given)}", style="dim")
    return [*(_finding(finding) for finding in told), more, Text()]


def diagnosis_lines(diagnosis: Diagnosis) -> list[Text]:
    """All that the doctor says."""
    kind = "a list of" if diagnosis.kind == "lines" else "running text of"
    many = diagnosis.kind == "text" and diagnosis.documents > 1
    files = f" in {plural(diagnosis.documents, 'file')}" if many else ""
    size = f"{plural(diagnosis.lines, 'line')}{files}, {plural(diagnosis.characters, 'character')}"
    suits = diagnosis.characters // PER_PARAMETER
    enough = (
        f"enough for {suits:,} parameters ({PER_PARAMETER} characters each); a larger model begins "
        "to learn by heart"
    )
    lines = [
        Text(f"{visible(diagnosis.name)}: {kind} {size}, {diagnosis.alphabet:,} of them different"),
        *(Text(visible(note), style="dim") for note in (*diagnosis.notes, enough)),
        Text(),
    ]
    for finding in diagnosis.findings:
        lines.append(_finding(finding))
        if finding.where:
            lines.append(Text(visible(f"  {finding.where}: {finding.example}"), style="dim"))
    if not diagnosis.findings:
        lines.append(Text("Nothing to mend."))
    if mending := diagnosis.mending:
        lines += [Text(), Text(visible(mending))]
    return lines


def _finding(finding: Finding) -> Text:
    mark = Text("! ", style="bold red") if finding.grave else Text("· ", style="dim")
    mend = Text(f"  {finding.mended_by}", style="bold") if finding.mend else Text()
    return mark + Text(finding.sentence) + mend


def score_table(scores: Mapping[SplitName, Score]) -> Table:
    """Exact losses, a row for each split."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for title in ("loss (nats/token)", "bits/char", "bits/byte", "perplexity", "tokens"):
        table.add_column(title, justify="right")
    for name, score in scores.items():
        error = "" if math.isnan(score.stderr) else f" ± {score.stderr:.4f}"
        table.add_row(
            SPLIT_TITLES[name],
            f"{score.loss:.4f}{error}",
            format_bits(score.bits_per_char),
            format_bits(score.bits_per_byte),
            f"{score.perplexity:.2f}",
            f"{score.tokens:,}",
        )
    return table


def tokenization_table(compared: Sequence[TokenizerStats]) -> Table:
    """A row for each tokenizer."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("tokenizer")
    for title in ("vocabulary", "tokens", "bytes/token", "MB/s", "unknown"):
        table.add_column(title, justify="right")
    for each in compared:
        table.add_row(
            visible(each.name),
            f"{each.vocabulary:,}",
            f"{each.tokens:,}",
            f"{each.bytes_per_token:.2f}",
            f"{each.megabytes_per_second:.1f}",
            f"{each.unknown:.1%}" if each.unknown else "",
        )
    return table


GROUNDS = ("on blue", "on dark_green", "on dark_red", "on purple4", "on dark_goldenrod")
"""Of tokens that stand side by side."""


def token_lines(name: str, tokens: Sequence[Token]) -> list[Text]:
    """A text with each token on a ground of its own, then each with its id and its bytes."""
    size = sum(len(token.bytes.split()) for token in tokens)
    each = f", {size / len(tokens):.2f} bytes each" if tokens else ""
    lines = [Text(f"{visible(name)}: {plural(len(tokens), 'token')}{each}")]
    grounds = [f"white {GROUNDS[place % len(GROUNDS)]}" for place in range(len(tokens))]
    lines.append(Text.assemble(*((t.label, g) for t, g in zip(tokens, grounds, strict=True))))
    wide = max((cell_len(token.label) for token in tokens), default=0)
    for token, ground in zip(tokens, grounds, strict=True):
        space = " " * (wide - cell_len(token.label))
        lines.append(Text(f"{token.id:>8}  ") + Text(token.label, ground))
        lines[-1].append(f"{space}  {token.bytes}", "dim")
    return [*lines, Text()]


def ladder_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each rung, and the lecture's figure where there is one; 80 columns wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    tested = any("test" in entry["splits"] for entry in entries)
    names = ("train", "val", "test") if tested else ("train", "val")
    losses = ("train", "validation", "test")[: len(names)]
    for title in ("rung", "size", "s", *losses, "bits/\nchar", "copied", "stated"):
        table.add_column(title, justify="left" if title == "rung" else "right", no_wrap=True)
    best = min(entry["splits"]["val"]["loss"] or math.inf for entry in entries)
    for entry in entries:
        splits, val = entry["splits"], entry["splits"]["val"]
        table.add_row(
            entry["rung"],
            _size(entry["parameters"]),
            f"{entry['seconds']:.1f}",
            *(_loss(splits.get(name)) for name in names),
            format_bits(Score.from_json(val).bits_per_char),
            _copied(entry.get("copied")),
            f"{entry['stated']['loss']:.2f}" if entry["stated"] else "",
            style="bold" if val["loss"] == best else None,
        )
    return table


def _copied(share: float | None) -> str:
    """`12%` of the items, or so many characters; nothing where an older ladder does not tell."""
    if share is None:
        return ""
    return f"{share:.0%}" if share <= 1 else f"{share:.0f}"


def _loss(split: Mapping[str, Any] | None) -> str:
    """`1.9740±.0081`."""
    if split is None or split["loss"] is None:
        return "" if split is None else "∞"
    error = f"±{split['stderr']:.4f}".replace("±0.", "±.") if split["stderr"] else ""
    return f"{split['loss']:.4f}{error}"


def stated_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the stated figures of a ladder come from."""
    return [
        f"stated for {entry['rung']}: {entry['stated']['loss']:.2f}, {entry['stated']['where']}"
        for entry in entries
        if entry["stated"]
    ]


def _size(number: int) -> str:
    """`729`, `204 k`, `1.3 M`."""
    if number < 10_000:
        return str(number)
    return f"{number / 1e3:.0f} k" if number < 1e6 else f"{number / 1e6:.1f} M"


def novelty_table(texts: Sequence[TextNovelty]) -> Table:
    """The ten samples that owe the most to the training data."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    items = texts[0].nearest is not None
    where = ["stands in", *(["nearest", "edits"] if items else ["line"])]
    for title in ("sample", "longest shared piece", *where):
        table.add_column(title)
    for text in sorted(texts, key=lambda t: (not t.known, -len(t.overlap)))[:10]:
        rest = [text.nearest, str(text.distance)] if items else [str(text.place)]
        rest = [text.passage, *rest]
        cells = [_short(text.text), _short(text.overlap), *(_short(cell or "") for cell in rest)]
        table.add_row(*cells, style="bold" if text.known else None)
    return table


def _short(text: str) -> Text:
    text = visible(text.replace("\n", "↵").replace("\t", " "))
    return Text(text if len(text) <= 32 else text[:31] + "…")


def comparison_table(groups: Sequence[Group]) -> Table:
    """A row for each group of runs, best first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for title in ("runs", "loss (nats)", "between seeds"):
        table.add_column(title, justify="right")
    for group in groups:
        spread = max(group.losses) - min(group.losses)
        seeds = f"{spread:.4f}" if len(group.losses) > 1 else ""
        table.add_row(group.name, str(len(group.runs)), f"{group.loss:.4f}", seeds)
    return table


def range_lines(found: LRRange) -> list[Text]:
    """The range test as a sideways curve: a line for each stretch of rates."""
    count = min(24, len(found.rates))
    groups = np.array_split(np.arange(len(found.rates)), count)
    losses = [float(np.mean([found.smoothed[i] for i in group])) for group in groups]
    low, high = min(losses), min(max(losses), 2 * losses[0])
    lines = []
    for group, loss in zip(groups, losses, strict=True):
        length = round(40 * min(1.0, (loss - low) / max(high - low, 1e-9)))
        first, last = found.rates[group[0]], found.rates[group[-1]]
        mark = "  the valley begins" if first <= found.valley <= last else ""
        mark += "  suggested" if first <= found.suggested <= last else ""
        lines.append(Text(f"{first:9.2e}  {loss:7.4f}  ") + Text("█" * length + mark))
    return lines


def surprisal_table(tokens: list[TokenSurprisal]) -> Table:
    """One row for each token: its probability, and how many nats it costs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("probability", justify="right")
    table.add_column("nats", justify="right")
    for token in tokens:
        table.add_row(Text(token.token), f"{token.probability:.4f}", f"{token.nats:.3f}")
    return table
