"""`moreish import pt|hf`."""

from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import Json, app, print_json
from moreish.errors import command

import_app = typer.Typer(help="Models of other programs: hf, pt.", no_args_is_help=True)
app.add_typer(import_app, name="import")


@import_app.command("pt")
def import_pt(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What torch.save wrote.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Run whatever program the file holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The tensors of a PyTorch file (.pt, .pth, .ckpt), as safetensors.

    Such a file is a program that builds what was saved, and a malicious one can do anything that
    you can. Without --trust only tensors and plain values are built, in a process of its own.
    """
    from moreish.convert import describe
    from moreish.convert import import_pt as carry_out

    if trust:
        typer.echo(
            f"Whatever program {path} holds runs now, with your rights: it can read your files and "
            "use the network.",
            err=True,
        )
    imported = carry_out(path.expanduser(), out.expanduser(), trusted=trust)
    if as_json:
        print_json(
            {
                "weights": str(imported.weights),
                "tensors": imported.tensors,
                "numbers": imported.numbers,
                "about": imported.about,
                "left_out": imported.left_out,
            }
        )
        return
    typer.echo(f"{imported.weights}: {describe(imported)}")


@import_app.command("hf")
def import_hf(
    path: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Of a GPT-2 or Llama model, or its name.")
    ],
    out: Annotated[Path, typer.Option(help="The new run.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run there.")] = False,
    as_json: Json = False,
) -> None:
    """A model of Hugging Face's transformers as a run: GPT-2 or Llama, safetensors, byte-level.

    A name such as openai-community/gpt2 is fetched from the hub, where that can be reached.
    """
    from moreish import api

    run = api.import_hf(path, out=out, overwrite=overwrite)
    model = run.config.model.model_dump()
    if as_json:
        print_json({"run": str(run.path), "parameters": run.record.parameters, "model": model})
        return
    typer.echo(
        f"{run.path}: a GPT of {run.record.parameters:,} parameters, {model['layers']} layers, "
        f"width {model['width']}, context {model['context']:,}\n"
        f"More of it: {command('sample', run.path)}"
    )
