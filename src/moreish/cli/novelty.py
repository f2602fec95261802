"""`moreish novelty`."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from typer import Option

from moreish.cli.base import Json, RunPath, app, print_json, working
from moreish.errors import MoreishError
from moreish.utils.text import plural

if TYPE_CHECKING:
    from moreish.evaluate import TextNovelty
    from moreish.runs import Run

LONG_OVERLAP = 50
"""Characters in one piece from which running text is copied rather than alike by chance."""

MAX_ROWS = 10
"""Samples that are shown of running text."""


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
    from moreish.ui import console, novelty_table, overlap_table

    run = api.load(path)
    with working("Searching the training data"):
        found = run.novelty(run.sample(n, temperature=temperature, seed=seed))
    known = sum(text.known for text in found) / len(found)
    overlaps = [len(text.overlap) for text in found]
    long = sum(length >= LONG_OVERLAP for length in overlaps) / len(found)
    mean, longest = sum(overlaps) / len(overlaps), max(overlaps)
    if as_json:
        print_json(
            run=run.path,
            samples=found,
            known_share=known,
            long_share=long,
            mean_overlap=mean,
            longest_overlap=longest,
        )
        return
    if run.kind == "lines":
        console().print(novelty_table(found))
        summary = f"{known:.0%} of {plural(len(found), 'sample')} are in the training data."
    else:
        shown = sorted(found, key=lambda text: -len(text.overlap))[:MAX_ROWS]
        console().print(overlap_table(shown, _places(run, shown)))
        summary = (
            f"{long:.0%} of {plural(len(found), 'sample')} copy {LONG_OVERLAP} characters or more "
            "in one piece."
        )
    console().print(
        f"\n{summary} Longest copied span: {mean:.1f} characters on average, {longest} at most."
    )


def _places(run: "Run", texts: list["TextNovelty"]) -> list[str]:
    """Return where the copied spans are: in the files that the run was trained on, if these still
    have them, or else the line of the training text, whose lines are those of all files."""
    from moreish.data import find_lines, read_corpus

    data = run.config.data
    places = [""] * len(texts)
    with suppress(MoreishError, OSError):  # the source is prepared data, or is there no more
        corpus = read_corpus(
            data.source,
            run.kind,
            data.encoding,
            column=data.column,
            separator=data.separator,
            count_distinct=False,
        )
        places = find_lines(corpus, [text.overlap for text in texts])
    return [
        place or f"training line {text.place:,}" for place, text in zip(places, texts, strict=True)
    ]
