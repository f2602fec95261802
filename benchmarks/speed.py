"""How fast: training and sampling beside nanoGPT on one machine, both sides in turn.

    python benchmarks/speed.py --nanogpt PATH [--only NAME ...] [--out FILE]

PATH is a checkout of nanoGPT (github.com/karpathy/nanoGPT); without one, the cases that need it are
left out and said to be. Each ratio is the median over rounds in which both sides take turns, with
the lowest and the highest round beside it: seconds alone mean little on a shared machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import moreish
from moreish.config import resolve
from moreish.generate.engine import generate
from moreish.generate.sampling import Sampling
from moreish.models import build_model, model_config
from moreish.record import machine, versions
from moreish.training.budget import Plan
from moreish.training.events import silent
from moreish.training.loop import Position, Trainer
from moreish.training.objective import next_token
from moreish.training.prepare import make_sampler, prepare

CPU_SETTING = {"layers": 4, "heads": 4, "width": 128, "context": 64}
"""nanoGPT's own for a CPU; batches of 12."""

BATCH = 12
ROUNDS = 7

Side = Callable[[], int]
"""Does some work, returns how many tokens that was."""


def in_turn(ours: Side, theirs: Side) -> dict[str, Any]:
    """Tokens a second of both sides, and the ratio of each round."""
    ours(), theirs()
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        for name, side in (("ours", ours), ("theirs", theirs)):
            began = time.perf_counter()
            tokens = side()
            speeds[name].append(tokens / (time.perf_counter() - began))
    ratios = sorted(a / b for a, b in zip(speeds["ours"], speeds["theirs"], strict=True))
    return {
        "ours_tokens_per_second": statistics.median(speeds["ours"]),
        "theirs_tokens_per_second": statistics.median(speeds["theirs"]),
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
    }


def matmul_peak() -> float:
    """Floating-point operations a second of large float32 products here."""
    x = torch.randn(2048, 2048)
    x @ x
    times = []
    for _ in range(10):
        began = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(times)


def trainer(model: dict[str, Any]) -> Trainer:
    """Ours, on tiny Shakespeare at nanoGPT's batch size."""
    config = resolve(
        {"data": {"source": "shakespeare"}, "model": model,
         "train": {"steps": 2000, "batch_size": BATCH, "lr": 1e-3, "optimizer": "adamw"}}
    )  # fmt: skip
    ready = prepare(config)
    built = ready.model()
    return Trainer(
        built, make_sampler(ready.config, ready.splits["train"], built), ready.config.train,
        objective=next_token, position=Position(plan=Plan(steps=1_000_000, eval_every=10**9)),
        device=ready.device,
    )  # fmt: skip


def their_model(checkout: Path) -> nn.Module:
    sys.path.insert(0, str(checkout))
    from model import GPT, GPTConfig  # nanoGPT's

    return GPT(
        GPTConfig(block_size=64, vocab_size=65, n_layer=4, n_head=4, n_embd=128, dropout=0.0,
                  bias=False)
    )  # fmt: skip


def training(checkout: Path) -> dict[str, Any]:
    """One step of AdamW on batches of 12 x 64, the gradient clipped, as nanoGPT's train.py does."""
    mine = trainer({"name": "gpt", **CPU_SETTING, "bias": False, "tied": True})
    theirs = their_model(checkout)
    optimizer = theirs.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    ids = torch.from_numpy(mine.sampler.tokens.ids_N.astype("int64"))

    def our_steps() -> int:
        for _ in range(20):
            mine.step()
        return 20 * BATCH * 64

    def their_steps() -> int:
        for _ in range(20):
            starts = torch.randint(len(ids) - 64, (BATCH,))
            x = torch.stack([ids[i : i + 64] for i in starts])
            y = torch.stack([ids[i + 1 : i + 65] for i in starts])
            _, loss = theirs(x, y)
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        return 20 * BATCH * 64

    found = in_turn(our_steps, their_steps)
    parameters = sum(p.numel() for p in mine.model.parameters())
    attention = 2 * CPU_SETTING["layers"] * CPU_SETTING["width"] * CPU_SETTING["context"]
    work = 6 * (parameters - 64 * 128) + 6 * attention
    return {**found, "share_of_matmul_peak": work * found["ours_tokens_per_second"] / matmul_peak()}


