"""`moreish lr-range`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from moreish.cli.base import Json, Set, Sources, app, print_json, read_sources, takes_flags
from moreish.errors import command
from moreish.options import ModelOptions, command_words, names_of
from moreish.utils.signals import survive_hangup


@app.command(name="lr-range")
@survive_hangup()
@takes_flags(*names_of(ModelOptions))
def lr_range(
    sources: Sources = None,
    low: Annotated[
        float | None, Option(help="First learning rate (default: the model's usual one / 300).")
    ] = None,
    high: Annotated[
        float | None, Option(help="Last learning rate (default: the model's usual one x 300).")
    ] = None,
    steps: Annotated[int, Option(help="Number of learning rates to try.")] = 300,
    settings: Set = None,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="Draw the curve into an SVG file.")
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Find a learning rate: train for a few steps at increasing rates and record the loss."""
    from moreish import api
    from moreish.settings import from_assignments
    from moreish.ui import TrainingView, console, range_lines

    with TrainingView(console(stderr=True)) as view:
        found = api.lr_range(
            **read_sources(sources),
            low=low,
            high=high,
            steps=steps,
            settings=from_assignments(settings or []),
            report=view,
            **options,
        )
    if out is not None:
        api.draw_range(found, out)
    if as_json:
        print_json(
            suggested=found.suggested, valley=found.valley, rates=found.rates, losses=found.losses
        )
        return
    for line in range_lines(found):
        console().print(line)
    words = command_words(options)
    for setting in [*(settings or []), f"train.lr={found.suggested:.2g}"]:
        words += ["--set", setting]
    console().print(f"\nNext: {command('train', *(sources or ['names']), *words)}")
