"""`moreish export`."""

from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import Json, RunPath, app, print_json


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The new folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="hf (Hugging Face's transformers), gguf (llama.cpp and what is made with it) or "
            "onnx (ONNX Runtime)."
        ),
    ] = "hf",
    licence: Annotated[str, typer.Option(help="For the model card.")] = "unknown",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the export at --out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a run to another program, checked there."""
    from moreish import api

    found = api.export(api.load(run), out, to=to, licence=licence, overwrite=overwrite)
    if as_json:
        print_json(
            {
                "path": str(found.path),
                "program": found.program,
                "kind": found.kind,
                "logit_difference": found.logit_difference,
                "compared": found.compared,
                "tokens_alike": found.tokens_alike,
                "ties": found.ties,
            }
        )
        return
    ties = f", {found.ties} of them ties" if found.ties else ""
    typer.echo(
        f"{found.path}: a model of the kind {found.kind}. Checked with {found.program}: "
        f"{found.compared} differ by {found.logit_difference:.1g} at most, {found.tokens_alike} "
        f"tokens written alike{ties}. How to use it: {found.path / 'README.md'}"
    )
