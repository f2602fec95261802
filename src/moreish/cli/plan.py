"""`moreish plan`."""

from typing import Annotated

import typer

from moreish.cli.base import (
    Clean,
    Dedup,
    Json,
    MinCount,
    Nfc,
    Tokenizer,
    VocabSize,
    app,
    print_json,
)


@app.command()
def plan(
    source: Annotated[
        str, typer.Argument(help="A built-in data set, a file, or a folder of text files.")
    ] = "names",
    minutes: Annotated[float | None, typer.Option(help="There are so many (1).")] = None,
    steps: Annotated[int | None, typer.Option(help="… or this many steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="… or this often over the data.")] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="lines (each an item) or text; else guessed.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="seeded or lecture (seeded).")] = None,
    tokenizer: Tokenizer = None,
    vocab_size: VocabSize = None,
    encoding: Annotated[str | None, typer.Option(help="Of the source (utf-8).")] = None,
    dedup: Dedup = False,
    nfc: Nfc = False,
    clean: Clean = False,
    min_count: MinCount = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any setting of the training."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What train would do, and why: a recipe for --config, without training."""
    from moreish import api
    from moreish.settings import from_assignments, to_toml

    advice = api.plan(
        source,
        minutes=minutes,
        steps=steps,
        epochs=epochs,
        kind=kind,
        split=split,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        encoding=encoding,
        dedup=dedup or None,
        nfc=nfc or None,
        clean=clean or None,
        min_count=min_count,
        settings=from_assignments(settings or []),
    )
    recipe = advice.config.model_dump(mode="json", exclude_none=True)
    if as_json:
        print_json({"reasons": advice.reasons, "recipe": recipe})
        return
    for reason in advice.reasons:
        typer.echo(f"# {reason}")
    typer.echo(to_toml(recipe))
