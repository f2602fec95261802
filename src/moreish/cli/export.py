"""`moreish export`."""

from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import Json, Overwrite, RunPath, app, print_json


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    to: Annotated[
        str,
        typer.Option(help="Format: hf (Hugging Face), gguf (llama.cpp) or onnx (ONNX Runtime)."),
    ] = "hf",
    licence: Annotated[str, typer.Option(help="Licence that the model card names.")] = "unknown",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a run for another program, and check that it computes the same there."""
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
        f"{found.path}: {found.kind} model. Checked with {found.program}: {found.compared} differ "
        f"by at most {found.logit_difference:.1g}, and {found.tokens_alike} generated tokens are "
        f"equal{ties}. See {found.path / 'README.md'}"
    )
