"""`moreish sample`."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from moreish.cli.base import Json, RunPath, app, print_json
from moreish.errors import MoreishError


@app.command()
def sample(
    path: RunPath,
    prompt: Annotated[str, typer.Option(help="Start of every text.")] = "",
    n: Annotated[
        int | None,
        typer.Option("-n", help="Number of texts (default: 10 items, or 1 running text)."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Maximum number of tokens per text (default: set by the data)."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 always takes the most likely token.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from the k most likely tokens only.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Sample from the most likely tokens whose probabilities add up to p."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same texts.")] = 0,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="Leave out texts that are in the data.")
    ] = False,
    starts: Annotated[
        str | None, typer.Option(help="Start of every item; the same as --prompt.")
    ] = None,
    ends: Annotated[str | None, typer.Option(help="End of every item.")] = None,
    contains: Annotated[str | None, typer.Option(help="Text that every item contains.")] = None,
    regex: Annotated[
        str | None, typer.Option(help="Regular expression that every item matches as a whole.")
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(metavar="A..B", help="Length of every item in characters, e.g. 5, 3..7, 3.."),
    ] = None,
    max_overlap: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of consecutive characters copied from the training data."
        ),
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="Sort the texts by likelihood or by novelty.")
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Leave out duplicate texts.")] = False,
    unknown: Annotated[
        str,
        typer.Option(help="What to do with unknown characters of the prompt: error or drop."),
    ] = "error",
    as_json: Json = False,
) -> None:
    """Generate new items of a list, or running text."""
    from moreish.runs import (
        Run,  # without what trains and draws, which takes longer to import than a run to open
    )

    run = Run.open(path)
    shown: Callable[[str], str] = str
    if sys.stdout.isatty():
        from moreish.errors import visible

        shown = visible
    if starts is not None and prompt:
        raise MoreishError("--starts and --prompt mean the same: give only one")
    options: dict[str, Any] = {
        "prompt": prompt if starts is None else starts,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "unknown": unknown,
    }
    n = n if n is not None else (10 if run.kind == "lines" else 1)
    asked: dict[str, Any] = {
        "new_only": new_only,
        "unique": unique,
        "ends": ends,
        "contains": contains,
        "regex": regex,
        "length": length,
        "max_overlap": max_overlap,
        "rank": rank,
    }
    plain = not any(value not in (None, False) for value in asked.values())
    if run.kind == "text" and n == 1 and plain and not as_json:
        for piece in run.stream(**options):
            sys.stdout.write(shown(piece))
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = run.sample(n, **asked, **options)
    if as_json:
        print_json({"run": str(run.path), "samples": texts})
        return
    if run.kind == "lines":  # one per line, even where a byte-level model writes line breaks
        written = "".join(text.replace("\n", "↵") + "\n" for text in texts)
    else:
        written = "\n\n---\n\n".join(texts) + "\n"
    sys.stdout.write(shown(written))
