"""Ablations of modeling ideas: variants of one model, several seeds, paired differences.

    python benchmarks/ideas.py [--only NAME ...] [--seeds 3] [--out benchmarks/results/ideas.json]

Variants of a family get equal data, not equal time, because this measures their benefit and not
their cost. Differences are those of `moreish compare`: on the same tokens of the validation split,
with confidence intervals that include the spread between seeds.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from result_files import read_results, write_results

import moreish
from moreish.runs.compare import Comparison
from moreish.training.events import ignore
from moreish.workflows.ladder import RUNGS

LADDER = {rung.name: rung.model for rung in RUNGS}
MLP = {"name": "mlp", "context": 3, "embedding": 10, "hidden": 200}
GPT = {"name": "gpt"}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Variants of a model, and the baseline of each."""

    source: str
    train: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    chain: bool
    """Whether the baseline is the previous variant instead of the first one."""


FAMILIES = {
    "attention": Family(
        source="shakespeare",
        train={"steps": 5000},  # the model brings the rest of the lecture's recipe
        variants={
            name: LADDER[name]
            for name in (
                "head-unscaled", "head", "heads", "feedforward", "residual", "norm", "dropout"
            )
        },
        chain=True,
    ),
    "bengio": Family(
        source="names-lecture",
        train={"epochs": 35},  # makemore part 2: 200,000 steps of 32 examples
        variants={
            "mlp": MLP,
            "direct": MLP | {"direct": True},
            "separate embeddings": MLP | {"shared": False},
            "mixture": {"name": "mixture", "network": MLP},
            "direct, mixture": {"name": "mixture", "network": MLP | {"direct": True}},
        },
        chain=False,
    ),
    "modern": Family(
        source="names-lecture",
        train={"epochs": 3},
        variants={
            "gpt": GPT,
            "rotary positions": GPT | {"positions": "rotary"},
            "RMS norm": GPT | {"norm": "rms"},
            "QK norm": GPT | {"qk_norm": True},
            "squared ReLU": GPT | {"feedforward": "relu2"},
            "SwiGLU": GPT | {"feedforward": "swiglu"},
            "grouped queries": GPT | {"kv_heads": 1},
            "tied embeddings": GPT | {"tied": True},
            "soft cap": GPT | {"softcap": 15.0},
            "post-norm": GPT | {"norm_place": "after"},
            "the modern rung": LADDER["modern"],
        },
        chain=False,
    ),
}  # fmt: skip


def measure(family: Family, seeds: int, folder: Path) -> list[dict[str, Any]]:
    """Train each variant with each seed, and return one entry per variant."""
    groups: dict[str, list[moreish.Run]] = {}
    entries: list[dict[str, Any]] = []
    for name, model in family.variants.items():
        groups[name] = [
            moreish.train(
                family.source, split="lecture", seed=seed, report=ignore,
                settings={"model": model, "train": family.train},
                out=folder / f"{name} {seed}",
            )
            for seed in range(seeds)
        ]  # fmt: skip
        losses = [run.scores["val"].loss for run in groups[name]]
        entry: dict[str, Any] = {
            "variant": name,
            "parameters": groups[name][0].model.num_parameters(),
            "seconds": sum(run.record.seconds or 0.0 for run in groups[name]) / seeds,
            "losses": losses,
            "loss": sum(losses) / seeds,
        }
        if entries:
            other = entries[-1 if family.chain else 0]["variant"]
            _, (found,) = moreish.compare([*groups[other], *groups[name]])
            entry |= {"against": other, **difference(found, entry["loss"], groups[other])}
        entries.append(entry)
        print(f"{name:<24} {entry['loss']:.4f}  {entry.get('says', '')}", flush=True)
    return entries


def difference(found: Comparison, loss: float, other: list[moreish.Run]) -> dict[str, Any]:
    """Return how much lower the loss is than the baseline's, with its interval."""
    before = sum(run.scores["val"].loss for run in other) / len(other)
    sign = 1 if loss <= before else -1
    low, high = sorted((sign * found.low, sign * found.high))
    says = "better" if low > 0 else "worse" if high < 0 else "no difference beyond the error bars"
    return {"gain": sign * found.difference, "low": low, "high": high, "says": says}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=sorted(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ideas.json"))
    options = parser.parse_args()
    report = read_results(options.out)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            entries = measure(FAMILIES[name], options.seeds, Path(folder))
        family = FAMILIES[name]
        report[name] = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": family.source, "train": family.train, "seeds": options.seeds,
            "variants": entries,
        }  # fmt: skip
        write_results(options.out, report)


if __name__ == "__main__":
    main()
