"""Time to quality: nanoGPT's CPU setting and Moreish on tiny Shakespeare, in alternation.

    python benchmarks/race.py --nanogpt PATH [--rounds 1] [--out benchmarks/results/race.json]

PATH is a checkout of nanoGPT (github.com/karpathy/nanoGPT). In each round its `train.py` runs with
the CPU setting of its README; R is the duration of that process. Then Moreish gets budgets of R/8,
R/5 and R, with the number of the round as its seed. All losses are exact, over the whole validation
split of the lecture (90/10), in consecutive windows of each model's context: 64 characters for
nanoGPT, the reported context for Moreish. Seconds are those of whole processes, including scoring.
The model planned for R is also evaluated while it learns from what it has read (`moreish eval
--adaptive`); with `--code`, the first round's also writes the split with an arithmetic coder and
decodes it again, which takes some minutes.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_files import provenance, write_results
from torch.nn import functional as F

from moreish.data import catalog

SETTING = {
    "device": "cpu",
    "compile": False,
    "eval_iters": 20,
    "log_interval": 1,
    "block_size": 64,
    "batch_size": 12,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "max_iters": 2000,
    "lr_decay_iters": 2000,
    "dropout": 0.0,
}
"""nanoGPT's README, "I only have a macbook"."""

SHAKESPEARE = ["shakespeare", "--split", "lecture"]
SIDES: dict[str, tuple[float, list[str]]] = {
    "gpt-eighth": (1 / 8, [*SHAKESPEARE, "--model", "gpt"]),
    "gpt": (1, [*SHAKESPEARE, "--model", "gpt"]),
    "planned-fifth": (1 / 5, SHAKESPEARE),
    "planned": (1, SHAKESPEARE),
}
"""The training time as a fraction of R, and the arguments of `moreish train`."""


def prepare(folder: Path) -> np.ndarray:
    """Write the files of nanoGPT's `prepare.py` and return the ids of the validation split."""
    text = catalog.load_dataset("shakespeare")
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(c) for c in text], dtype=np.uint16)
    cut = int(0.9 * len(ids))
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(alphabet)}))
    return ids[cut:]


def run_nanogpt(checkout: Path, folder: Path, val_ids: np.ndarray) -> dict[str, float]:
    """Run nanoGPT and return the seconds of its process and the exact loss of its checkpoint."""
    where = [f"--dataset={folder}", f"--out_dir={folder / 'out'}"]
    setting = [f"--{key}={value}" for key, value in SETTING.items()]
    command = ["train.py", "config/train_shakespeare_char.py", *where, *setting]
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=checkout, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - began
    sys.path.insert(0, str(checkout))
    from model import GPT, GPTConfig  # nanoGPT's

    saved = torch.load(folder / "out" / "ckpt.pt", weights_only=True)
    model = GPT(GPTConfig(**saved["model_args"])).eval()
    model.load_state_dict(saved["model"])
    block, total = SETTING["block_size"], 0.0
    ids = torch.from_numpy(val_ids.astype(np.int64))
    with torch.inference_mode():
        for first in range(0, len(ids) - 1, block):
            x, y = ids[first : first + block][None], ids[first + 1 : first + block + 1][None]
            logits = model(x[:, : y.shape[1]], y)[0]
            total += F.cross_entropy(logits[0], y[0], reduction="sum").item()
    return {"seconds": seconds, "loss": total / (len(ids) - 1)}


def run_moreish(arguments: list[str], minutes: float, seed: int, folder: Path) -> dict[str, float]:
    """Run Moreish and return the seconds of its process and of its training, and its loss."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moreish", "train", *arguments, "--minutes", str(minutes),
         "--seed", str(seed), "--out", str(folder / "run"), "--overwrite", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    record = json.loads(done.stdout)
    config = json.loads((folder / "run" / "run.json").read_text("utf-8"))["config"]["model"]
    return {
        "seconds": seconds,
        "trained_seconds": record["seconds"],
        "loss": record["splits"]["val"]["loss"],
        "running_loss": record["splits"]["val"]["running_loss"],
        "context": config.get("network", config)["context"],
    }


def evaluate_adaptively(folder: Path, *, code: bool) -> dict[str, float]:
    """Evaluate the latest run of Moreish while it learns from what it has read."""
    arguments = [str(folder / "run"), "--adaptive", "--json", *(["--code"] if code else [])]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moreish", "eval", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    scores = json.loads(done.stdout)["splits"]["val"]
    found = {key: scores[key] for key in ("adaptive_loss", "code_bytes") if key in scores}
    return {**found, "adaptive_seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--code", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/race.json"))
    options = parser.parse_args()
    if options.nanogpt is None:
        print("race NOT MEASURED: this needs --nanogpt", flush=True)
        return
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        val_ids = prepare(folder)
        for number in range(options.rounds):
            found = {"nanogpt": run_nanogpt(options.nanogpt.resolve(), folder, val_ids)}
            whole = found["nanogpt"]["seconds"]
            for side, (share, arguments) in SIDES.items():
                found[side] = run_moreish(arguments, share * whole / 60, number, folder)
            found["planned"] |= evaluate_adaptively(folder, code=options.code and number == 0)
            for side, result in found.items():
                print(f"{side:<14} {result['seconds']:6.1f} s  loss {result['loss']:.4f}")
            print(found["planned"])
            sys.stdout.flush()
            rounds.append(found)
    write_results(options.out, {"rounds": rounds, **provenance()})


if __name__ == "__main__":
    main()
