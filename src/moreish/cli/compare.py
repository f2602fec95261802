"""`moreish compare`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from moreish.cli.base import Json, app, find_run, print_json

MANY_COMPARISONS = 5
"""Number of comparisons above which the output warns about false positives."""


@app.command(name="compare")
def compare_verb(
    paths: Annotated[
        list[Path], Argument(metavar="RUN", help="Two or more run folders.", parser=find_run)
    ],
    test: Annotated[
        bool, Option("--test", help="Compare on the test split; every such evaluation is counted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare runs with confidence intervals; runs that differ only in the seed form one group."""
    from moreish import api
    from moreish.runs import Run, compare_predictions
    from moreish.ui import TrainingView, comparison_table, console

    with TrainingView(console(stderr=True)) as view:
        groups, comparisons = api.compare(*paths, test=test, report=view)
    predictions = compare_predictions([Run.open(path) for path in paths], "test" if test else "val")
    if as_json:
        print_json(
            groups=[
                {"runs": [run.path for run in g.runs], "losses": g.losses, "loss": g.loss}
                for g in groups
            ],
            comparisons=[
                {
                    "better": c.better,
                    "worse": c.worse,
                    "difference": c.difference,
                    "stderr": c.stderr,
                    "interval": [c.low, c.high],
                    "real": c.is_significant,
                    "sentence": c.sentence(),
                }
                for c in comparisons
            ],
            predictions=[
                {
                    "better": c.better,
                    "worse": c.worse,
                    "shares": c.shares,
                    "stderr": c.stderr,
                    "examples": c.examples,
                    "sentence": c.sentence(),
                }
                for c in predictions
            ],
        )
        return
    console().print(comparison_table(groups))
    console().print()
    for comparison in comparisons:
        console().print(comparison.sentence())
    for found in predictions:
        console().print(found.sentence())
    if len(comparisons) > MANY_COMPARISONS:
        console().print(
            f"\n{len(comparisons)} comparisons at 95 %: about one in twenty equal pairs will look "
            "different by chance.",
            style="dim",
        )
