"""`moreish import pt|hf`."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from moreish.cli.base import Json, Overwrite, app, print_json
from moreish.errors import command
from moreish.utils.files import user_path

import_app = typer.Typer(help="Import models of other programs: hf, pt.", no_args_is_help=True)
app.add_typer(import_app, name="import")


@import_app.command("pt")
def import_pt(
    path: Annotated[Path, Argument(metavar="FILE", help="File written by torch.save.")],
    out: Annotated[Path, Option(help="Folder to create.")],
    trust: Annotated[
        bool, Option("--trust", help="Run the code in the file; only for files that you trust.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert the tensors of a PyTorch file (.pt, .pth, .ckpt) to safetensors. Code in the file is
    not run, except with --trust."""
    from moreish import convert

    if trust:
        typer.echo(
            f"Running the code in {path} with your permissions: it can read your files and use the "
            "network.",
            err=True,
        )
    imported = convert.import_pt(user_path(path), user_path(out), trusted=trust)
    if as_json:
        print_json(**vars(imported))
        return
    typer.echo(f"{imported.weights}: {convert.describe_import(imported)}")


@import_app.command("hf")
def import_hf(
    path: Annotated[
        str,
        Argument(
            metavar="FOLDER", help="Folder of a GPT-2 or Llama model, or its name on the hub."
        ),
    ],
    out: Annotated[Path, Option(help="Run folder to create.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import a GPT-2 or Llama model of Hugging Face's transformers (safetensors, byte-level BPE) as
    a run."""
    from moreish import api

    run = api.import_hf(path, out=out, overwrite=overwrite)
    model = run.config.model.model_dump()
    if as_json:
        print_json(run=run.path, parameters=run.record.parameters, model=model)
        return
    typer.echo(
        f"{run.path}: a GPT of {run.record.parameters:,} parameters, {model['layers']} layers, "
        f"width {model['width']}, context {model['context']:,}\n"
        f"Next: {command('sample', run.path)}"
    )
