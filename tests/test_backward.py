"""Gradients in parts, in bfloat16 and compiled; what a GPU's share of its peak is counted from."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import STORY, item_tokens
from moreish import api
from moreish.config import TrainConfig
from moreish.data.batches import Sampler
from moreish.data.tokens import Batch, Tokens
from moreish.errors import MoreishError
from moreish.models import Model, build_model, model_config
from moreish.run import Run
from moreish.training.backward import Backward, in_bfloat16
from moreish.training.events import Event, Step, silent
from moreish.training.objective import next_token, with_squared_weights
from moreish.training.utilisation import Work, gpu_peak

CPU = torch.device("cpu")
NAMES = ["a", "bartholomew", "bo", "cleo", "clementine", "di", "ed"]
OBJECTIVE = with_squared_weights(next_token, 0.1)


def tiny(name: str = "gpt", **settings: Any) -> Model:
    sizes = {"layers": 2, "heads": 2, "width": 16, "context": 12} if name == "gpt" else {}
    torch.manual_seed(0)
    model = build_model(model_config({"name": name, **sizes, **settings}), 30)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch_of_names(tokens: Tokens | None = None) -> Batch:
    """Rows of very different lengths, so that parts differ in what is scored."""
    tokens = item_tokens(NAMES)[1] if tokens is None else tokens
    return Sampler(tokens, batch_size=7, length=12, overlap=0, seed=0).batch(0)


def gradient(model: Model, **settings: Any) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = Backward(model, OBJECTIVE, TrainConfig(**settings), CPU)(batch_of_names())
    flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    assert all(part.dtype == torch.float32 for part in flat)
    return loss.item(), torch.cat(flat)


@pytest.mark.parametrize("parts", [2, 3, 7, 100])
def test_parts_have_the_gradient_of_the_whole(parts: int) -> None:
    loss, whole = gradient(tiny())
    in_parts, summed = gradient(tiny(), accumulate=parts)
    assert in_parts == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(summed, whole, atol=1e-6, rtol=1e-5)


def test_one_part_is_the_objective_itself() -> None:
    model = tiny()
    found, whole = gradient(model)
    model.zero_grad()
    loss = OBJECTIVE(model, batch_of_names())
    loss.backward()
    assert found == loss.item()
    plain = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.equal(plain, whole)


def test_parts_are_the_rows() -> None:
    batch = batch_of_names()
    parts = batch.parts(3)
    assert [len(part.tokens_BT) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part.targets_BT for part in parts]), batch.targets_BT)
    assert sum(part.scored for part in parts) == batch.scored == sum(map(len, NAMES)) + len(NAMES)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt", {"positions": "rotary", "norm": "rms", "qk_norm": True, "feedforward": "swiglu"}),
        ("gpt", {"grams": 3, "tied": True, "softcap": 15.0, "kv_heads": 1}),
        ("mlp", {"context": 3}),
        ("lstm", {"width": 8, "context": 12}),
    ],
)
def test_bfloat16_is_the_same_to_its_precision(name: str, settings: dict[str, Any]) -> None:
    loss, exact = gradient(tiny(name, **settings))
    rounded_loss, rounded = gradient(tiny(name, **settings), precision="bfloat16")
    assert rounded_loss == pytest.approx(loss, rel=0.02)
    assert rounded_loss != loss
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_without_a_gpu_all_is_float32() -> None:
    assert not in_bfloat16("auto", CPU)
    assert in_bfloat16("bfloat16", CPU)
    assert not in_bfloat16("float32", torch.device("cuda"))


def test_a_compiled_model_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MoreishError, match=r"train\.compile needs a C\+\+ compiler"):
        gradient(tiny(), compile=True)


def test_what_is_compiled_is_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(torch, "compile", lambda function: seen.append(function) or function)
    assert gradient(tiny(), compile=True)[0] == gradient(tiny())[0]
    assert seen == [OBJECTIVE]


@pytest.mark.soak
def test_a_compiled_training_goes_the_same_way(tmp_path: Path) -> None:
    """In processes of their own: what checks shapes in tests cannot be compiled. Most of the time
    is the C++ compiler's."""
    source = tmp_path / "story.txt"
    source.write_text(STORY * 8, encoding="utf-8")
    losses = []
    for compiled in ("false", "true"):
        out = tmp_path / compiled
        settings = ["model.layers=1", "model.width=16", f"train.compile={compiled}"]
        flags = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "moreish", "train", source, "--out", out, "--steps", "5"]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
        subprocess.run([*command, *flags], env=environment, check=True, capture_output=True)
        losses.append(api.load(out).scores["val"].loss)
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_run_in_parts_resumes_exactly(tmp_path: Path) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 8, encoding="utf-8")
    model = {"layers": 1, "heads": 2, "width": 16, "dropout": 0.2}

    def train(name: str, report: Any = silent) -> Run:
        settings = {"model": model, "train": {"accumulate": 3}}
        return api.train(source, steps=20, out=tmp_path / name, report=report, settings=settings)

    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and event.step == 7:
            assert event.utilisation is None
            os.kill(os.getpid(), signal.SIGINT)

    resumed = api.resume(train("cut", interrupt).path, report=silent).model.state_dict()
    whole = train("whole").model.state_dict()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.parametrize("tied", [False, True])
def test_work_is_what_pytorch_counts(tied: bool) -> None:
    """Of the products with weights; attention's own kernels are counted by convention."""
    model, tokens = tiny(tied=tied), torch.zeros(3, 12, dtype=torch.long)
    batch = Batch(tokens_BT=tokens, targets_BT=tokens)
    with FlopCounterMode(display=False) as counter:
        next_token(model, batch).backward()
    products = sum(
        flops
        for operation, flops in counter.get_flop_counts()["Global"].items()
        if "mm" in str(operation)
    )
    attention = 12 * 2 * 16 * 12 * tokens.numel()
    assert Work(model).of(batch) - attention == products


def test_known_gpus() -> None:
    assert gpu_peak("NVIDIA H100 80GB HBM3") == gpu_peak("NVIDIA H200") == 989e12
    assert gpu_peak("NVIDIA L40S") == 362e12
    assert gpu_peak("NVIDIA GeForce GTX 1080") is None
