"""`moreish export`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from moreish.cli.base import Json, Overwrite, RunPath, app, print_json, working


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, Option(help="Folder to create.")],
    to: Annotated[
        str | None,
        Option(
            help="Format: hf (Hugging Face transformers), gguf (llama.cpp) or onnx (ONNX Runtime) "
            "(default: hf, or onnx where hf has no such model)."
        ),
    ] = None,
    model_license: Annotated[
        str, Option("--license", "--licence", help="License that the model card names.")
    ] = "unknown",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a run for another program, and check that it computes the same there."""
    from moreish import api
    from moreish.ui import console

    out_console = console()
    opened = api.load(run)
    with working("Exporting the run and comparing what the other program computes"):
        found = api.export(opened, out, to=to, model_license=model_license, overwrite=overwrite)
    exporter, parity = found.exporter, found.parity
    if as_json:
        print_json(
            path=found.path,
            program=exporter.program,
            kind=exporter.architecture,
            logit_difference=parity.max_difference,
            compared=exporter.quantity,
            tokens_alike=parity.matching_tokens,
            ties=parity.ties,
        )
        return
    if to is None:
        out_console.print(f"Format: {found.format} ({exporter.program})")
    ties = f", {parity.ties} of them ties" if parity.ties else ""
    out_console.print(
        f"{found.path}: {exporter.architecture} model. Checked with {exporter.program}: "
        f"{exporter.quantity} differ by at most {parity.max_difference:.1g}, and "
        f"{parity.matching_tokens} generated tokens are equal{ties}. "
        f"See {found.path / 'README.md'}"
    )
