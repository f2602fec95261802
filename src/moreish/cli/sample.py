"""`moreish sample`."""

import sys
from typing import Annotated, Any

import typer

from moreish.cli.base import Json, RunPath, app, print_json


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
    unique: Annotated[bool, typer.Option("--unique", help="No text twice.")] = False,
    unknown: Annotated[
        str, typer.Option(help="Characters of the prompt that the model never saw: error or drop.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Write more: new items of a list, or running text that streams in."""
    from moreish import api
    from moreish.console import visible

    run = api.load(path)
    on_terminal = sys.stdout.isatty()
    options: dict[str, Any] = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "unknown": unknown,
    }
    n = n if n is not None else (10 if run.kind == "lines" else 1)
    if run.kind == "text" and n == 1 and not (new_only or unique or as_json):
        for piece in run.stream(**options):
            sys.stdout.write(visible(piece) if on_terminal else piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = run.sample(n, new_only=new_only, unique=unique, **options)
    if as_json:
        print_json({"run": str(run.path), "samples": texts})
        return
    separator = "\n" if run.kind == "lines" else "\n\n---\n\n"
    written = separator.join(texts) + "\n"
    sys.stdout.write(visible(written) if on_terminal else written)
