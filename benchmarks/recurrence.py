"""Whether names and places recur in samples as they do in the text.

    python benchmarks/recurrence.py RUN... --out benchmarks/results/recurrence.json

For blocks of 1,000 characters of the validation split and of samples of each run: the number of
distinct capitalized words that do not begin a sentence or a line, how often each occurs, and the
share of those of a block that also occurred in the 3,000 characters before it.
"""

import argparse
import re
from collections import Counter
from pathlib import Path
from statistics import mean

from result_files import provenance, write_results

from moreish import api

BLOCK, BEFORE = 1_000, 3_000

NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+\b")
"""A capitalized word within a sentence."""


def measure(text: str) -> dict[str, float]:
    """Return the mean of each measurement over all blocks but the first ones."""
    found = []
    for first in range(BEFORE, len(text) - BLOCK + 1, BLOCK):
        names = Counter(NAME.findall(text[first : first + BLOCK]))
        earlier = set(NAME.findall(text[first - BEFORE : first]))
        if names:
            recurring = mean(name in earlier for name in names)
            found.append((len(names), mean(names.values()), recurring))
    if not found:
        raise SystemExit(f"recurrence NOT MEASURED: no names after {BEFORE:,} characters of a text")
    titles = ("distinct_names", "occurrences_of_each", "share_that_recurs")
    columns = zip(*found, strict=True)
    return {title: mean(column) for title, column in zip(titles, columns, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for number, path in enumerate(options.runs):
        run = api.load(path)
        if number == 0:
            ids = run.split("val").ids_N[:]
            results["validation"] = measure(run.tokenizer.decode(ids))
            print("validation", results["validation"], flush=True)
        (text,) = run.sample(max_tokens=options.characters, seed=0)
        name = f"memory {getattr(run.config.model, 'memory', 0) or 0}"
        results[name] = measure(text)
        print(path, name, results[name], flush=True)
    if options.out is not None:
        write_results(options.out, {**results, **provenance()})


if __name__ == "__main__":
    main()
