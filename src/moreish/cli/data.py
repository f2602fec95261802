"""`moreish data list|show|get`."""

from typing import Annotated

import typer

from moreish.cli.base import Json, app, print_json

data_app = typer.Typer(help="List, show or download the built-in data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DatasetName = Annotated[
    str, typer.Argument(metavar="NAME", help="A built-in data set; moreish data list shows them.")
]


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the built-in data sets, and which of them are on this machine."""
    from moreish.data import CATALOG, is_available_offline

    entries = [
        {"name": e.name, "title": e.title, "here": is_available_offline(e)}
        for e in CATALOG.values()
    ]
    if as_json:
        print_json(data=entries)
        return
    for entry in entries:
        here = "" if entry["here"] else "  (downloaded when needed)"
        typer.echo(f"{entry['name']:<15}{entry['title']}{here}")


@data_app.command("show")
def data_show(name: DatasetName, as_json: Json = False) -> None:
    """Show the title, source, license and location of a data set."""
    from moreish.data import find_dataset, is_available_offline
    from moreish.utils.download import cache_path

    entry = find_dataset(name)
    facts = {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "source": entry.source,
        "address": entry.url,
        "license": entry.license,
        "sha256": entry.sha256,
        "here": is_available_offline(entry),
        "cache": None if entry.url is None else cache_path(entry),
    }
    if as_json:
        print_json(**facts)
        return
    for key, value in facts.items():
        if value is not None:
            typer.echo(f"{key:<9}{'yes' if value is True else 'no' if value is False else value}")


@data_app.command("get")
def data_get(name: DatasetName, as_json: Json = False) -> None:
    """Download a data set now, for use without a network later."""
    from moreish.data import find_dataset, load_dataset, local_path

    entry = find_dataset(name)
    text = load_dataset(name)
    where = str(local_path(entry) or "inside the package")
    if as_json:
        print_json(name=name, characters=len(text), where=where)
        return
    typer.echo(f"{name}: {len(text):,} characters, {where}")
