"""What Moreish reaches on the lectures' data, through its own command line; one JSON file.

    python benchmarks/quality.py [--only NAME ...] [--out benchmarks/results/quality.json]

Losses are exact over the whole validation split. Where a goal is in minutes, it is minutes on the
machine that the JSON describes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moreish.record import machine, versions

LECTURE = ["--split", "lecture"]
CASES: dict[str, dict[str, Any]] = {
    "names-bigram-counts": {
        "arguments": ["names-lecture", *LECTURE, "--model", "ngram"],
        "goal": None,
    },
    "names-bigram": {
        "arguments": ["names-lecture", *LECTURE, "--model", "bigram", "--minutes", "0.3"],
        "goal": 2.47,
        "source": "makemore 1: approaches the counts' 2.454 from above",
    },
    "names-mlp-context-3": {
        "arguments": ["names-lecture", *LECTURE, "--model", "mlp", "--context", "3"],
        "goal": 2.12,
        "source": "makemore 2: 2.17 after 200,000 steps; exercise E01",
    },
    "names-gpt-2-minutes": {
        "arguments": ["names-lecture", *LECTURE, "--minutes", "2"],
        "goal": 2.05,
        "source": "makemore's default transformer: 2.00 after 6,000 steps",
    },
    "names-lstm": {
        "arguments": [
            *("names-lecture", *LECTURE, "--model", "lstm", "--steps", "8000"),
            *("--set", "model.dropout=0.2"),
        ],
        "goal": 1.96,
        "source": "the best purely neural rung within ten minutes",
    },
    "names-default": {"arguments": ["names"], "goal": None},
    "names-hybrid-20-seconds": {
        "arguments": ["--config", "configs/names-hybrid.toml", "--minutes", "0.333"],
        "goal": 1.93,
    },
    "names-hybrid-2-minutes": {
        "arguments": [
            *("--config", "configs/names-hybrid.toml", "--minutes", "2"),
            *("--set", "model.network.dropout=0.1"),
        ],
        "goal": 1.91,
    },
    "shakespeare-grams-11-seconds": {
        "arguments": ["--config", "configs/shakespeare-grams.toml", "--minutes", "0.18"],
        "goal": 1.886,
        "source": "nanoGPT's README, its CPU setting, in about three minutes",
    },
    "shakespeare-hybrid-18-seconds": {
        "arguments": ["--config", "configs/shakespeare-hybrid.toml", "--minutes", "0.3"],
        "goal": 1.4697,
        "source": "nanoGPT's README: three minutes of an A100",
    },
    "shakespeare-hybrid-87-seconds": {
        "arguments": [
            *("--config", "configs/shakespeare-hybrid.toml", "--minutes", "1.45"),
            *("--set", "model.network.layers=2", "--set", "model.network.dropout=0.1"),
        ],
        "goal": 1.42,
    },
    "shakespeare-nanogpt-cpu": {
        "arguments": ["--config", "configs/shakespeare-char.toml"],
        "goal": 1.90,
        "source": "nanoGPT's README: 1.88 after 2,000 steps of 12 x 64 tokens",
    },
}


def measure(arguments: list[str], folder: str) -> dict[str, Any] | None:
    """One training: what `moreish train --json` says of it; None where its data cannot be had."""
    command = [
        sys.executable,
        "-m",
        "moreish",
        "train",
        *arguments,
        "--out",
        f"{folder}/run",
        "--overwrite",
    ]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return None
    record: dict[str, Any] = json.loads(done.stdout)
    del record["run"]
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.json"))
    options = parser.parse_args()
    earlier = json.loads(options.out.read_text("utf-8"))["results"] if options.out.exists() else {}
    results = {name: earlier[name] for name in CASES if name in earlier}
    for name in options.only:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            record = measure(case["arguments"], folder)
        if record is None:
            print(f"{name:<26} NOT MEASURED (see above)", flush=True)
            continue
        made = datetime.now(UTC).isoformat(timespec="seconds")
        results[name] = {
            **case,
            **record,
            "made": made,
            "machine": machine(),
            "versions": versions(),
        }
        loss = record["splits"]["val"]["loss"]
        goal = case["goal"]
        verdict = "" if goal is None else f"  goal {goal}: {'met' if loss <= goal else 'MISSED'}"
        share = record["evaluation_seconds"] / record["seconds"]
        facts = f"validation {loss:.4f}  {record['seconds']:.0f} s, {share:.1%} of it evaluation"
        print(f"{name:<26} {facts}{verdict}", flush=True)
    report = {"results": {name: results[name] for name in CASES if name in results}}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
