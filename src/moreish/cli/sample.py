"""`moreish sample`."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

from typer import Option

from moreish.cli.base import Json, RunPath, app, print_json
from moreish.errors import MoreishError, visible


@app.command()
def sample(
    path: RunPath,
    prompt: Annotated[str, Option(help="Start of every text.")] = "",
    n: Annotated[
        int | None, Option("-n", help="Number of texts (default: 10 items, or 1 running text).")
    ] = None,
    max_tokens: Annotated[
        int | None, Option(help="Maximum number of tokens per text (default: set by the data).")
    ] = None,
    temperature: Annotated[
        float, Option(help="Sampling temperature; 0 always takes the most likely token.")
    ] = 1.0,
    top_k: Annotated[int | None, Option(help="Sample from the k most likely tokens only.")] = None,
    top_p: Annotated[
        float | None,
        Option(help="Sample from the most likely tokens whose probabilities add up to p."),
    ] = None,
    seed: Annotated[int, Option(help="Random seed; the same seed gives the same texts.")] = 0,
    new_only: Annotated[
        bool, Option("--new-only", help="Leave out texts that are in the data.")
    ] = False,
    starts: Annotated[str | None, Option(help="Start of every item; the same as --prompt.")] = None,
    ends: Annotated[str | None, Option(help="End of every item.")] = None,
    contains: Annotated[str | None, Option(help="Text that every item contains.")] = None,
    regex: Annotated[
        str | None, Option(help="Regular expression that every item matches as a whole.")
    ] = None,
    length: Annotated[
        str | None,
        Option(metavar="A..B", help="Length of every item in characters, e.g. 5, 3..7, 3.."),
    ] = None,
    max_overlap: Annotated[
        int | None,
        Option(help="Maximum number of consecutive characters copied from the training data."),
    ] = None,
    rank: Annotated[str | None, Option(help="Sort the texts by likelihood or by novelty.")] = None,
    unique: Annotated[bool, Option("--unique", help="Leave out duplicate texts.")] = False,
    unknown: Annotated[
        str, Option(help="What to do with unknown characters of the prompt: error or drop.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Generate new items of a list, or running text."""
    # Not from `moreish.api`: importing what trains takes longer than opening a run.
    from moreish.runs import Run

    run = Run.open(path)
    shown: Callable[[str], str] = visible if sys.stdout.isatty() else str
    if starts is not None and prompt:
        raise MoreishError("--starts and --prompt mean the same: give only one")
    options: dict[str, Any] = {
        "prompt": starts or prompt,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "unknown": unknown,
    }
    filters: dict[str, Any] = {
        "new_only": new_only,
        "unique": unique,
        "ends": ends,
        "contains": contains,
        "regex": regex,
        "length": length,
        "max_overlap": max_overlap,
        "rank": rank,
    }
    if n is None:
        n = 10 if run.kind == "lines" else 1
    is_filtered = any(value is not None and value is not False for value in filters.values())
    if run.kind == "text" and n == 1 and not is_filtered and not as_json:
        for piece in run.stream(**options):
            sys.stdout.write(shown(piece))
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    texts = run.sample(n, **filters, **options)
    if as_json:
        print_json(run=run.path, samples=texts)
        return
    if run.kind == "lines":  # one per line, even where a byte-level model writes line breaks
        written = "".join(text.replace("\n", "↵") + "\n" for text in texts)
    else:
        written = "\n\n---\n\n".join(texts) + "\n"
    sys.stdout.write(shown(written))
