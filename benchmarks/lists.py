"""Do samples of small lists reproduce the data? Losses and total variation for every list of a
folder, with the model that the planner chooses.

    python benchmarks/lists.py FOLDER --steps 200 --out benchmarks/results/lists.json
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import moreish

SAMPLES = 5_000


def total_variation(a: Counter[str], b: Counter[str]) -> float:
    """Return the total variation distance of two distributions: 0 if equal, 1 if disjoint."""
    return 0.5 * sum(abs(a[x] / a.total() - b[x] / b.total()) for x in a.keys() | b.keys())


def items_of(run: moreish.Run, split: str) -> list[str]:
    tokens = run.split(split)
    return [run.tokenizer.decode(tokens.item(i)) for i in range(len(tokens.boundaries) - 1)]


def measure(path: Path, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = moreish.train(path, kind="lines", steps=steps, out=Path(folder) / "r")
        data = Counter(item for split in run.split_names for item in items_of(run, split))
        samples = Counter(run.sample(SAMPLES, seed=1))
    val = run.scores["val"]
    rng = np.random.default_rng(0)
    shares = np.array(list(data.values())) / data.total()
    fresh = Counter(rng.choice(list(data), SAMPLES, p=shares).tolist())
    return {
        "list": path.stem,
        "items": data.total(),
        "distinct": len(data),
        "model": run.config.model.name,
        "train": run.scores["train"].loss,
        "val": val.loss,
        "unseen": getattr(val, "unseen_loss", None),
        "total_variation": total_variation(data, samples),
        "fresh_draws": total_variation(data, fresh),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for path in sorted(args.folder.glob("*.t[xs][tv]")):
        rows.append(measure(path, args.steps))
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    if args.out is not None:
        args.out.write_text(json.dumps({"steps": args.steps, "lists": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
