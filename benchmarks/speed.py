"""Speed of training and sampling compared with nanoGPT on the same machine, in alternation.

    python benchmarks/speed.py --nanogpt PATH [--only NAME ...] [--out FILE]

PATH is a checkout of nanoGPT (github.com/karpathy/nanoGPT); without one, the cases that need it are
reported as not measured. Training is also compared with `transformers`' GPT-2 if that package is
installed. Each ratio is the median over rounds in which the contestants alternate, with the lowest
and the highest round: seconds alone mean little on a shared machine.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_files import provenance, read_results, write_results
from torch import nn

import moreish
from moreish.config import resolve
from moreish.evaluate.loss import mean_loss
from moreish.generate.decode import generate
from moreish.generate.sampling import Sampling
from moreish.models import build_model, model_config
from moreish.training.flops import FlopCounter
from moreish.training.objectives import next_token_loss
from moreish.training.setup import build_sampler, set_up
from moreish.training.state import StepPlan, TrainState
from moreish.training.trainer import Trainer

CPU_SETTING = {"layers": 4, "heads": 4, "width": 128, "context": 64}
"""nanoGPT's setting for a CPU."""

BATCH = 12
ROUNDS = 7
SAMPLING_ROUNDS = 41
"""These rounds are short, so more of them are needed against the noise of the machine."""

STEPS = 20
"""Training steps in each round."""

Side = Callable[[], int]
"""Does some work and returns its number of tokens."""


def in_turn(sides: dict[str, Side], rounds: int = ROUNDS) -> dict[str, float]:
    """Return tokens per second of each contestant, and the ratios of the first to the others."""
    for side in sides.values():
        side()
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            tokens = side()
            speeds[name].append(tokens / (time.perf_counter() - began))
    found = {f"{name}_tokens_per_second": statistics.median(x) for name, x in speeds.items()}
    ours, *peers = sides
    for peer in peers:
        ratios = sorted(a / b for a, b in zip(speeds[ours], speeds[peer], strict=True))
        which = f"_to_{peer}" if len(peers) > 1 else ""
        found |= {f"ratio{which}": statistics.median(ratios)}
        found |= {f"ratio{which}_low": ratios[0], f"ratio{which}_high": ratios[-1]}
    return found


def matmul_peak() -> float:
    """Return the FLOP/s of large float32 matrix products on this machine."""
    x = torch.randn(2048, 2048)
    x @ x
    times = []
    for _ in range(10):
        began = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(times)


def trainer(model: dict[str, Any], **train: Any) -> Trainer:
    """Return a trainer on tiny Shakespeare with nanoGPT's batch size."""
    config = resolve(
        {"data": {"source": "shakespeare"}, "model": model,
         "train": {"steps": 2000, "batch_size": BATCH, "lr": 1e-3, "optimizer": "adamw", **train}}
    )  # fmt: skip
    ready = set_up(config)
    built = ready.build_model()
    return Trainer(
        built, build_sampler(ready.config, ready.splits["train"], built), ready.config.train,
        objective=next_token_loss, device=ready.device,
        state=TrainState(plan=StepPlan(steps=1_000_000, eval_every=10**9)),
    )  # fmt: skip


def their_model(checkout: Path) -> nn.Module:
    sys.path.insert(0, str(checkout))
    from model import GPT, GPTConfig  # nanoGPT's

    return GPT(
        GPTConfig(block_size=64, vocab_size=65, n_layer=4, n_head=4, n_embd=128, dropout=0.0,
                  bias=False)
    )  # fmt: skip


def gpt2_of_transformers() -> nn.Module | None:
    """Return a GPT-2 of the same size with exact GELU and, unlike the others, biases, or None."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=65, n_positions=64, n_embd=128, n_layer=4, n_head=4, use_cache=False,
                   bos_token_id=None, eos_token_id=None,
                   activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )  # fmt: skip


def steps_of(mine: Trainer) -> Side:
    def steps() -> int:
        for _ in range(STEPS):
            mine.train_step()
        return STEPS * BATCH * 64

    return steps


def their_steps(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    ids: torch.Tensor,
) -> Side:
    """Return training steps like those of nanoGPT's train.py, which also read the loss."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def steps() -> int:
        for _ in range(STEPS):
            starts = torch.randint(len(ids) - 64, (BATCH,))
            x = torch.stack([ids[i : i + 64] for i in starts])
            y = torch.stack([ids[i + 1 : i + 65] for i in starts])
            loss = loss_of(x, y)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        return STEPS * BATCH * 64

    return steps


