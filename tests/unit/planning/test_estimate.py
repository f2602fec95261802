"""Estimates of a training run against published tables, PyTorch's counts, and measurements."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conftest import ROOT, STORY, Moreish, needs_gpt2
from moreish import api
from moreish.config import resolve
from moreish.data.sampler import BatchSampler
from moreish.data.token_dataset import Batch, TokenDataset
from moreish.errors import MoreishError
from moreish.models import build_model, model_config
from moreish.models.gpt.config import GPTConfig
from moreish.models.gpt.model import GPT
from moreish.planning import memory
from moreish.planning.estimate import (
    Estimate,
    build_trainable_model,
    estimate,
    measure_load,
    predict_load,
    saved_bytes,
)
from moreish.settings import from_toml
from moreish.training.events import ignore
from moreish.training.flops import FlopCounter, parse_peak_flops
from moreish.training.objectives import next_token_loss
from support.random_transformers import save_random_model
from support.trainers import make_trainer, record_saved_bytes, set_up_story

PAGE = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")

GPT2 = {
    "GPT-2 small": (12, 768, 12, 124, 117),
    "GPT-2 medium": (24, 1024, 16, 355, 345),
    "GPT-2 large": (36, 1280, 20, 774, 762),
    "GPT-2 XL": (48, 1600, 25, 1558, 1542),
}
"""Layers, width, heads; millions of parameters in OpenAI's weights and in Radford et al. 2019."""

GPT3 = {
    "GPT-3 Small": (12, 768, 12, 125, 2.25e20, 64, "0.5 M", "6.0e-4"),
    "GPT-3 Medium": (24, 1024, 16, 356, 6.41e20, 64, "0.5 M", "3.0e-4"),
    "GPT-3 Large": (24, 1536, 16, 760, 1.37e21, 96, "0.5 M", "2.5e-4"),
    "GPT-3 XL": (24, 2048, 16, 1320, 2.38e21, 128, "1 M", "2.0e-4"),
    "GPT-3 2.7B": (32, 2560, 32, 2650, 4.77e21, 80, "1 M", "1.6e-4"),
    "GPT-3 6.7B": (32, 4096, 32, 6660, 1.20e22, 128, "2 M", "1.2e-4"),
    "GPT-3 13B": (40, 5120, 40, 12850, 2.31e22, 128, "2 M", "1.0e-4"),
    "GPT-3 175B": (96, 12288, 96, 174600, 3.14e23, 128, "3.2 M", "0.6e-4"),
}
"""Layers, width, heads; millions of parameters; FLOPs for 300 billion tokens (Brown et al. 2020,
table D.1); head size, batch size in tokens and learning rate (table 2.1)."""

CHINCHILLA = {400e6: 8.0e9, 1e9: 20.2e9, 10e9: 205.1e9, 67e9: 1.5e12, 175e9: 3.7e12, 280e9: 5.9e12}
"""Parameters and compute-optimal tokens (Hoffmann et al. 2022, table 3)."""


def gpt(layers: int, width: int, heads: int, context: int) -> GPT:
    """Of GPT-2's arrangement and vocabulary, without memory for its weights."""
    model = {"name": "gpt", "layers": layers, "width": width, "heads": heads, "context": context}
    found = build_trainable_model(resolve({"model": {**model, "tied": True}}), 50_257)
    assert isinstance(found, GPT)
    return found


def on_page(*cells: str) -> None:
    """A row of a table of docs/planning.md."""
    assert f"| {' | '.join(cells)} |" in PAGE, cells


@pytest.mark.parametrize("name", GPT2)
def test_parameters_are_those_of_gpt2(name: str) -> None:
    layers, width, heads, millions, printed = GPT2[name]
    count = gpt(layers, width, heads, 1024).num_parameters()
    assert round(count / 1e6) == millions
    on_page(
        name,
        f"{layers} x {width}, {heads} heads",
        f"{count:,}",
        f"{millions:,} M",
        f"{printed:,} M",
    )


@pytest.mark.parametrize("name", GPT3)
def test_parameters_and_flops_are_those_of_gpt3(name: str) -> None:
    """Their table leaves attention out of the operations; so does the first of ours."""
    layers, width, heads, millions, published, head_size, batch, lr = GPT3[name]
    assert head_size == width // heads
    model = gpt(layers, width, heads, 2048)
    count, tokens = model.num_parameters(), 300e9
    assert count / 1e6 == pytest.approx(millions, rel=0.004)
    assert 6 * count * tokens == pytest.approx(published, rel=0.005)
    whole = FlopCounter(model).per_position(2048) * tokens
    assert 1.02 < whole / published < 1.3
    on_page(
        name, f"{layers} x {width}, {heads} heads", f"{head_size}", batch, lr,
        f"{count / 1e6:,.0f} M", f"{millions:,} M",
        f"{6 * count * tokens:.2e}", f"{published:.2e}", f"{whole:.2e}",
    )  # fmt: skip


