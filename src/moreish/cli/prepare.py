"""`moreish prepare`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from moreish.cli.base import Json, app, os_error_message, print_json, takes_flags, unescape
from moreish.errors import MoreishError, command

if TYPE_CHECKING:
    from moreish.data import PreparedDataset


@app.command()
@takes_flags("encoding", "vocab_size")
def prepare(
    sources: Annotated[
        list[str],
        Argument(
            metavar="SOURCE",
            help="Text, .jsonl or .parquet files (also .gz, .bz2, .xz, .zst), folders, built-in "
            "data sets, or hf:NAME.",
        ),
    ],
    out: Annotated[Path, Option(metavar="FOLDER", help="Folder for the token files.")],
    field: Annotated[
        str,
        Option(
            "--column",
            "--field",
            help="Field of JSON lines, or column of Parquet files, with the text.",
        ),
    ] = "text",
    separator: Annotated[
        str | None,
        Option(metavar="TEXT", help="Text between the documents of a file, e.g. '<|endoftext|>'."),
    ] = None,
    tokenizer: Annotated[
        str,
        Option(metavar="NAME", help="Tokenizer: gpt2, bpe, char, byte, word, or a tokenizer.json."),
    ] = "gpt2",
    hold_out: Annotated[
        float | None,
        Option(
            metavar="SHARE",
            help="Fraction of the text for validation, and for test (default: set by the size).",
        ),
    ] = None,
    split_seed: Annotated[int, Option(help="Random seed of the split.", min=0)] = 42,
    workers: Annotated[
        int | None, Option(help="Number of threads (default: one per core).", min=1)
    ] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace what was prepared in the folder before.")
    ] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Tokenize large text into files for train; run the same command again to resume."""
    from moreish import api
    from moreish.ui import TrainingView, console

    shown = console(stderr=as_json)
    start = time.perf_counter()
    try:
        with TrainingView(shown) as view:
            result = api.prepare(
                sources,
                out=out,
                field=field,
                separator=separator and unescape(separator),
                tokenizer=tokenizer,
                hold_out=hold_out,
                split_seed=split_seed,
                workers=workers,
                overwrite=overwrite,
                report=view,
                **options,
            )
    except KeyboardInterrupt:
        shown.print("Stopped. Run the same command to resume.")
        raise
    except OSError as error:
        raise MoreishError(
            f"{os_error_message(error)}; when that is fixed, run the same command to resume"
        ) from None
    seconds = time.perf_counter() - start
    manifest = result.prepared.manifest
    if as_json:
        print_json(
            folder=out,
            new=result.new,
            seconds=seconds,
            **manifest.model_dump(mode="json", include={"tokenizer", "vocabulary", "held_out"}),
            tokens=manifest.tokens(),
            sources=manifest.training_tokens(),
        )
        return
    for line in summary(result.prepared, new=result.new, seconds=seconds):
        shown.print(line)


def summary(prepared: "PreparedDataset", *, new: bool, seconds: float) -> list[str]:
    """Describe what was written, or verified."""
    from moreish.utils.files import format_bytes
    from moreish.utils.text import plural

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
