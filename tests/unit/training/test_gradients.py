"""Gradients with micro-batches, in 16 bits and compiled; FLOPs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import STORY, Moreish, item_tokens
from moreish.config import TrainConfig
from moreish.data.sampler import BatchSampler
from moreish.data.token_dataset import Batch, TokenDataset
from moreish.models import Model, build_model, model_config
from moreish.training.events import Skipped, Step
from moreish.training.flops import FlopCounter, gpu_peak_flops
from moreish.training.gradients import Backward
from moreish.training.objectives import next_token_loss, with_weight_penalty
from moreish.training.precision import resolve_precision, unsupported_settings
from moreish.training.trainer import Trainer
from support.trainers import make_trainer, set_up_story

CPU = torch.device("cpu")
NAMES = ["a", "bartholomew", "bo", "cleo", "clementine", "di", "ed"]
OBJECTIVE = with_weight_penalty(next_token_loss, 0.1)


def tiny(name: str = "gpt", **settings: Any) -> Model:
    sizes = {"layers": 2, "heads": 2, "width": 16, "context": 12} if name == "gpt" else {}
    torch.manual_seed(0)
    model = build_model(model_config({"name": name, **sizes, **settings}), 30)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch_of_names(tokens: TokenDataset | None = None) -> Batch:
    """Return rows of very different lengths, so that micro-batches differ in their targets."""
    tokens = item_tokens(NAMES)[1] if tokens is None else tokens
    return BatchSampler(tokens, batch_size=7, length=12, overlap=0, seed=0).batch(0)


def gradient(model: Model, **settings: Any) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = Backward(model, OBJECTIVE, TrainConfig(**settings), CPU)(batch_of_names())
    flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    assert all(part.dtype == torch.float32 for part in flat)
    return loss.item(), torch.cat(flat)


@pytest.mark.parametrize("parts", [2, 3, 7, 100])
def test_micro_batches_have_the_gradient_of_the_batch(parts: int) -> None:
    loss, whole = gradient(tiny())
    in_parts, summed = gradient(tiny(), accumulate=parts)
    assert in_parts == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(summed, whole, atol=1e-6, rtol=1e-5)


def test_without_micro_batches_the_gradient_is_that_of_the_objective() -> None:
    model = tiny()
    found, whole = gradient(model)
    model.zero_grad()
    loss = OBJECTIVE(model, batch_of_names())
    loss.backward()
    assert found == loss.item()
    plain = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.equal(plain, whole)


def test_micro_batches_split_the_rows() -> None:
    batch = batch_of_names()
    parts = batch.split(3)
    assert [len(part.tokens_BT) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part.targets_BT for part in parts]), batch.targets_BT)
    assert (
        sum(part.num_targets for part in parts)
        == batch.num_targets
        == sum(map(len, NAMES)) + len(NAMES)
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt", {"positions": "rotary", "norm": "rms", "qk_norm": True, "feedforward": "swiglu"}),
        ("gpt", {"ngram_embedding": 3, "tied": True, "softcap": 15.0, "kv_heads": 1}),
        ("mlp", {"context": 3}),
        ("lstm", {"width": 8, "context": 12}),
    ],
)
def test_the_gradient_in_bfloat16(name: str, settings: dict[str, Any]) -> None:
    loss, exact = gradient(tiny(name, **settings))
    rounded_loss, rounded = gradient(tiny(name, **settings), precision="bfloat16")
    assert rounded_loss == pytest.approx(loss, rel=0.02)
    assert rounded_loss != loss
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_the_automatic_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(precision: str, device: torch.device = CPU) -> torch.dtype:
        return resolve_precision(TrainConfig(precision=precision), device)

    assert found("auto") is torch.float32
    assert found("bfloat16") is torch.bfloat16
    gpu = torch.device("cuda")
    assert found("float32", gpu) is torch.float32
    for there, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda there=there, **_: there)
        assert found("auto", gpu) is expected
    assert found("float16", torch.device("meta")) is torch.float32  # has no autocast


def test_unsupported_settings_have_no_effect_and_are_reported(
    moreish: Moreish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 8, encoding="utf-8")
    monkeypatch.setattr("shutil.which", lambda name: None)
    train = ["train", source, "--model", "lstm", "--steps", "2", "--out", tmp_path / "run"]
    wanted = ["--set", "train.compile=true", "--set", "train.activation_checkpointing=true"]
    done = moreish(*train, *wanted)
    assert done.status == 0
    assert "train.compile needs a C++ compiler, such as g++: not compiled" in done.out
    assert "train.activation_checkpointing has no effect" in done.out
    config = TrainConfig(precision="float16")
    assert unsupported_settings(config, tiny(), torch.device("meta")) == [
        "float16 is not supported on meta: using float32"
    ]


@pytest.mark.parametrize("settings", [{}, {"ngram_embedding": 3, "dropout": 0.2}])
def test_activation_checkpointing_gives_the_same_gradient(settings: dict[str, Any]) -> None:
    found = []
    for recompute in (False, True):
        model = tiny(layers=3, **settings)
        model.activation_checkpointing = recompute
        torch.manual_seed(0)
        found.append(gradient(model))
    (kept_loss, kept), (loss, again) = found
    assert loss == kept_loss and torch.equal(again, kept)


def scaled_trainer(folder: Path, precision: str) -> Trainer:
    model = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 16}
    return make_trainer(set_up_story(folder, model, lr=0.01, precision=precision), OBJECTIVE)


def test_the_loss_scale_of_float16(tmp_path: Path) -> None:
    exact, rounded = (scaled_trainer(tmp_path, precision) for precision in ("float32", "float16"))
    rounded.state.loss_scale = 2.0**40  # far too large
    for trainer in (exact, rounded):
        for _ in range(3):
            done = trainer.train_step()
            assert isinstance(done, Step)
    found = rounded.state.loss_scale
    assert 1 < found < 2.0**30 and rounded.state.skipped_in_a_row == 0
    for one, other in zip(exact.model.parameters(), rounded.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.02)
    rounded.state.loss_scale, rounded.state.steps_since_rescale = 64.0, 1999
    rounded.train_step()
    assert (rounded.state.loss_scale, rounded.state.steps_since_rescale) == (64.0, 2000)
    rounded.train_step()
    assert (rounded.state.loss_scale, rounded.state.steps_since_rescale) == (128.0, 1)


def test_divergence_in_float16_is_detected(tmp_path: Path) -> None:
    trainer = scaled_trainer(tmp_path, "float16")
    with torch.no_grad():
        trainer.model.get_parameter("head.weight").fill_(torch.inf)
    assert isinstance(trainer.train_step(), Skipped)


def test_the_objective_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(torch, "compile", lambda function: seen.append(function) or function)
    assert gradient(tiny(), compile=True)[0] == gradient(tiny())[0]
    assert seen == [OBJECTIVE]


@pytest.mark.soak
def test_a_compiled_model_has_the_same_loss(tmp_path: Path) -> None:
    """Compilation takes a minute. It runs in other processes, because the shape checks of the tests
    cannot be compiled."""
    source = tmp_path / "story.txt"
    source.write_text(STORY * 8, encoding="utf-8")
    losses = []
    for flag in ("false", "true"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "moreish", "train", source, "--model", "gpt", "--json"),
                *("--steps", "5", "--out", tmp_path / flag, "--set", f"train.compile={flag}"),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        losses.append(json.loads(done.stdout)["splits"]["val"]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_flops_are_what_pytorch_counts(tied: bool) -> None:
    """PyTorch does not count the kernels of attention."""
    model, tokens = tiny(tied=tied), torch.zeros(3, 12, dtype=torch.long)
    batch = Batch(tokens_BT=tokens, targets_BT=tokens)
    with FlopCounterMode(display=False) as counter:
        next_token_loss(model, batch).backward()
    products = sum(
        flops
        for operation, flops in counter.get_flop_counts()["Global"].items()
        if "mm" in str(operation)
    )
    attention = 12 * 2 * 16 * 12 * tokens.numel()
    assert FlopCounter(model).per_batch(batch) - attention == products


def test_peaks_of_gpus() -> None:
    assert gpu_peak_flops("NVIDIA H100 80GB HBM3") == gpu_peak_flops("NVIDIA H200") == 989e12
    assert gpu_peak_flops("NVIDIA L40S") == 362e12
    assert gpu_peak_flops("NVIDIA GeForce GTX 1080") is None
