"""Benchmarks that need a CUDA GPU: the lecture's 10.8 M model, and the MFU of a GPT-2 124M.

    python benchmarks/gpu.py [--only NAME ...] [--out benchmarks/results/gpu.json]

The tests run this on a CPU with tiny sizes. Measurements on a GPU are in the result file.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import moreish
from moreish.config import TrainConfig
from moreish.data.sampler import BatchSampler
from moreish.data.token_dataset import TokenDataset
from moreish.models import build_model, model_config
from moreish.runs.record import library_versions, machine_info
from moreish.training.events import ignore
from moreish.training.flops import FlopCounter, device_peak_flops
from moreish.training.objectives import next_token_loss
from moreish.training.state import StepPlan, TrainState
from moreish.training.trainer import Trainer

GOAL = 1.4697
"""The best validation loss in nanoGPT's README, after three minutes on an A100."""

LECTURE_MODEL = {"name": "gpt", "layers": 6, "heads": 6, "width": 384, "context": 256,
                 "dropout": 0.2, "bias": False, "tied": True}  # fmt: skip
LECTURE_TRAINING = {"batch_size": 64, "lr": 1e-3, "decay": "cosine", "final_lr": 0.1,
                    "weight_decay": 0.1, "eval_every": 250, "patience": 0}  # fmt: skip

GPT2 = {"name": "gpt", "layers": 12, "heads": 12, "width": 768, "context": 1024, "bias": False,
        "tied": True}  # fmt: skip
GPT2_VOCABULARY = 50_304
"""GPT-2's 50,257, padded to a multiple of 64 as in nanoGPT."""


def shakespeare(
    model: dict[str, Any] = LECTURE_MODEL, steps: int = 5000, **train: Any
) -> dict[str, Any]:
    """Train on tiny Shakespeare with the lecture's split; return loss, seconds and loss curve."""
    settings = {"model": model, "train": {**LECTURE_TRAINING, **train}}
    with tempfile.TemporaryDirectory() as folder:
        run = moreish.train(
            "shakespeare", steps=steps, split="lecture", settings=settings,
            out=Path(folder) / "run", report=ignore,
        )  # fmt: skip
        lines = list(run.read_metrics())
    seconds = {line["step"]: line["seconds"] for line in lines if "loss" in line}
    curve = [
        {"step": line["step"], "seconds": seconds.get(line["step"]), "loss": line["val"]["loss"]}
        for line in lines
        if "val" in line
    ]
    shares = [line["mfu"] for line in lines if "mfu" in line]
    return {
        "goal": GOAL,
        "loss": run.scores["val"].loss,
        "seconds": run.record.seconds,
        "seconds_to_goal": next((at["seconds"] for at in curve if at["loss"] <= GOAL), None),
        "tokens_per_second": run.record.tokens_per_second,
        "utilization": statistics.median(shares) if shares else None,
        "curve": curve,
    }


def utilization(
    model: dict[str, Any] = GPT2, vocabulary: int = GPT2_VOCABULARY, rows: int = 480,
    steps: int = 15, **train: Any,
) -> dict[str, Any]:  # fmt: skip
    """Measure steps of a GPT-2 124M on random tokens, whose cost does not depend on their values.
    The default `rows` per step are nanoGPT's half a million tokens."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    context = int(model["context"])
    ids = np.random.default_rng(0).integers(vocabulary, size=(rows + 2) * context, dtype=np.uint16)
    tokens = TokenDataset(ids, items=False)
    torch.manual_seed(0)
    trainer = Trainer(
        build_model(model_config(model), vocabulary),
        BatchSampler(tokens, batch_size=rows, length=context, overlap=0, seed=0),
        TrainConfig.parse({"steps": steps, "lr": 6e-4, "weight_decay": 0.1, **train}, "train"),
        objective=next_token_loss,
        state=TrainState(plan=StepPlan(steps=1_000_000, eval_every=10**9)),
        device=device,
    )
    began = time.perf_counter()
    trainer.train_step()
    first = time.perf_counter() - began
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        trainer.train_step()  # reads the loss, so the GPU has finished all but the update
        times.append(time.perf_counter() - began)
    seconds, peak = statistics.median(times), device_peak_flops(device)
    batch = trainer.sampler.batch(0)
    return {
        "first_step_seconds": first,
        "tokens_per_second": batch.num_targets / seconds,
        "tflops": FlopCounter(trainer.model).per_batch(batch) / seconds / 1e12,
        "utilization": peak and FlopCounter(trainer.model).per_batch(batch) / seconds / peak,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9
        if device.type == "cuda"
        else None,
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "shakespeare-10.8m": shakespeare,
    "shakespeare-10.8m-compiled": lambda: shakespeare(compile=True),
    "shakespeare-10.8m-float32": lambda: shakespeare(precision="float32"),
    "gpt2-124m": lambda: utilization(accumulate=40),
    "gpt2-124m-compiled": lambda: utilization(accumulate=40, compile=True),
    "gpt2-124m-compiled-muon": lambda: utilization(accumulate=40, compile=True, optimizer="muon"),
    "gpt2-124m-compiled-large-parts": lambda: utilization(accumulate=10, compile=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("NOT MEASURED: there is no CUDA GPU here, or PyTorch is built without CUDA")
    report = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for name in options.only:
        found = CASES[name]()
        made = datetime.now(UTC).isoformat(timespec="seconds")
        gpu = torch.cuda.get_device_name()
        report[name] = {
            **found,
            "gpu": gpu,
            "made": made,
            "machine": machine_info(),
            "versions": library_versions(),
        }
        print(f"{name:<31} { {k: v for k, v in found.items() if k != 'curve'} }", flush=True)
        for at in found.get("curve", []):
            print(f"  step {at['step']:>5}  {at['seconds']} s  {at['loss']:.4f}", flush=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
