"""`moreish novelty`."""

from dataclasses import asdict
from typing import Annotated

import typer

from moreish.cli.base import Json, RunPath, app, print_json


@app.command()
def novelty(
    path: RunPath,
    n: Annotated[int, typer.Option("-n", help="Number of samples to check.")] = 100,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 1.0,
    seed: Annotated[
        int, typer.Option(help="Random seed; the same seed gives the same samples.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show how much of what a model writes is copied from its training data."""
    from moreish import api
    from moreish.ui import console, novelty_table

    run = api.load(path)
    found = run.novelty(run.sample(n, temperature=temperature, seed=seed))
    known = sum(text.known for text in found) / len(found)
    shared = [len(text.overlap) for text in found]
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "samples": [asdict(text) for text in found],
                "known_share": known,
                "mean_overlap": sum(shared) / len(shared),
                "longest_overlap": max(shared),
            }
        )
        return
    console().print(novelty_table(found))
    console().print(
        f"\n{known:.0%} of {len(found)} samples are in the training data. Longest copied span: "
        f"{sum(shared) / len(shared):.1f} characters on average, {max(shared)} at most."
    )