def training(checkout: Path, *, compiled: bool = False) -> dict[str, float]:
    """Measure AdamW steps on batches of 12 x 64 in float32, without dropout or biases, with exact
    GELU, tied embeddings and gradient clipping. nanoGPT is not compiled, as in its CPU setting."""
    like = {"name": "gpt", **CPU_SETTING, "bias": False, "tied": True, "feedforward": "gelu-exact"}
    mine = trainer(like, compile=compiled)
    began = time.perf_counter()
    mine.train_step()
    first = time.perf_counter() - began
    ids = torch.from_numpy(mine.sampler.tokens.ids_N.astype("int64"))
    nano = their_model(checkout)
    adamw = nano.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    sides = {"ours": steps_of(mine), "nanogpt": their_steps(lambda x, y: nano(x, y)[1], adamw, ids)}
    peer = gpt2_of_transformers()
    if peer is None:
        print("training          transformers NOT MEASURED: it is not installed", flush=True)
    else:
        plain = torch.optim.AdamW(peer.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.1)
        sides["transformers"] = their_steps(
            lambda x, y: nn.functional.cross_entropy(peer(x).logits.flatten(0, 1), y.flatten()),
            plain,
            ids,
        )
    found = in_turn(sides)
    work = FlopCounter(mine.model).per_batch(mine.sampler.batch(0)) / (BATCH * 64)
    share = work * found["ours_tokens_per_second"] / matmul_peak()
    found |= {"share_of_matmul_peak": share}
    return found | ({"first_step_seconds": first} if compiled else step_parts(mine))


def step_parts(mine: Trainer) -> dict[str, float]:
    """Measure milliseconds of one step, and of forward and backward of each of its parts."""
    model, block = mine.model, mine.model.blocks[0]
    x_BTC = torch.randn(BATCH, 64, CPU_SETTING["width"], requires_grad=True)
    there_BTC = torch.randn_like(x_BTC)
    targets_BT = mine.sampler.batch(0).targets_BT

    def layers(part: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        def every() -> None:
            for _ in range(CPU_SETTING["layers"]):
                part(x_BTC).backward(there_BTC)

        return every

    def update() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        mine.optimizer.step()

    mine.train_step()
    gradients = [p.grad for p in model.parameters()]
    actions = {
        "step": mine.train_step,
        "attention": layers(lambda x: block.attention(x, None, None)[0]),
        "feedforward": layers(block.feedforward),
        "norms": layers(lambda x: block.norm_feedforward(block.norm_attention(x))),
        "head_and_loss": lambda: mean_loss(model.head(x_BTC), targets_BT).backward(),
        "clip_and_optimizer": update,
        "batch": lambda: mine.sampler.batch(7),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(3 * ROUNDS):
        for name, action in actions.items():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient if name == "clip_and_optimizer" else None
            began = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - began)
    found = {f"{name}_ms": 1e3 * statistics.median(x) for name, x in times.items()}
    return found | {"rest_ms": 2 * found["step_ms"] - sum(found.values())}


def sampling(checkout: Path, streams: int) -> dict[str, Any]:
    """Compare 500 tokens from each of some streams with nanoGPT's `generate`, which has one."""
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

    rounds = SAMPLING_ROUNDS if streams == 1 else ROUNDS
    return in_turn({"ours": ours, "theirs": their}, rounds)


def tokens_one_by_one() -> dict[str, Any]:
    """Measure microseconds per token of one stream, in blocks of as many tokens as the context: the
    first, which fills it, and those after it. Each value is the median over rounds."""
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


def default_run() -> dict[str, Any]:
    """Measure the peak memory of `make run` in MB, seconds for ten thousand names from its model,
    and seconds of whole processes (the median of five)."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        found: dict[str, Any] = {"megabytes": megabytes_of(["train", "names", "--out", run])}
        loaded = moreish.load(run)
        loaded.sample(1)
        began = time.perf_counter()
        found["names"] = len(loaded.sample(10_000))
        found["names_seconds"] = time.perf_counter() - began
        program = [sys.executable, "-m", "moreish"]
        for name, arguments in (("help", ["--help"]), ("first_sample", ["sample", run, "-n", "1"])):
            times = []
            for _ in range(5):
                began = time.perf_counter()
                subprocess.run([*program, *arguments], stdout=subprocess.DEVNULL, check=True)
                times.append(time.perf_counter() - began)
            found[f"{name}_seconds"] = statistics.median(times)
        return found


def shakespeare_run() -> dict[str, Any]:
    """Measure the peak memory in MB of the default training on tiny Shakespeare."""
    with tempfile.TemporaryDirectory() as folder:
        return {"megabytes": megabytes_of(["train", "shakespeare", "--out", f"{folder}/run"])}


def megabytes_of(arguments: list[str]) -> float:
    """Return the peak memory of a command."""
    watch = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", watch, sys.executable, "-m", "moreish", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training": training,
    "training-compiled": lambda checkout: training(checkout, compiled=True),
    "sampling-1": lambda checkout: sampling(checkout, 1),
    "sampling-32": lambda checkout: sampling(checkout, 32),
    "token-by-token": lambda _: tokens_one_by_one(),
    "default-run": lambda _: default_run(),
    "shakespeare-run": lambda _: shakespeare_run(),
}
PEERED = ("training", "training-compiled", "sampling-1", "sampling-32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    options = parser.parse_args()
    earlier = read_results(options.out)
    report = {name: earlier[name] for name in CASES if name in earlier}
    for name in options.only:
        if options.nanogpt is None and name in PEERED:
            print(f"{name:<17} NOT MEASURED: this needs --nanogpt", flush=True)
            continue
        found = {key: round(value, 4) for key, value in CASES[name](options.nanogpt).items()}
        report[name] = {**found, **provenance()}
        print(f"{name:<17} {found}", flush=True)
        write_results(options.out, report)


if __name__ == "__main__":
    main()
