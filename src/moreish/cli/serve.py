"""`moreish serve`."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from moreish.cli.base import app
from moreish.errors import MoreishError


@app.command()
def serve(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN…", help="Run folders, e.g. runs/names-gpt.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MOREISH_TOKEN", help="Whoever asks has to know it (or in MOREISH_TOKEN)."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of this server, as in its address."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without a token.")
    ] = False,
    slots: Annotated[
        int, typer.Option(help="Texts that a model writes at a time.", min=1, max=1024)
    ] = 16,
    home: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where what is trained from the page goes.")
    ] = Path("runs"),
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Whether the page may train.")
    ] = True,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="See docs/serving.md, e.g. max_tokens=1000."),
    ] = None,
) -> None:
    """A page to play with models, and an API as OpenAI's clients speak it."""
    from moreish.settings import from_assignments
    from moreish.ui import console

    try:
        from moreish.serve import Limits, Service
    except ImportError as error:
        raise MoreishError(
            f"serving needs a library ({error.name}): pip install 'moreish[serve]'"
        ) from None
    if not paths and (not training or insecure):
        raise MoreishError("name a run folder: moreish serve runs/…")
    service = Service(
        paths or [],
        host=host,
        port=port,
        token=token,
        hosts=allow_host or [],
        insecure=insecure,
        slots=slots,
        limits=Limits.parse(from_assignments(limit or []), "limit"),
        home=home.expanduser() if training and not insecure else None,
    )
    out = console()
    for served in service.registry:
        out.print(f"{served.name}: {served.run.config.model.name}")
        if served.engine.alone:
            out.print(
                "  Its texts are written one by one: on this machine they would depend on each "
                "other in the last digits."
            )
    out.print(f"Open {service.url} (Ctrl-C stops)")
    with suppress(KeyboardInterrupt):  # the way to stop it
        service.run()
    out.print("Stopped.")