def test_compute_optimal_tokens_are_about_chinchillas() -> None:
    for parameters, tokens in CHINCHILLA.items():
        assert 20 * parameters == pytest.approx(tokens, rel=0.12)
    config = resolve(from_toml(ROOT / "configs" / "gpt2-124m.toml"))
    found = estimate(config, 50_257, predict_load(config, 50_257))
    assert found.optimal_tokens == 20 * found.parameters


SMALL = {"name": "gpt", "layers": 2, "heads": 4, "width": 128, "context": 64}


def test_flops_are_those_that_pytorch_counts() -> None:
    """Of training, with attention as plain products, which its counter knows."""
    model = build_model(model_config({**SMALL, "kv_heads": 2, "feedforward": "swiglu"}), 300)
    batch, work = batch_of(300, 64), FlopCounter(model)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        next_token_loss(model.train(), batch).backward()
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    positions = batch.tokens_BT.numel()
    assert counts.pop("aten.bmm") == positions * (work.per_position(64) - work.per_position(0))
    assert sum(counts.values()) == positions * work.per_position(0)
    assert counts.keys() <= {"aten.mm", "aten.addmm"}


def batch_of(vocabulary: int, length: int) -> Batch:
    ids = np.random.default_rng(0).integers(vocabulary, size=5 * length, dtype=np.uint16)
    sampler = BatchSampler(
        TokenDataset(ids, items=False), batch_size=2, length=length, overlap=0, seed=0
    )
    return sampler.batch(0)


ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "relu": {"feedforward": "relu", "tied": True, "bias": False},
    "swiglu": {"feedforward": "swiglu"},
    "rms": {"norm": "rms"},
    "after": {"norm_place": "after"},
    "rotary": {"positions": "rotary"},
    "unit": {"qk_norm": True},
    "shared": {"kv_heads": 2},
    "shared rotary": {"kv_heads": 2, "positions": "rotary"},
    "shared unit": {"kv_heads": 2, "qk_norm": True},
    "softcap": {"softcap": 15.0},
    "llama": {"kv_heads": 2, "positions": "rotary", "norm": "rms", "feedforward": "swiglu"},
    "modern": {"positions": "rotary", "norm": "rms", "qk_norm": True, "feedforward": "relu2",
               "softcap": 15.0, "bias": False},
}  # fmt: skip


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_activations_are_what_autograd_saves(name: str, *, bfloat16: bool) -> None:
    config = model_config({**SMALL, **ARRANGEMENTS[name]})
    assert isinstance(config, GPTConfig)
    model, batch = build_model(config, 300), batch_of(300, 64)
    with (
        record_saved_bytes(model) as saved,
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        loss = next_token_loss(model.train(), batch)
    expected = sum(saved_bytes(config, 300, half=bfloat16)) * batch.tokens_BT.numel()
    expected += 2 * FlopCounter(model).weights * bfloat16  # autocast's copies
    assert loss.isfinite()
    assert expected == pytest.approx(saved(), rel=0.01)


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"optimizer": "muon", "accumulate": 3},
        {"optimizer": "sgd"},
        {"activation_checkpointing": True},
    ],
)
def test_memory_is_that_of_the_measured_estimate(tmp_path: Path, train: dict[str, Any]) -> None:
    """Of one device here: what `train` asks for before it begins, which is held against the peak of
    real training runs (tests/unit/planning/test_memory.py)."""
    setup = set_up_story(tmp_path, SMALL, batch_size=7, **train)
    measured = memory.measure_memory(make_trainer(setup)).total(setup.config.train.accumulate)
    found = estimate(setup.config, setup.tokenizer.vocab_size, measure_load(setup))
    assert found.rows_at_once == (3 if "accumulate" in train else 7)
    assert found.ddp.total is not None and found.fsdp is None
    assert found.ddp.total - found.ddp.weights == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_the_size_of_a_checkpoint_is_that_of_the_estimate(tmp_path: Path, optimizer: str) -> None:
    (tmp_path / "story.txt").write_text(STORY * 30)
    settings = {"model": {**SMALL, "tied": True}, "train": {"optimizer": optimizer}}
    arguments = {"steps": 1, "settings": settings}
    found = api.plan(tmp_path / "story.txt", **arguments)
    run = api.train(tmp_path / "story.txt", out=tmp_path / "run", report=ignore, **arguments)
    assert isinstance(found, Estimate)
    size = sum(path.stat().st_size for path in run.checkpoints.rglob("*.safetensors"))
    assert size == pytest.approx(found.checkpoint, rel=0.01)
    best = (run.path / "model.safetensors").stat().st_size
    assert found.disk == pytest.approx(3 * size + 2 * best, rel=0.01)
    assert found.parameters == run.record.parameters


