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
    model_license: Annotated[
        str, typer.Option("--license", "--licence", help="License that the model card names.")
    ] = "unknown",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a run for another program, and check that it computes the same there."""
    from moreish import api

    found = api.export(api.load(run), out, to=to, model_license=model_license, overwrite=overwrite)
    if as_json:
        print_json(
            {
                "path": str(found.path),
                "program": found.program,
                "kind": found.architecture,
                "logit_difference": found.parity.max_difference,
                "compared": found.quantity,
                "tokens_alike": found.parity.matching_tokens,
                "ties": found.parity.ties,
            }
        )
        return
    parity = found.parity
    ties = f", {parity.ties} of them ties" if parity.ties else ""
    typer.echo(
        f"{found.path}: {found.architecture} model. Checked with {found.program}: "
        f"{found.quantity} differ by at most {parity.max_difference:.1g}, and "
        f"{parity.matching_tokens} generated tokens are equal{ties}. "
        f"See {found.path / 'README.md'}"
    )
