"""Arithmetic: whole commands, from start to the exact score on held-out problems.

    python benchmarks/tasks.py [--only NAME ...] [--seeds 1]

Seconds are those of whole processes. The exact match is that on the validation problems, 10,000 or
all that there are; none of them is a training problem.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from result_files import provenance, read_results, write_results

ADDITION = ["task:addition"]
CALCULATOR = ["task:calculator"]
CASES: dict[str, dict[str, Any]] = {
    "addition-3": {
        "arguments": [*ADDITION, "--set", "task.digits=3", "--minutes", "0.35"],
        "what": "two 3-digit numbers, the target from the units up",
        "goal": "100 % in 30 s",
    },
    "addition-3-plain": {
        "arguments": [
            *ADDITION, "--set", "task.digits=3", "--set", "task.reverse=false", "--minutes", "0.35",
        ],
        "what": "the same, the target in plain order",
    },
    "addition-3-unmasked": {
        "arguments": [
            *ADDITION, "--set", "task.digits=3", "--set", "data.mask_inputs=false",
            "--minutes", "0.35",
        ],
        "what": "the same, with a loss on the question too",
    },
    "addition-3-neither": {
        "arguments": [
            *ADDITION, "--set", "task.digits=3", "--set", "task.reverse=false",
            "--set", "data.mask_inputs=false", "--set", "task.pad=false", "--minutes", "0.35",
        ],
        "what": "plain order, no masking, numbers as they are written",
    },
    "addition-10": {
        "arguments": [*ADDITION, "--set", "task.digits=10", "--minutes", "2"],
        "what": "two 10-digit numbers",
        "goal": "99.9 % in 10 minutes",
    },
    "calculator-steps": {
        "arguments": [*CALCULATOR, "--minutes", "25"],
        "what": "+ - * / of numbers up to three digits, with steps",
        "goal": "99 % of + and -, 95 % of * and /, in 30 minutes",
    },
    "calculator-no-steps": {
        "arguments": [*CALCULATOR, "--set", "task.trace=false", "--minutes", "25"],
        "what": "the same without steps",
    },
}  # fmt: skip
"""For each run: arguments of `moreish train`, and a description."""


def measure(arguments: list[str], folder: str, seed: int) -> dict[str, Any]:
    """Train once; return the exact match, by operation where there are several, and the seconds of
    the process."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moreish", "train", *arguments, "--seed", str(seed),
         "--out", f"{folder}/run", "--overwrite", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    record = json.loads(done.stdout)
    val = record["splits"]["val"]
    found = {key: val[key] for key in ("exact_match", "exact_match_stderr", "predicted", "loss")}
    found |= {"seconds": seconds, "parameters": record["parameters"]}
    if "calculator" in arguments[0]:
        found["by_operation"] = by_operation(Path(folder) / "run")
    return found


def by_operation(path: Path) -> dict[str, float]:
    """Return the exact match for each operation."""
    import moreish

    run = moreish.load(path)
    predicted = run.predict_split(run.split("val"), 10_000)
    pairs = list(zip(predicted.examples, predicted.predictions, strict=True))
    return {
        sign: statistics.mean(p.target == e.target for e, p in pairs if sign in e.input)
        for sign in "+-*/"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tasks.json"))
    options = parser.parse_args()
    results = read_results(options.out)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            runs = [
                measure(CASES[name]["arguments"], folder, seed) for seed in range(options.seeds)
            ]
        command = f"moreish train {' '.join(CASES[name]['arguments'])}"
        results[name] = {**CASES[name], "command": command, "runs": runs, **provenance()}
        for run in runs:
            print(
                f"{name:<22} {run['exact_match']:8.2%} right  {run['seconds']:6.1f} s  "
                f"{run.get('by_operation', '')}",
                flush=True,
            )
        write_results(options.out, results)


if __name__ == "__main__":
    main()