def test_memory_of_many_devices_by_hand() -> None:
    model = {"name": "gpt", "layers": 3, "width": 8, "heads": 2, "context": 4, "bias": False}
    config = resolve({"model": model, "train": {"batch_size": 10, "steps": 5, "accumulate": 8}})
    found = estimate(
        config, 20, predict_load(config, 20), devices=4, peak=1e9, mfu=0.5, precision="bfloat16"
    )
    block = 4 * (12 * 8 * 8 + 2 * 8)
    outside = 4 * (20 * 8 + 4 * 8 + 8 + 20 * 8)
    weights = 3 * block + outside
    cast = 2 * (3 * 12 * 8 * 8 + 20 * 8)
    assert (found.rows_at_once, found.tokens) == (2, 5 * 10 * 4)  # of 3, in 2 parts
    ddp, fsdp = found.ddp, found.fsdp
    assert fsdp is not None
    assert (ddp.weights, ddp.gradients, ddp.moments, ddp.copies) == (
        weights,
        weights,
        2 * weights,
        cast + weights,
    )
    quarter = weights / 4
    assert (fsdp.weights, fsdp.gradients, fsdp.moments) == (quarter, quarter, 2 * quarter)
    assert fsdp.copies == cast + 2 * outside + 3 * block
    assert (fsdp.activations, fsdp.logits) == (ddp.activations, ddp.logits)
    operations = 6 * (3 * 12 * 8 * 8 + 20 * 8) + 12 * 3 * 8 * 4
    assert found.operations_per_position == operations
    assert found.hours == pytest.approx(operations * 200 / (4 * 1e9 * 0.5) / 3600)


def test_the_hours_of_nanogpt(moreish: Moreish) -> None:
    """Half a million tokens a step, 300 billion in all, on eight A100s; and the page shows it."""
    recipe = ROOT / "configs" / "gpt2-124m.toml"
    done = moreish("plan", "--config", recipe, "--gpus", 8, "--gpu", "a100")
    assert done.status == 0
    assert f"```\n{done.out}```" in PAGE
    found = moreish("plan", "--config", recipe, "--gpus", 8, "--gpu", "A100", "--json").json[
        "estimate"
    ]
    assert found["load"]["tokens"] == 491_520
    assert found["tokens"] == pytest.approx(300e9, rel=0.02)
    assert 24 * 3.5 < found["hours"] < 24 * 4.5
    assert found["ddp"]["total"] < 40e9


def test_the_comments_of_the_modern_recipe_agree_with_its_estimate() -> None:
    recipe = ROOT / "configs" / "gpt2-124m-modern.toml"
    found = api.plan(config=recipe)
    assert isinstance(found, Estimate) and found.tokens is not None
    head = " ".join(recipe.read_text().partition("\n[data]")[0].replace("\n#", "").split())
    multiplied = found.parameters - found.embeddings
    for part in (
        f"{found.tokens / 1e9:.1f} billion tokens",
        f"{found.tokens / multiplied:.0f} per non-embedding parameter",
        f"({multiplied / 1e6:.0f} million)",
        f"{found.tokens / found.parameters:.0f} per parameter",
        f"({found.parameters / 1e6:.0f} million)",
        f"would be {found.optimal_tokens / 1e9:.2f} billion",
    ):
        assert part in head


@pytest.mark.parametrize(("gpu", "gpus"), [("a100", 1), ("a100", 8), ("h100", 1), ("h100", 8)])
@pytest.mark.parametrize("name", ["gpt2-124m", "gpt2-124m-modern"])
def test_the_hours_on_the_page(name: str, gpu: str, gpus: int) -> None:
    found = api.plan(config=ROOT / "configs" / f"{name}.toml", gpus=gpus, gpu=gpu)
    assert isinstance(found, Estimate)
    assert found.hours is not None and found.operations is not None
    on_page(
        f"`{name}`", f"{gpus} x {gpu.upper()}", f"{found.operations:.2e}", f"{found.hours:,.1f}"
    )


