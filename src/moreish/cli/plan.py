"""`moreish plan`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer import Option

from moreish.cli.base import Json, Recipe, Set, Sources, app, print_json, read_sources, takes_flags
from moreish.options import TrainOptions, names_of


@app.command()
@takes_flags(*names_of(TrainOptions))
def plan(
    sources: Sources = None,
    settings: Set = None,
    config: Recipe = None,
    gpus: Annotated[
        int | None,
        Option(help="Number of GPUs to estimate for, with --config or --model (default 1)."),
    ] = None,
    gpu: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="GPU to estimate for: h100, a100, … or its peak in TFLOP/s (default: this one).",
        ),
    ] = None,
    mfu: Annotated[
        float | None,
        Option(metavar="FRACTION", help="Fraction of peak FLOP/s to assume (default 0.3)."),
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Show the recipe that train would choose, or the compute, memory and hours that a chosen
    model (--model, --config) needs."""
    from rich.text import Text

    from moreish import api
    from moreish.planning import Plan, format_estimate
    from moreish.settings import from_assignments, to_toml
    from moreish.ui import console, print_indented

    found = api.plan(
        **read_sources(sources),
        settings=from_assignments(settings or []),
        config=config,
        gpus=gpus,
        gpu=gpu,
        mfu=mfu,
        **options,
    )
    recipe = found.config.model_dump(mode="json", exclude_none=True)
    if not isinstance(found, Plan):
        if as_json:
            estimate = asdict(found)
            del estimate["config"]
            for name in ("ddp", "fsdp"):
                if memory := getattr(found, name):
                    estimate[name]["total"] = memory.total  # in bytes
            print_json(recipe=recipe, estimate=estimate)
        else:
            typer.echo("\n".join(format_estimate(found)))
        return
    if as_json:
        print_json(reasons=found.reasons, recipe=recipe)
        return
    for reason in found.reasons:
        print_indented(console(), Text("# "), Text(reason), repeat=True)
    typer.echo(to_toml(recipe))
