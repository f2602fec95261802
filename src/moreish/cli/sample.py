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
    prompt: Annotated[str, typer.Option(help="How each text begins.")] = "",
    n: Annotated[
        int | None, typer.Option("-n", help="How many (10 items, or 1 running text).")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The most tokens to draw for each.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="0: always the likeliest; 1: as learned.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="… or from the likeliest share p.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same output.")] = 0,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="Nothing that stands in the data.")
    ] = False,
    starts: Annotated[str | None, typer.Option(help="Items that begin so; --prompt.")] = None,
    ends: Annotated[str | None, typer.Option(help="Items that end so.")] = None,
    contains: Annotated[str | None, typer.Option(help="Items with this in them.")] = None,
    regex: Annotated[str | None, typer.Option(help="Items that match it whole.")] = None,
    length: Annotated[
        str | None,
        typer.Option(metavar="A..B", help="Items of so many characters: 5, 3..7, 3.."),
    ] = None,
    max_overlap: Annotated[
        int | None,
        typer.Option(help="Nothing with more characters in a row from the training data."),
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="likelihood or novelty: the best of it first.")
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="No text twice.")] = False,
    unknown: Annotated[
        str, typer.Option(help="Characters of the prompt that the model never saw: error or drop.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Write more: new items of a list, or running text that streams in."""
    from moreish.runs import (
        Run,  # what trains and draws would take longer to import than to open it
    )

    run = Run.open(path)
    shown: Callable[[str], str] = str
    if sys.stdout.isatty():
        from moreish.errors import visible

        shown = visible
    if starts is not None and prompt:
        raise MoreishError("--starts and --prompt are the same: give one of them")
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
    if run.kind == "lines":  # one a line, whatever a model of bytes may write
        written = "".join(text.replace("\n", "↵") + "\n" for text in texts)
    else:
        written = "\n\n---\n\n".join(texts) + "\n"
    sys.stdout.write(shown(written))
