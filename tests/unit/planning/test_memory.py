"""The memory that training takes is estimated before it starts, and too large ones are rejected."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import STORY, Moreish, Proved
from moreish.data.token_dataset import TokenDataset
from moreish.errors import MoreishError
from moreish.models.ngram.counts import count_ngrams
from moreish.planning import memory
from moreish.training.objectives import next_token_loss
from moreish.utils.files import format_bytes
from support.trainers import make_trainer, record_saved_bytes, set_up_story


def test_the_error_for_too_little_memory_suggests_micro_batches(
    moreish: Moreish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proved: Proved
) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 100)
    train = ["train", source, "--model", "gpt", "--context", "32", "--steps", "2", "--out", "r"]
    monkeypatch.setattr(memory, "free_memory", lambda device: 80e6)
    refused = moreish(*train)
    assert refused.status == 2
    assert re.search(r"needs about \d+ MB of memory, and 80 MB are free: ", refused.err)
    assert not (tmp_path / "r").exists()
    advice = re.search(r"--set (train\.accumulate=\d+)", refused.err)
    assert advice is not None
    assert moreish(*train, "--set", advice[1]).status == 0
    monkeypatch.setattr(memory, "free_memory", lambda device: 1e6)
    assert "fewer layers" in moreish(*train, "--overwrite").err
    proved(7, "runs that do not fit into memory", {"rejected": 2})


GPT = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 24}


@pytest.mark.parametrize(
    ("train", "times"),
    [
        ({"optimizer": "adamw"}, 3),
        ({"optimizer": "sgd"}, 1),
        ({"optimizer": "sgd", "momentum": 0.9}, 2),
        ({"optimizer": "sgd", "steps": None, "minutes": 1.0}, 2),
    ],
)
def test_the_estimate_by_hand(tmp_path: Path, train: dict[str, object], times: int) -> None:
    """It has the gradients, the optimizer state and the copy for a trial; and for each row what
    autograd saves, with a tenth to spare, and the logits twice."""
    trainer = make_trainer(set_up_story(tmp_path, GPT, batch_size=5, **train))
    need = memory.measure_memory(trainer)
    weights = sum(4 * p.numel() for p in trainer.model.parameters())
    assert need.fixed == 64e6 + times * weights
    muon = make_trainer(set_up_story(tmp_path, GPT, batch_size=5, optimizer="muon"))
    # Matrices have one moment; those of one shape are orthogonalized in a batch.
    matrices = 4 * 16 * 16 * 12
    workspace = 4 * min(weights, 4 << 22)
    assert memory.measure_memory(muon).fixed == 64e6 + 3 * weights - matrices + workspace
    row = trainer.sampler.batch(0)[:1]
    with record_saved_bytes(trainer.model) as saved_bytes:
        loss = next_token_loss(trainer.model, row)
    assert loss.isfinite()
    vocabulary = trainer.model.vocab_size
    assert need.row == 1.1 * saved_bytes() + 2 * 4 * 24 * vocabulary
    assert need.rows == 5
    assert [need.total(parts) - need.fixed for parts in (1, 2, 3, 5)] == [
        pytest.approx(rows * need.row) for rows in (5, 3, 2, 1)
    ]


def test_the_smallest_number_of_micro_batches_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(set_up_story(tmp_path, GPT, batch_size=5))
    need = memory.measure_memory(trainer)
    free = [need.total(1)]
    monkeypatch.setattr(memory, "free_memory", lambda device: free[0])
    assert memory.check_training_memory(trainer) == need.total(1)
    for bytes_free, parts in ((need.total(1) - 1, 2), (need.total(2) - 1, 4), (need.total(8), 8)):
        free[0] = bytes_free
        with pytest.raises(MoreishError, match=rf"accumulate={parts} takes .* in {parts} parts"):
            memory.check_training_memory(trainer)
    free[0] = need.total(8) - 1
    with pytest.raises(MoreishError, match="fewer layers"):
        memory.check_training_memory(trainer)


@pytest.mark.parametrize("model", ["kneser-ney", "ngram", "hybrid"])
def test_the_error_for_too_little_counting_memory_suggests_an_order(
    moreish: Moreish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 20)
    train = ["train", source, "--model", model, "--out", "r"]
    train += {"hybrid": ["--steps", "2"], "ngram": ["--set", "model.order=4"]}.get(model, [])
    monkeypatch.setattr(memory, "free_memory", lambda device: 40e3)
    refused = moreish(*train)
    assert refused.status == 2
    assert "counting needs about" in refused.err and "40 kB are free" in refused.err
    advice = re.search(r"--set (model\.(?:counts\.)?order=\d+) would fit", refused.err)
    assert not (tmp_path / "r").exists()
    if model == "hybrid":  # twenty times the counts: none of them would
        assert advice is None or ".counts." in advice[1]
        return
    assert advice is not None
    assert moreish(*train, "--set", advice[1]).status == 0


def test_the_number_of_ngrams_is_extrapolated_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    tokens = TokenDataset(random.integers(0, 9, 200_000).astype(np.uint8), items=False)
    monkeypatch.setattr(memory, "MAX_SAMPLED_TOKENS", 1 << 15)
    for order in (1, 2, 4, 6, 9):
        true = len(count_ngrams(tokens, order, 9)[0])
        assert 0.9 < memory.expected_ngrams(tokens, order, 9) / true < 1.6
    small = TokenDataset(tokens.ids_N[:5000], items=False)
    assert memory.expected_ngrams(small, 4, 9) == len(count_ngrams(small, 4, 9)[0])


def test_the_limit_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.container_memory(tmp_path) == math.inf
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.container_memory(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.container_memory(tmp_path) == 700
    there, inside = 5.0, 7.0
    monkeypatch.setattr(memory, "available_memory", lambda: there)
    monkeypatch.setattr(memory, "container_memory", lambda: inside)
    assert memory.free_memory(torch.device("cpu")) == 5
    there = 9.0
    assert memory.free_memory(torch.device("cpu")) == 7


def test_bytes_are_formatted() -> None:
    texts = {0: "0 bytes", 9: "9 bytes", 999: "999 bytes", 1000: "1.0 kB", 9_949: "9.9 kB"}
    texts |= {10_000: "10 kB", 1_234_567: "1.2 MB", 5e9: "5.0 GB", 2e13: "20 TB", 5e15: "5000 TB"}
    assert {count: format_bytes(count) for count in texts} == texts


WHOLE = """
import json, sys
from moreish import api
from moreish.training.events import Started