@pytest.mark.parametrize("asked", ["train.track=wandbb", "train.optimizer=adamm"])
def test_plan_rejects_the_names_that_train_rejects(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    of_recipe = ["--config", ROOT / "configs" / "gpt2-124m.toml"]
    for arguments in (["train"], ["plan"], ["plan", *of_recipe]):
        result = moreish(*arguments, "--set", asked)
        assert result.status == 2 and "did you mean '" in result.err, arguments
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert moreish("plan", *of_recipe, "--set", "train.track=wandb").status == 0


def test_a_peak_is_a_name_or_a_number() -> None:
    assert parse_peak_flops("a100") == parse_peak_flops("A100") == parse_peak_flops("312") == 312e12
    assert parse_peak_flops("4090") == 165e12
    assert parse_peak_flops("0.5") == 0.5e12
    for wrong in ("a10O", "-3", "0", "inf", "nan", ""):
        with pytest.raises(MoreishError, match="TFLOP/s"):
            parse_peak_flops(wrong)


def test_an_estimate_that_depends_on_missing_data_is_an_error(
    moreish: Moreish, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[data]\nsource = "far-away"\n[model]\nname = "gpt"\n')
    plan = ["plan", "--config", recipe]
    assert "its text decides" in moreish(*plan).err
    assert "no file, folder or built-in" in moreish(*plan, "far-away").err
    assert (
        "train.batch_size=all needs its size"
        in moreish(*plan, "--tokenizer", "byte", "--set", "train.batch_size=all").err
    )
    assert "unknown tokenizer" in moreish(*plan, "--tokenizer", "gtp2").err
    sizes = {}
    for name, more in (("byte", []), ("gpt2", []), ("bpe", ["--vocab-size", 700])):
        done = moreish(*plan, "--tokenizer", name, "--epochs", 2, "--gpu", 100, *more)
        assert "depends on the data" in done.out
        sizes[name] = moreish(*plan, "--tokenizer", name, *more, "--json").json["estimate"][
            "vocabulary"
        ]
    assert sizes == {"byte": 257, "gpt2": 50_257, "bpe": 700}
    assert "--gpu NAME" in moreish(*plan, "--tokenizer", "byte", "--steps", 3).out


def test_what_cannot_be_planned_is_said(moreish: Moreish) -> None:
    for arguments, message in (
        (["--model", "ngram"], "ngram is fitted by counting"),
        (["--gpus", 2], "the planner chooses for this machine"),
        (["--model", "gpt", "--gpus", 0], "1 or more"),
        (["--model", "gpt", "--mfu", 1.5], "above 0"),
        (["--model", "gpt", "--gpu", "h10"], "did you mean 'H100'"),
    ):
        refused = moreish("plan", *arguments)
        assert refused.status == 2
        assert message in refused.err


def test_an_estimate_with_data(moreish: Moreish, tmp_path: Path) -> None:
    Path("story.txt").write_text(STORY * 50)
    plan = ["plan", "story.txt", "--model"]
    gpt = [*plan, "gpt", "--epochs", 3, "--gpu", 10, "--set", "train.precision=float32"]
    found = moreish(*gpt, "--json").json["estimate"]
    assert found["tokens"] == pytest.approx(3 * found["load"]["data_tokens"], rel=0.05)
    assert found["precision"] == "float32"
    done = moreish(*gpt)
    assert "3 epochs" in done.out
    assert re.search(r"time +under 1 s on 1 x 10 TFLOP/s at 30% MFU", done.out)
    assert "2 minutes, as requested" in moreish(*plan, "lstm", "--minutes", 2).out
    assert moreish(*plan, "mlp", "--json").json["estimate"]["ddp"]["total"] is None


def test_the_estimate_of_a_fine_tuning(moreish: Moreish, tmp_path: Path) -> None:
    theirs = save_random_model(tmp_path / "theirs", "gpt2")
    Path("story.txt").write_text(STORY * 50)
    plan = ["plan", "story.txt", "--config", ROOT / "configs" / "shakespeare-gpt2-finetune.toml"]
    refused = moreish(*plan, "--set", "init_from=hf:nobody/nothing")
    assert "plan downloads nothing" in refused.err
    assert "hf:: there is no such folder" in moreish(*plan, "--set", "init_from=hf:").err
    needs_gpt2()
    by_name = moreish(*plan, "--json").json["estimate"]  # OpenAI's smallest
    assert by_name["parameters"] == 124_439_808
    too_many = moreish(*plan, "--gpus", "33", "--gpu", "h100")
    assert too_many.status == 2 and f"a step has {by_name['load']['rows']} rows" in too_many.err
    of_folder = moreish(*plan, "--set", f"init_from=hf:{tmp_path / 'theirs'}", "--json").json
    assert of_folder["estimate"]["parameters"] == theirs.num_parameters()
    api.import_hf(tmp_path / "theirs", out="run")
    of_run = moreish(*plan, "--set", "init_from=run", "--json").json
    assert of_run["estimate"] == of_folder["estimate"]
    assert not Path("runs").exists()


def test_the_recipe_in_json(moreish: Moreish) -> None:
    recipe = ROOT / "configs" / "gpt2-124m.toml"
    found = moreish("plan", "--config", recipe, "--json").json["recipe"]
    assert resolve(found) == resolve(from_toml(recipe))
