"""`moreish serve`."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from moreish.cli.base import app, find_run
from moreish.errors import MoreishError
from moreish.utils.files import user_path


@app.command()
def serve(
    paths: Annotated[
        list[Path] | None,
        Argument(metavar="RUN", help="Run folders to serve, e.g. runs/names-gpt.", parser=find_run),
    ] = None,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    token: Annotated[
        str | None, Option(envvar="MOREISH_TOKEN", help="Token that every request must carry.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="Another host name of this server; may be repeated."),
    ] = None,
    insecure: Annotated[
        bool, Option("--insecure", help="Allow other machines to connect without a token.")
    ] = False,
    slots: Annotated[
        int, Option(help="Number of texts that a model generates at once.", min=1, max=1024)
    ] = 16,
    home: Annotated[
        Path,
        Option(
            metavar="FOLDER",
            help="Folder for runs that are trained from the page; its runs are served as well.",
        ),
    ] = Path("runs"),
    training: Annotated[
        bool, Option("--training/--no-training", help="Allow training from the page.")
    ] = True,
    limit: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=VALUE", help="Change a limit, e.g. max_tokens=1000 (see docs/serving.md)."
        ),
    ] = None,
) -> None:
    """Serve models: a web page, and an OpenAI-compatible API."""
    from moreish.settings import from_assignments
    from moreish.ui import console

    try:
        from moreish.serve import Limits, Service
    except ImportError as error:
        raise MoreishError(
            f"serving needs the library {error.name}: pip install 'moreish[serve]'"
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
        home=user_path(home) if training and not insecure else None,
    )
    out = console()
    for served in service.registry:
        out.print(f"{served.name}: {served.run.config.model.name}")
        if not served.engine.is_batching:
            out.print(
                "  Its texts are generated one by one: batching would change their last digits on "
                "this machine."
            )
    out.print(f"Open {service.url} (Ctrl-C to stop)")
    with suppress(KeyboardInterrupt):  # the usual way to stop
        service.run()
    out.print("Stopped.")
