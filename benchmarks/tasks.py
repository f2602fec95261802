"""Tasks and examples: whole commands, from start to the score on held-out examples.

    python benchmarks/tasks.py [--only NAME ...] [--seeds 1]

Seconds are those of whole processes. The exact match is that on the validation problems, 10,000 or
all that there are; none of them is a training problem. The figure is docs/tasks.svg.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from result_files import provenance, read_results, write_results

from moreish.figures.run_figures import save_themes
from moreish.figures.style import Theme

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
    "cmudict-15-minutes": {
        "arguments": ["cmudict", "--minutes", "14"],
        "what": "spelling to phonemes (CMUdict)",
        "goal": "75 % of words right in 15 minutes",
    },
    "cmudict-hour": {
        "arguments": ["cmudict", "--minutes", "58"],
        "what": "the same",
        "goal": "78 % of words right in an hour",
    },
    "names-sex": {
        "arguments": ["names-sex"],
        "what": "the sex of names, by counting",
        "goal": "within 0.5 points of the best possible",
    },
}  # fmt: skip
"""For each run: arguments of `moreish train`, and a description."""


def measure(arguments: list[str], folder: str, seed: int) -> dict[str, Any]:
    """Train once; return the measures of predictions, by operation where there are several, and the
    seconds of the process."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moreish", "train", *arguments, "--seed", str(seed),
         "--out", f"{folder}/run", "--overwrite", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    record = json.loads(done.stdout)
    val = record["splits"]["val"]
    found = {key: val[key] for key in MEASURES if key in val}
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


MEASURES = (
    "exact_match", "exact_match_stderr", "accuracy", "accuracy_stderr", "symbol_error_rate",
    "symbol_error_rate_stderr", "predicted", "loss",
)  # fmt: skip

ADDITIONS = ("addition-3", "addition-3-plain", "addition-3-unmasked", "addition-3-neither")
CALCULATORS = ("calculator-steps", "calculator-no-steps")


def draw(results: dict[str, Any], theme: Theme) -> Figure:
    """Draw what the form of addition, and the steps of the calculator, are worth."""
    figure = Figure(figsize=(10, 3.2))
    left, right = figure.subplots(1, 2)
    cases = [results[name] for name in reversed(ADDITIONS) if name in results]
    shares = [case["runs"][0]["exact_match"] for case in cases]
    labels = [fill(case["what"], 30) for case in cases]
    mark_bars(left.barh(labels, shares, 0.6, color=theme.series[0]), shares, theme)
    seconds = max(case["runs"][0]["seconds"] for case in cases)
    left.set_title(f"Addition of 3-digit numbers after {seconds:.0f} s")
    found = [name for name in CALCULATORS if name in results]
    for number, name in enumerate(found):
        right_of = results[name]["runs"][0]["by_operation"]
        shares = [right_of[sign] for sign in "+-*/"]
        places = [3 - operation + 0.2 - 0.4 * number for operation in range(4)]
        color = theme.series[number]
        label = ("with steps", "without steps")[number]
        mark_bars(right.barh(places, shares, 0.36, color=color, label=label), shares, theme)
    right.set_yticks(range(4), ["÷", "×", "−", "+"])
    right.set_title("Calculator of 3-digit numbers after 25 minutes")
    right.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    for axes in (left, right):
        axes.set_xlim(0, 1.14)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return figure


def mark_bars(bars: Any, shares: list[float], theme: Theme) -> None:
    """Write the share at the end of each bar."""
    labels = [f"{share:.1%}" for share in shares]
    bars[0].axes.bar_label(bars, labels, padding=3, fontsize=8, color=theme.faint)


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
            share, operations = run.get("exact_match", run.get("accuracy")), run.get("by_operation")
            print(f"{name:<22} {share:8.2%} right  {run['seconds']:6.1f} s  {operations or ''}")
        write_results(options.out, results)
    save_themes(partial(draw, results), Path("docs"), "tasks")


if __name__ == "__main__":
    main()
