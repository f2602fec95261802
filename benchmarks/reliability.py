"""Writes docs/reliability.md from the counts that the tests record.

    make proofs

Each test of a guarantee records how often it was tested. The records are summed in
benchmarks/results/reliability.json, from which the page is generated. `--check` only reports if the
page matches the results. Without the records of the soak tests no page is written, unless
`--without-soak` is given.
"""

import argparse
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moreish.runs.record import library_versions, machine_info

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
MUTATION = ROOT / "benchmarks" / "results" / "mutation.json"
PAGE = ROOT / "docs" / "reliability.md"

SOAK = {"training, 1000 times kill -9"}
"""Records that only the soak tests write (`make soak`)."""

PROMISES = """Exact resume
A training run that is cut at any step and resumed ends with the bits of one that never was:
    weights,
optimizer, log and samples, on the same machine with as many threads. Where that cannot be, it is
said why, and `--inexact` goes on all the same.

No lost checkpoint
Whatever write, flush or rename fails, and whenever the process is killed or the power goes: the
newest checkpoint that was whole is still there, and is the one resumed.

No code from data
Nothing is unpickled. A damaged or malicious file is refused within a second, in bounded memory, in
one line.

No silent divergence
A loss or a gradient that is not finite never reaches the weights. Such steps are left out; after
three in a row training goes back to its last checkpoint and on at a third of the rate; after three
times it stops, and names step, batch and layer.

Honest numbers
Losses are of whole splits and do not depend on how they are batched. No item stands on two sides of
a split, unless the lecture's was asked for. Evaluations of the test split are counted.

Mismatch is refused
Tokenizer, data, split, weights and checkpoints carry hashes; the wrong one is named.

Memory and space are asked for first
A training run that will not fit is not begun; what would fit is said.

One training run in a folder
A second one is refused; the lock goes with the process that held it.

No traceback
Whatever text, file or setting it is given: Moreish takes it, or says in one line what is wrong.
"""


def page(results: dict[str, Any]) -> str:
    where = f"with PyTorch {results['versions']['torch']} on {results['machine']['system']}"
    made = f"Made by the tests (`make proofs`), {results['made'][:10]}, {where}."
    if missing(results):
        made += " Without the long proofs."
    lines = ["# What Moreish promises, and how that was tested", "", made]
    for number, text in enumerate(PROMISES.strip().split("\n\n"), 1):
        title, _, promise = text.partition("\n")
        proofs = [proof for proof in results["proofs"] if proof["promise"] == number]
        lines += ["", f"## {number}. {title}", "", promise]
        if proofs:
            lines += ["", "| put to the proof | how often |", "|---|---|"]
        for proof in sorted(proofs, key=lambda proof: proof["what"]):
            counts = ", ".join(f"{count:,} {what}" for what, count in proof["counts"].items())
            lines.append(f"| {proof['what']} | {counts} |")
    return "\n".join([*lines, *tests_of_tests()]) + "\n"


def tests_of_tests() -> list[str]:
    """Return the results of benchmarks/mutation.py."""
    areas = json.loads(MUTATION.read_text("utf-8")) if MUTATION.exists() else {}
    if not areas:
        return []
    rows = [
        f"| {area} | {found['coverage']:.0%} | {found['noticed']} of {found['mutants']} "
        f"({found['noticed'] / found['mutants']:.0%}) |"
        for area, found in areas.items()
    ]
    return [
        "",
        "## The tests, put to the test",
        "",
        "Small mistakes (`<` for `<=`, a number that is one more, a call left out …) are put into",
        "the code that must not be wrong, one at a time, and its tests are run (`python",
        "benchmarks/mutation.py`, a fixed random choice). Those that no test noticed are listed in",
        "benchmarks/results/mutation.json.",
        "",
        "| code | lines and branches reached | mistakes noticed |",
        "|---|---|---|",
        *rows,
    ]


def missing(results: dict[str, Any]) -> list[str]:
    """Return the missing records of the soak tests."""
    return sorted(SOAK - {proof["what"] for proof in results["proofs"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("proofs", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--without-soak", action="store_true")
    options = parser.parse_args()
    if options.proofs is not None:
        found = [json.loads(line) for line in options.proofs.read_text("utf-8").splitlines()]
        summed: dict[tuple[int, str], Counter[str]] = {}
        for proof in found:
            counts = summed.setdefault((proof["promise"], proof["what"]), Counter())
            counts.update(proof["counts"])
        results = {
            "proofs": [
                {"promise": promise, "what": what, "counts": dict(counts)}
                for (promise, what), counts in sorted(summed.items())
            ],
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine_info(),
            "versions": library_versions(),
        }
    else:
        results = json.loads(RESULTS.read_text("utf-8"))
    gone = missing(results)
    if gone and not (options.check or options.without_soak):
        print(
            f"not in the record: {', '.join(gone)}. `make proofs` runs the long proofs too; a page "
            "without them: --without-soak",
            file=sys.stderr,
        )
        sys.exit(2)
    made = page(results)
    if options.check:
        same = PAGE.read_text("utf-8") == made
        sys.exit(
            0 if same else f"{PAGE.name} is not what the results say: benchmarks/reliability.py"
        )
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    PAGE.write_text(made, "utf-8")


if __name__ == "__main__":
    main()
