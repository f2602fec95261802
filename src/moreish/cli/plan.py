"""`moreish plan`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moreish.cli.base import (
    Clean,
    Dedup,
    Json,
    MinCount,
    Nfc,
    Tokenizer,
    VocabSize,
    Weight,
    app,
    print_json,
    shares,
)

if TYPE_CHECKING:
    from moreish.planning import Estimate


@app.command()
def plan(
    source: Annotated[
        str | None,
        typer.Argument(help="A built-in data set, a file, or a folder of text files (names)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What this one will take, instead of choosing one (auto).")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="There are so many (1).")] = None,
    steps: Annotated[int | None, typer.Option(help="… or this many steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="… or this often over the data.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the model sees.")] = None,
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
    weight: Weight = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any setting of the training."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A recipe (TOML): what it will take; it needs no data.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="… on so many (1).")] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="… of these: h100, a100 …, or a peak in TFLOP/s."),
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(metavar="SHARE", help="… that this much of the peak is used of.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What train would do, and why: a recipe for --config. Or, of a recipe or a --model, what the
    training will take: operations, memory, hours."""
    from moreish import api
    from moreish.planning import Advice, lines_of
    from moreish.settings import from_assignments, to_toml

    found = api.plan(
        source,
        model=model,
        minutes=minutes,
        steps=steps,
        epochs=epochs,
        context=context,
        kind=kind,
        split=split,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        encoding=encoding,
        dedup=dedup or None,
        nfc=nfc or None,
        clean=clean or None,
        min_count=min_count,
        weights=shares(weight),
        settings=from_assignments(settings or []),
        config=config,
        gpus=gpus,
        gpu=gpu,
        mfu=mfu,
    )
    recipe = found.config.model_dump(mode="json", exclude_none=True)
    if not isinstance(found, Advice):
        if as_json:
            print_json({"recipe": recipe, "estimate": as_tree(found)})
        else:
            typer.echo("\n".join(lines_of(found)))
        return
    if as_json:
        print_json({"reasons": found.reasons, "recipe": recipe})
        return
    for reason in found.reasons:
        typer.echo(f"# {reason}")
    typer.echo(to_toml(recipe))


def as_tree(found: "Estimate") -> dict[str, Any]:
    """An estimate as JSON; sizes in bytes."""
    tree = {k: v for k, v in asdict(found).items() if k != "config"}
    for kind, memory in (("ddp", found.ddp), ("fsdp", found.fsdp)):
        if memory is not None:
            tree[kind]["total"] = memory.total
    return tree
