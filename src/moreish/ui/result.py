"""What `moreish train` prints at its end: samples, losses and their meaning, the next commands."""

import math

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from moreish.errors import MoreishError, command, visible
from moreish.python_errors import spell
from moreish.runs import Run, describe_losses, short_text_note
from moreish.ui.tables import prediction_table, score_table
from moreish.ui.terminal import print_indented, print_message
from moreish.utils.text import shorten

SEED = 1
"""Random seed of the samples; `moreish sample` uses 0, and so shows others."""

NEXT_OF_EXAMPLES = {
    "predict": "predict targets: one input a line, from a file or from -",
    "eval": "measure the predictions on whole splits",
}

NEXT = {
    "sample": "generate more",
    "serve": "play with it in the browser",
    "report": "see what it has learned",
}
"""Commands to go on with, and what they do."""

LIST_SAMPLES = 10
TEXT_TOKENS = 300
"""Samples of a list, or the length of the sample of running text in tokens."""


def print_result(out: Console, run: Run) -> None:
    """Print the result of a training run."""
    if math.isfinite(run.scores["val"].loss):
        _print_samples(out, run)
    _print_losses(out, run)
    _print_next_commands(out, run)


def print_ending(out: Console, run: Run) -> None:
    """Print how training ended where the budget did not end it, and its losses if it is finished,
    for the Python functions."""
    if ending := describe_ending(run):
        out.print(ending)
    if run.record.status != "interrupted":
        out.print()
        _print_losses(out, run)


def describe_ending(run: Run) -> str:
    """Return how to resume an interrupted run, or that training stopped early; empty otherwise."""
    if run.record.status == "interrupted":
        return spell(f"Stopped. Resume with: {command('train', '--resume', run.path)}")
    if run.record.status == "stopped early":
        return "Stopped early: the validation loss was rising. The best weights are kept."
    return ""


def _print_losses(out: Console, run: Run) -> None:
    out.print(score_table(run.scores))
    out.print()
    if run.kind == "examples":
        out.print(prediction_table(run.scores))
        out.print()
        return
    out.print(_comparison(run))
    out.print()
    if meaning := describe_losses(run):
        print_message(out, spell(meaning))
        out.print()
    if note := short_text_note(run):
        print_message(out, spell(note))
        out.print()


def _print_samples(out: Console, run: Run) -> None:
    if run.kind == "examples":
        predicted = run.predict_split(run.split("val"), LIST_SAMPLES)
        out.print(Text("Predictions for ten inputs of the validation split:", "dim"))
        for line in predicted.as_lines():
            print_indented(out, Text("  "), Text(shorten(visible(line)), "italic"))
        out.print()
        return
    is_list = run.kind == "lines"
    try:
        number, length = (LIST_SAMPLES, None) if is_list else (1, TEXT_TOKENS)
        samples = run.sample(number, max_tokens=length, seed=SEED)
    except MoreishError:  # an untrained model may never end an item
        return
    title = "Ten samples:" if is_list else "A sample:"
    out.print(Text(title, "dim"))
    for sample in samples:
        for line in visible(sample).split("\n"):
            print_indented(out, Text("  "), Text(line, "italic"))
    out.print()


def _comparison(run: Run) -> Table:
    """Return the validation loss beside those of simpler models."""
    unit = "character" if run.config.data.tokenizer == "char" else "token"
    table = Table("validation loss", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(f"nats per {unit}", justify="right")
    for name, loss in run.baselines.items():
        table.add_row(name, f"{loss:.4f}")
    table.add_row(Text("this model", "bold"), Text(f"{run.scores['val'].loss:.4f}", "bold"))
    return table


def _print_next_commands(out: Console, run: Run) -> None:
    """Print the next commands, each beside what it does, or below it where that is too wide."""
    table = Table.grid(padding=(0, 3, 0, 0))
    commands = NEXT_OF_EXAMPLES if run.kind == "examples" else NEXT
    for number, (verb, what) in enumerate(commands.items()):
        title = "" if number else "Next:"
        table.add_row(Text(title, "dim"), command(verb, run.path), Text(what, "dim"))
    gaps = len("Next:") + 2 * 3
    width = gaps + cell_len(command("report", run.path)) + max(map(len, commands.values()))
    if out.soft_wrap or width <= out.width:
        out.print(table)
        return
    for verb, what in commands.items():
        out.print(Text(f"To {what}:", "dim"))
        out.print(Text(command(verb, run.path)), soft_wrap=True)
