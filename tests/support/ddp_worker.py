"""Training runs that tests run with several processes, and with `train_all` in one.

torchrun --nproc-per-node 2 ddp_worker.py FOLDER STEPS CASE…
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moreish import api
from moreish.distributed.process_group import is_main_process, join_process_group
from moreish.runs.run import Run
from moreish.training.events import ignore

ITEMS = [f"name{number}x{number * number % 97}" for number in range(300)]

FSDP = {"parallel": "fsdp"}

CASES: dict[str, dict[str, Any]] = {
    # Every batch has seven rows, which no number of processes divides.
    "gpt": {"model": {"name": "gpt", "layers": 2}},
    "gpt, micro-batches": {"model": {"name": "gpt", "layers": 2}, "train": {"accumulate": 5}},
    "gpt tied, fsdp": {"model": {"name": "gpt", "tied": True}, "train": {**FSDP, "accumulate": 5}},
    "gpt, activation checkpointing, fsdp": {
        "model": {"name": "gpt"},
        "train": {**FSDP, "activation_checkpointing": True},
    },
    "gpt, muon": {"model": {"name": "gpt"}, "train": {"optimizer": "muon"}},
    "gpt, muon, fsdp": {"model": {"name": "gpt"}, "train": {**FSDP, "optimizer": "muon"}},
    "hybrid": {"model": {"name": "hybrid"}},
    "hybrid, fsdp": {"model": {"name": "hybrid"}, "train": FSDP},
    "mixture": {"model": {"name": "mixture"}},
    "all in one batch": {"model": {"name": "bigram"}, "train": {"batch_size": "all"}},
    "lstm": {"model": {"name": "lstm"}},
    "wavenet": {"model": {"name": "wavenet"}},
    "fewer rows than processes": {"model": {"name": "mlp"}, "train": {"batch_size": 1}},
    "weight penalty": {"model": {"name": "mlp"}, "train": {"squared_weights": 0.1}},
}


FEW = ("gpt", "gpt tied, fsdp")


def train_all(folder: Path, steps: int, names: Iterable[str]) -> None:
    """Train a run for each of the cases."""
    source = folder / "items.txt"
    if is_main_process():
        source.write_text("\n".join(ITEMS))
    for name in names:
        settings = CASES[name]
        train = {"batch_size": 7, "eval_every": 10, **settings.get("train", {})}
        api.train(
            source,
            steps=steps,
            settings={**settings, "train": train},
            out=folder / name,
            report=ignore,
        )


def score_both_ways(folder: Path) -> None:
    """Check that the score of all processes has the bits of that of one process."""
    run = Run.open(folder / "gpt")
    with join_process_group() as group:
        shared = run.score("train", group=group)
        assert group.size == 2 and shared == run.score("train"), (shared, run.score("train"))
        assert group.broadcast_text("häßlich" if group.is_main else "") == "häßlich"
        assert group.broadcast(1 + group.rank) == 1
        assert group.any(not group.is_main) and not group.any(False)


if __name__ == "__main__":
    train_all(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    score_both_ways(Path(sys.argv[1]))
