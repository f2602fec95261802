"""What a training will need is known before it begins, and what does not fit is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import STORY, Moreish, Proved
from moreish.training import memory

MEASURE = """
import json, sys
from moreish.config import resolve
from moreish.training.budget import Plan
from moreish.training.loop import Position, Trainer
from moreish.training.memory import needed
from moreish.training.objective import next_token
from moreish.training.prepare import make_sampler, prepare

ready = prepare(resolve(json.loads(sys.argv[1])))
model = ready.model()
trainer = Trainer(
    model, make_sampler(ready.config, ready.splits["train"], model), ready.config.train,
    objective=next_token, position=Position(plan=Plan(steps=9, eval_every=9)), device=ready.device,
)
status = lambda: open("/proc/self/status").read()  # getrusage counts the parent's memory too
peak = lambda: 1024 * int(status().split("VmHWM:")[1].split()[0])
small = trainer.sampler.batch(0).parts(10**6)[0]
trainer.backward(small)  # what libraries take once
before = peak()
expected = needed(trainer).total(ready.config.train.accumulate)
for _ in range(2):
    trainer.step()
print(json.dumps({"expected": expected, "taken": peak() - before}))
"""

GPT = {"name": "gpt", "layers": 4, "heads": 4, "width": 128, "context": 128}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize(
    ("model", "train"),
    [
        (GPT, {"batch_tokens": 16384}),
        (GPT, {"batch_tokens": 16384, "accumulate": 4}),
        ({**GPT, "feedforward": "swiglu", "norm": "rms"}, {"batch_tokens": 8192}),
        ({"name": "lstm", "width": 256}, {"batch_tokens": 16384}),
    ],
    ids=["gpt", "gpt-in-parts", "gpt-swiglu", "lstm"],
)
def test_the_estimate_is_near_what_is_taken(
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
    proved(7, "the estimate is 0.7 to 1.6 times what is taken", {"trainings": 1})


def test_what_does_not_fit_is_refused_with_what_would(
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
    proved(7, "trainings that did not fit", {"refused": 2})