said = []
def report(event):
    if isinstance(event, Started):
        said.append(event.memory)

api.train(sys.argv[1], model="gpt", steps=2, context=16, out=sys.argv[2], report=report,
          settings=json.loads(sys.argv[3]))
peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
print(json.dumps({"said": said[0], "peak": 1024 * int(peak)}))
"""


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux has the peak")
def test_the_peak_of_a_training_is_near_its_estimate(tmp_path: Path, proved: Proved) -> None:
    """The peak includes checkpoints and evaluations."""
    source = tmp_path / "story.txt"
    source.write_text(STORY * 6)
    measured = []
    for width in (16, 768):
        train = {"checkpoint_every": 1, "batch_size": 2}
        settings = {"model": {"width": width, "layers": 3}, "train": train}
        out = str(tmp_path / str(width))
        done = subprocess.run(
            [sys.executable, "-c", WHOLE, str(source), out, json.dumps(settings)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        measured.append(json.loads(done.stdout))
    weights = (tmp_path / "768" / "model.safetensors").stat().st_size
    taken, said = (measured[1][name] - measured[0][name] for name in ("peak", "said"))
    ratio = taken / (said + 2 * weights)  # those of the model, and the file that is read at the end
    assert 0.7 < ratio < 1.4, (measured, weights)
    proved(7, "the memory of a whole run is 0.7 to 1.4 times the estimate", {"runs": 1})


MEASURE = """
import json, sys
from moreish.config import resolve
from moreish.data.token_dataset import TokenDataset
from moreish.training.state import StepPlan, TrainState
from moreish.training.trainer import Trainer
from moreish.planning.memory import measure_memory
from moreish.training.objectives import next_token_loss
from moreish.training.setup import build_sampler, set_up

ready = set_up(resolve(json.loads(sys.argv[1])))
model = ready.build_model()
trainer = Trainer(
    model, build_sampler(ready.config, ready.splits["train"], model), ready.config.train,
    objective=next_token_loss, state=TrainState(plan=StepPlan(steps=9, eval_every=9)),
    device=ready.device,
)
status = lambda: open("/proc/self/status").read()  # getrusage counts the parent's memory too
peak = lambda: 1024 * int(status().split("VmHWM:")[1].split()[0])
small = trainer.sampler.batch(0).split(10**6)[0]
trainer.backward(small)  # what libraries take once
before = peak()
expected = measure_memory(trainer).total(ready.config.train.accumulate)
for _ in range(2):
    trainer.train_step()
print(json.dumps({"expected": expected, "taken": peak() - before}))
"""

LARGE = {"name": "gpt", "layers": 4, "heads": 4, "width": 128, "context": 128}


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux has the peak")
@pytest.mark.parametrize(
    ("model", "train"),
    [
        pytest.param(LARGE, {"batch_tokens": 16384}, id="gpt"),
        pytest.param(
            LARGE,
            {"batch_tokens": 16384, "activation_checkpointing": True},
            id="activation-checkpointing",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            LARGE,
            {"batch_tokens": 16384, "accumulate": 4},
            id="micro-batches",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            {**LARGE, "feedforward": "swiglu", "norm": "rms"},
            {"batch_tokens": 8192},
            id="gpt-swiglu",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            {"name": "lstm", "width": 256},
            {"batch_tokens": 16384},
            id="lstm",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_the_memory_of_steps_is_near_its_estimate(
    model: dict[str, object], train: dict[str, object], tmp_path: Path, proved: Proved
) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 800)
    train = {"steps": 2, "lr": 0.001, **train}
    tree = {"data": {"source": str(source)}, "model": model, "train": train}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(tree)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ratio = found["expected"] / found["taken"]
    assert 0.7 < ratio < 1.6, found
    proved(7, "the estimate is 0.7 to 1.6 times the memory that is used", {"runs": 1})