def sampling(checkout: Path, streams: int) -> dict[str, Any]:
    """500 tokens from each of some streams, against nanoGPT's `generate`, which has one."""
    model = build_model(model_config({"name": "gpt", **CPU_SETTING, "tied": True}), 65).eval()
    theirs = their_model(checkout).eval()

    @torch.inference_mode()
    def ours() -> int:
        for _ in generate(
            model, torch.zeros(1, dtype=torch.long).numpy(), streams=range(streams),
            max_tokens=500, sampling=Sampling(temperature=0.8, top_k=200), seed=0,
        ):  # fmt: skip
            pass
        return 500 * streams

    @torch.inference_mode()
    def their() -> int:
        theirs.generate(torch.zeros(1, 1, dtype=torch.long), 500, temperature=0.8, top_k=200)
        return 500

    return in_turn(ours, their)


def tokens_one_by_one() -> dict[str, Any]:
    """Microseconds for each token of one stream, in blocks of as many tokens as the context holds:
    the first, which fills it, and those after it. Of each place the median over rounds."""
    block, found = CPU_SETTING["context"], {}
    for positions in ("learned", "rotary"):
        settings = {"name": "gpt", **CPU_SETTING, "positions": positions}
        model = build_model(model_config(settings), 65).eval()
        rounds = []
        for _ in range(ROUNDS + 1):
            times, began = [], time.perf_counter()
            for _ in generate(
                model, np.zeros(1, dtype=int), streams=range(1), max_tokens=8 * block,
                sampling=Sampling(), seed=0,
            ):  # fmt: skip
                times.append(time.perf_counter() - began)
                began = time.perf_counter()
            rounds.append(times)
        blocks = 1e6 * np.median(rounds[1:], axis=0).reshape(-1, block)  # the first warms up
        for name, part in (("before", blocks[0, 1:]), ("after", blocks[1:])):
            found[f"{positions}_{name}_p50"] = float(np.median(part))
            found[f"{positions}_{name}_worst"] = float(part.max())
        means = blocks.mean(axis=1)
        found[f"{positions}_mean_after_over_before"] = float(means[1:].mean() / means[0])
    return found


def names() -> dict[str, Any]:
    """Ten thousand names from the default model."""
    with tempfile.TemporaryDirectory() as folder:
        run = moreish.train("names", steps=300, out=Path(folder) / "run", report=silent)
        began = time.perf_counter()
        texts = run.sample(10_000)
        return {"seconds": time.perf_counter() - began, "names": len(texts)}


def starting() -> dict[str, Any]:
    """Whole processes: seconds and the highest memory in megabytes, the median of five."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        moreish.train("names", steps=50, out=run, report=silent)
        program = [sys.executable, "-m", "moreish"]
        found: dict[str, Any] = {}
        for name, arguments in (("help", ["--help"]), ("first_sample", ["sample", run, "-n", "1"])):
            times = []
            for _ in range(5):
                began = time.perf_counter()
                subprocess.run([*program, *arguments], stdout=subprocess.DEVNULL, check=True)
                times.append(time.perf_counter() - began)
            found[f"{name}_seconds"] = statistics.median(times)
        return found


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training": training,
    "sampling-1": lambda checkout: sampling(checkout, 1),
    "sampling-32": lambda checkout: sampling(checkout, 32),
    "token-by-token": lambda _: tokens_one_by_one(),
    "names-10000": lambda _: names(),
    "starting": lambda _: starting(),
}
PEERED = ("training", "sampling-1", "sampling-32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    options = parser.parse_args()
    report = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for name in options.only:
        if options.nanogpt is None and name in PEERED:
            print(f"{name:<14} NOT MEASURED: it needs --nanogpt", flush=True)
            continue
        found = {key: round(value, 4) for key, value in CASES[name](options.nanogpt).items()}
        made = datetime.now(UTC).isoformat(timespec="seconds")
        report[name] = {**found, "made": made, "machine": machine(), "versions": versions()}
        print(f"{name:<14} {found}", flush=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
