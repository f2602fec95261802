"""`moreish novelty`."""

from typing import Annotated

from typer import Option

from moreish.cli.base import Json, RunPath, app, print_json


@app.command()
def novelty(
    path: RunPath,
    n: Annotated[int, Option("-n", help="Number of samples to check.")] = 100,
    temperature: Annotated[float, Option(help="Sampling temperature.")] = 1.0,
    seed: Annotated[int, Option(help="Random seed; the same seed gives the same samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Show how much of a model's output is copied from its training data."""
    from moreish import api
    from moreish.ui import console, novelty_table

    run = api.load(path)
    found = run.novelty(run.sample(n, temperature=temperature, seed=seed))
    known = sum(text.known for text in found) / len(found)
    overlaps = [len(text.overlap) for text in found]
    mean, longest = sum(overlaps) / len(overlaps), max(overlaps)
    if as_json:
        print_json(
            run=run.path,
            samples=found,
            known_share=known,
            mean_overlap=mean,
            longest_overlap=longest,
        )
        return
    console().print(novelty_table(found))
    console().print(
        f"\n{known:.0%} of {len(found)} samples are in the training data. Longest copied span: "
        f"{mean:.1f} characters on average, {longest} at most."
    )
