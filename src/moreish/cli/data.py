"""`moreish data list|show|get`."""

import typer

from moreish.cli.base import Json, app, print_json

data_app = typer.Typer(help="The built-in data sets: list, show, get.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The catalog, and what of it is on this machine."""
    from moreish.data import CATALOG, is_here

    if as_json:
        entries = [{"name": e.name, "title": e.title, "here": is_here(e)} for e in CATALOG.values()]
        print_json({"data": entries})
        return
    for entry in CATALOG.values():
        here = "" if is_here(entry) else "  (fetched when needed)"
        typer.echo(f"{entry.name:<15}{entry.title}{here}")


@data_app.command("show")
def data_show(name: str, as_json: Json = False) -> None:
    """One data set: what it is, where it comes from, under which licence."""
    from moreish.data import find, is_here
    from moreish.utils.download import cache_path

    entry = find(name)
    facts = {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "source": entry.source,
        "address": entry.url,
        "licence": entry.licence,
        "sha256": entry.sha256,
        "here": is_here(entry),
        "cache": None if entry.url is None else str(cache_path(entry)),
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if value is not None:
            typer.echo(f"{key:<9}{'yes' if value is True else 'no' if value is False else value}")


@data_app.command("get")
def data_get(name: str, as_json: Json = False) -> None:
    """Fetch a data set now, so that it is here without a network later."""
    from moreish.data import find, load, place

    entry = find(name)
    text = load(name)
    where = str(place(entry) or "inside the package")
    if as_json:
        print_json({"name": name, "characters": len(text), "where": where})
        return
    typer.echo(f"{name}: {len(text):,} characters, {where}")
