"""Writes docs/reliability.md from the counts that the tests record.

    make proofs

Each test of a guarantee records how often it was run. The records are summed in
benchmarks/results/reliability.json, from which the page is generated. `--check` only reports
whether the page matches the results. Without the records of the soak tests no page is written,
unless `--without-soak` is given. `--update` replaces only the counts of the tests in the records:

    MOREISH_SOAK=1 MOREISH_PROOFS=records.jsonl python -m pytest tests/integration/test_X.py
    python benchmarks/reliability.py --update records.jsonl
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

SOAK = {"training killed with SIGKILL 1000 times"}
"""Records that only the soak tests write (`make soak`)."""

GUARANTEES = """Exact resume
A run that is interrupted at any step and resumed has the same weights, optimizer state, log and
samples, bit for bit, as an uninterrupted run on the same machine with the same number of threads.
The same holds if its process is killed at any file operation, from the start of the run to its
final scoring, and once more at any file operation of resuming. Where this is not possible,
`--resume` reports the reason; `--inexact` resumes nevertheless.

No lost checkpoint
If a write, flush or rename fails, the process is killed or the power fails at any moment, the
newest complete checkpoint remains, and training resumes from it. In the table, EIO is a failed
operation, ENOSPC a full disk, and a short write stores only part of the data; kills happen before
or after a file operation, and power failures lose what was not flushed.

No code execution from data
Nothing is unpickled. A damaged or malicious file is rejected within a second, with bounded memory
and a message of one line.

No silent divergence
Non-finite losses and gradients never reach the weights: such steps are skipped. After three
skipped steps in a row, training is rolled back to the last checkpoint and continues with a third
of the learning rate. After three rollbacks it stops, and the error names the step, batch and
layer.

Correct losses
Losses are computed over whole splits and do not depend on the batch size. No item is in two
splits, unless the lecture's split is requested. Evaluations of the test split are counted.

Mismatched files are rejected
The tokenizer, data, split, weights and checkpoints are identified by hashes; an error names the
file that does not match.

Memory and disk space are checked first
A run that does not fit into memory or on the disk does not start; the error suggests settings
that fit.

One process per run folder
A second process is rejected; the lock is released when the process that holds it ends.

No traceback
Any text, file, setting or command-line argument is either accepted or rejected with a message of
one line. The server answers any bytes: no method, path, header or body causes an internal error.
"""


def page(results: dict[str, Any]) -> str:
    where = f"with PyTorch {results['versions']['torch']} on {results['machine']['system']}"
    made = f"Generated from test results (`make proofs`), {results['made'][:10]}, {where}."
    if "updated" in results:
        made += f" Single tests were repeated on {results['updated'][:10]}."
    if missing(results):
        made += " The soak tests are not included."
    lines = ["# Guarantees and their tests", "", made]
    for number, text in enumerate(GUARANTEES.strip().split("\n\n"), 1):
        title, _, guarantee = text.partition("\n")
        tests = [entry for entry in results["tests"] if entry["guarantee"] == number]
        lines += ["", f"## {number}. {title}", "", guarantee]
        if tests:
            lines += ["", "| test | counts |", "|---|---|"]
        for entry in sorted(tests, key=lambda entry: entry["test"]):
            counts = ", ".join(count_text(*item) for item in entry["counts"].items())
            lines.append(f"| {entry['test']} | {counts} |")
    return "\n".join([*lines, *mutation_results()]) + "\n"


def count_text(name: str, count: int) -> str:
    """Return a count with its name, which is singular for 1."""
    return f"{count:,} {name.removesuffix('s') if count == 1 else name}"


def mutation_results() -> list[str]:
    """Return the results of benchmarks/mutation.py."""
    areas = json.loads(MUTATION.read_text("utf-8")) if MUTATION.exists() else {}
    if not areas:
        return []
    rows = [
        f"| {area} | {found['coverage']:.0%} | {found['detected']} of {found['mutants']} "
        f"({found['detected'] / found['mutants']:.0%}) |"
        for area, found in areas.items()
    ]
    return [
        "",
        "## Mutation tests",
        "",
        "A mutant is a module with one small mistake (`<` for `<=`, a number that is one too",
        "large, a call that is left out). A fixed random sample of mutants of critical code is",
        "tested, one at a time, with `python benchmarks/mutation.py`. Mutants that no test detects",
        "are listed in benchmarks/results/mutation.json.",
        "",
        "| code | line and branch coverage | mutants detected |",
        "|---|---|---|",
        *rows,
    ]


def missing(results: dict[str, Any]) -> list[str]:
    """Return the missing records of the soak tests."""
    return sorted(SOAK - {entry["test"] for entry in results["tests"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--without-soak", action="store_true")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    if options.records is not None:
        summed: dict[tuple[int, str], Counter[str]] = {}
        for line in options.records.read_text("utf-8").splitlines():
            entry = json.loads(line)
            counts = summed.setdefault((entry["guarantee"], entry["test"]), Counter())
            counts.update(entry["counts"])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        results = {"made": now, "machine": machine_info(), "versions": library_versions()}
        if options.update:
            results = {**json.loads(RESULTS.read_text("utf-8")), "updated": now}
            for entry in results["tests"]:
                summed.setdefault((entry["guarantee"], entry["test"]), Counter(entry["counts"]))
        results["tests"] = [
            {"guarantee": guarantee, "test": test, "counts": dict(counts)}
            for (guarantee, test), counts in sorted(summed.items())
        ]
    else:
        results = json.loads(RESULTS.read_text("utf-8"))
    gone = missing(results)
    if gone and not (options.check or options.without_soak):
        print(
            f"missing records: {', '.join(gone)}; run `make proofs`, which includes the soak "
            "tests, or omit them with --without-soak",
            file=sys.stderr,
        )
        sys.exit(2)
    made = page(results)
    if options.check:
        same = PAGE.read_text("utf-8") == made
        sys.exit(
            0 if same else f"{PAGE.name} does not match the results: run benchmarks/reliability.py"
        )
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    PAGE.write_text(made, "utf-8")


if __name__ == "__main__":
    main()
