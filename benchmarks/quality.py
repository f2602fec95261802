"""Validation losses of training runs on the lectures' data, through the command line.

    python benchmarks/quality.py [--only NAME ...] [--seeds 1] [--out FILE]

With several seeds, the figure is the mean of their losses, and the file lists all of them. Losses
are exact over the whole validation split. Minutes are those of the machine that the file describes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from result_files import provenance, read_results, write_results

NAMES = ["names-lecture", "--split", "lecture"]
SHAKESPEARE = ["shakespeare", "--split", "lecture"]
CASES: dict[str, dict[str, Any]] = {
    "names-bigram-counts": {
        "arguments": [*NAMES, "--model", "ngram"],
        "what": "letter pairs counted, the lecture's names",
        "peer": "2.45 on all words (makemore 1)",
    },
    "names-bigram": {
        "arguments": [*NAMES, "--model", "bigram", "--minutes", "0.3"],
        "goal": 2.47,
        "what": "neural bigram on the lecture's names, 18 s",
        "peer": "2.45 in all (makemore 1)",
    },
    "names-mlp-context-3": {
        "arguments": [*NAMES, "--model", "mlp", "--context", "3"],
        "goal": 2.12,
        "what": "MLP with three letters of context, 1 minute",
        "peer": "2.17 after 200,000 steps (makemore 2)",
    },
    "names-kneser-ney": {
        "arguments": [*NAMES, "--model", "kneser-ney"],
        "what": "Kneser-Ney counts of the lecture's names, a fraction of a second",
        "peer": "1.974 (independent implementation)",
    },
    "names-gpt-2-minutes": {
        "arguments": [*NAMES, "--model", "gpt", "--minutes", "2"],
        "goal": 2.05,
        "what": "GPT on the lecture's names, 2 minutes",
        "peer": "2.00 after 6,000 steps (makemore), some 2.5 minutes",
    },
    "names-lstm": {
        "arguments": [*NAMES, "--model", "lstm", "--steps", "8000", "--set", "model.dropout=0.2"],
        "goal": 1.96,
        "what": "LSTM with dropout on the lecture's names, 8,000 steps, under seven minutes",
        "peer": "1.974 by counting (Kneser-Ney)",
    },
    "names-20-seconds": {
        "arguments": [*NAMES, "--minutes", "0.333"],
        "goal": 1.93,
        "what": "what the planner chooses for the lecture's names in 20 s",
        "peer": "some 1.966 after 15,000 steps (makemore), 400 s",
    },
    "names-2-minutes": {
        "arguments": [*NAMES, "--minutes", "2"],
        "goal": 1.91,
        "what": "… and in 2 minutes",
        "peer": "some 1.966 after 15,000 steps (makemore), 400 s",
    },
    "names-default": {
        "arguments": ["names"],
        "what": "`make run`: the built-in names, 1 minute",
        "peer": "no figure",
    },
    "shakespeare-kneser-ney": {
        "arguments": [*SHAKESPEARE, "--model", "kneser-ney"],
        "what": "Kneser-Ney counts of tiny Shakespeare, a fraction of a second",
        "peer": "1.5165 (independent implementation)",
    },
    "shakespeare-nanogpt-cpu": {
        "arguments": ["--config", "configs/shakespeare-char.toml"],
        "goal": 1.90,
        "what": "GPT at nanoGPT's CPU setting: 2,000 steps of 12 x 64 characters",
        "peer": "1.88 (nanoGPT's README)",
    },
    "shakespeare-ngrams-11-seconds": {
        "arguments": ["--config", "configs/shakespeare-ngrams.toml", "--minutes", "0.18"],
        "goal": 1.58,
        "what": "a small GPT with n-gram embeddings, 11 s",
        "peer": "1.88 in three minutes (nanoGPT's README, its CPU setting)",
    },
}
"""For each run: arguments of the command line, goal for the loss, description, and the loss of a
lecture or peer. `race.py` measures tiny Shakespeare against the clock."""

SHORT = [
    *("names-kneser-ney", "names-20-seconds", "names-2-minutes", "names-default"),
    *("shakespeare-kneser-ney", "shakespeare-ngrams-11-seconds"),
]
"""Those of `make bench`, which is to end within twenty minutes."""


def measure(arguments: list[str], folder: str, seed: int = 0) -> dict[str, Any] | None:
    """One training run: what `moreish train --json` reports; None where its data cannot be had."""
    command = [
        sys.executable,
        "-m",
        "moreish",
        "train",
        *arguments,
        "--seed",
        str(seed),
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
    parser.add_argument("--short", action="store_true", help="only the runs of `make bench`")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.json"))
    options = parser.parse_args()
    earlier = read_results(options.out).get("results", {})
    results = {name: {**earlier[name], **CASES[name]} for name in CASES if name in earlier}
    for name in SHORT if options.short else options.only:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            seeds = range(options.seeds)
            records = [measure(case["arguments"], folder, seed) for seed in seeds]
        record = records[0]
        if record is None:
            print(f"{name:<26} NOT MEASURED (see above)", flush=True)
            continue
        losses = [found["splits"]["val"]["loss"] for found in records if found]
        results[name] = {**case, **record, "losses": losses, **provenance()}
        loss = statistics.mean(losses)
        goal = case.get("goal")
        verdict = "" if goal is None else f"  goal {goal}: {'met' if loss <= goal else 'MISSED'}"
        share = record["evaluation_seconds"] / record["seconds"]
        facts = f"validation {loss:.4f}  {record['seconds']:.0f} s, {share:.1%} of it evaluation"
        print(f"{name:<26} {facts}{verdict}", flush=True)
    report = {"results": {name: results[name] for name in CASES if name in results}}
    write_results(options.out, report)


if __name__ == "__main__":
    main()
