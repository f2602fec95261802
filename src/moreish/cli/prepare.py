"""`moreish prepare`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moreish.cli.base import Json, app, print_json
from moreish.errors import MoreishError, command

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_EVERY = 10.0
"""Seconds between two progress lines where there is no terminal to draw a bar on."""


@app.command()
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES…",
            help="Text, .jsonl or .parquet files (also .gz, .bz2, .xz, .zst), folders, built-in "
            "data sets, or hf:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the token files.")],
    field: Annotated[
        str, typer.Option(help="Field of JSON lines, or column of Parquet files, with the text.")
    ] = "text",
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Text between the documents of a file, e.g. '<|endoftext|>'."
        ),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Character encoding of text files.")] = "utf-8",
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Tokenizer: gpt2, bpe, char, byte, word, or a tokenizer.json."
        ),
    ] = "gpt2",
    vocab_size: Annotated[
        int | None, typer.Option(metavar="N", help="Largest vocabulary that word or bpe may learn.")
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Fraction of the text for validation, and for test (default: set by the size).",
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Random seed of the split.", min=0)] = 42,
    workers: Annotated[
        int | None, typer.Option(help="Number of threads (default: one per core).", min=1)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what was prepared in the folder before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tokenize large text into files for train; run again to resume."""
    from moreish.data import PrepareConfig, SourceFormat, prepare_dataset
    from moreish.tokenizers import VocabularyLimits
    from moreish.ui import console

    order = PrepareConfig(
        sources=tuple(sources),
        source_format=SourceFormat(field=field, separator=separator, encoding=encoding),
        tokenizer=tokenizer,
        limits=VocabularyLimits(vocab_size=vocab_size),
        hold_out=hold_out,
        split_seed=split_seed,
    )
    shown = console(stderr=as_json)
    meter = Meter(shown)
    began = time.perf_counter()
    try:
        done = prepare_dataset(
            order,
            out.expanduser(),
            overwrite=overwrite,
            workers=workers,
            progress=meter,
            note=lambda text: shown.print(text, style="dim"),
        )
    except KeyboardInterrupt:
        meter.close()
        shown.print("Stopped. Run the same command to resume.")
        raise
    except OSError as error:
        reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        raise MoreishError(
            f"{reason}; when that is fixed, run the same command to resume"
        ) from None
    finally:
        meter.close()
    seconds = time.perf_counter() - began
    manifest = done.prepared.manifest
    if as_json:
        told = manifest.model_dump(mode="json", include={"tokenizer", "vocabulary", "held_out"})
        sums = {"tokens": manifest.tokens(), "sources": manifest.training_tokens()}
        print_json({"folder": str(out), "new": done.new, "seconds": seconds, **told, **sums})
        return
    for line in summary(done.prepared, new=done.new, seconds=seconds):
        shown.print(line)


def summary(prepared: Any, *, new: bool, seconds: float) -> list[str]:
    """What was written, or verified."""
    from moreish.ui import plural
    from moreish.utils.files import format_bytes

    manifest = prepared.manifest
    tokens = manifest.tokens()
    lines = []
    for source in manifest.sources:
        empty = f" ({source.empty:,} empty ones skipped)" if source.empty else ""
        lines.append(
            f"{source.name}: {plural(source.documents, 'document')}{empty}, "
            f"{format_bytes(source.bytes)} of text, "
            f"{plural(manifest.training_tokens().get(source.name, 0), 'training token')}"
        )
    split = f"{tokens['train']:,} training, {tokens['val']:,} validation, {tokens['test']:,} test"
    lines.append(f"tokens: {split}, vocabulary {manifest.vocabulary:,} ({manifest.tokenizer})")
    files = plural(len(manifest.shards), "file")
    if new:
        size = sum(source.bytes for source in manifest.sources)
        pace = f", {size / 1e6 / seconds:,.1f} MB/s" if seconds >= 1 else ""
        lines.append(f"{files} in {prepared.folder}{pace}")
    else:
        lines.append(f"Prepared before: {files} verified.")
    return [*lines, "", f"Next: {command('train', prepared.folder)}"]


class Meter:
    """Progress in bytes: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, out: Any) -> None:
        """`out`: a rich console."""
        self.out = out
        self._what = ""
        self._bar: Progress | None = None
        self._began = self._printed = (0.0, 0)

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.perf_counter()
        if what != self._what:
            self.close()
            self._what, self._began, self._printed = what, (now, done), (now, done)
        if self.out.is_terminal:
            self._draw(what, done, of, now)
        elif of and now - self._printed[0] >= PLAIN_EVERY:
            self._printed = now, done
            self.out.print(f"{what}  {done / of:.0%}  {self._facts(done, of, now)}")

    def _facts(self, done: int, of: int, now: float) -> str:
        from moreish.ui import clock

        pace = (done - self._began[1]) / max(now - self._began[0], 1e-9)
        left = f"  {clock((of - done) / pace)} left" if pace > 0 else ""
        return f"{done / 1e6:,.0f} of about {of / 1e6:,.0f} MB  {pace / 1e6:,.1f} MB/s{left}"

    def _draw(self, what: str, done: int, of: int, now: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.fields[facts]}"),
                console=self.out,
                transient=True,
            )
            self._bar.add_task(what, total=None, facts="")
            self._bar.start()
        facts = self._facts(done, of, now) if of else ""
        task = self._bar.task_ids[0]
        self._bar.update(task, description=what, completed=done, total=of or None, facts=facts)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
