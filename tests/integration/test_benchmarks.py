"""The GPU benchmarks run with tiny sizes, and the reliability page names missing records."""

import json
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import moreish
from conftest import ROOT
from moreish.runs.run import Run
from support.faults import SOAK_KILLS, describe_kills


def load_benchmark(name: str) -> ModuleType:
    spec = util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    return load_benchmark("gpu")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_utilization_on_a_cpu(gpu: ModuleType, optimizer: str) -> None:
    tiny = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 8, "tied": True}
    found = gpu.utilization(tiny, 300, 6, 2, accumulate=3, optimizer=optimizer)
    assert found["tokens_per_second"] > 0
    assert found["tflops"] > 0


def test_the_lectures_model_on_a_cpu(
    gpu: ModuleType, shakespeare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the beginning of Shakespeare, whose evaluations take less time."""
    beginning = tmp_path / "beginning.txt"
    beginning.write_text(shakespeare[:50_000], encoding="utf-8")
    train = moreish.train

    def train_on_the_beginning(source: str, **options: Any) -> Run:
        assert source == "shakespeare"
        return train(beginning, **options)

    monkeypatch.setattr(moreish, "train", train_on_the_beginning)
    tiny = {**gpu.LECTURE_MODEL, "layers": 1, "width": 12, "context": 256}
    found = gpu.shakespeare(tiny, 4, batch_size=2, eval_every=2)
    assert [at["step"] for at in found["curve"]] == [2, 4]
    assert found["seconds_to_goal"] is None
    assert found["loss"] > gpu.GOAL


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_requires_a_gpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--out", tmp_path / "x.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "there is no CUDA GPU here" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def reliability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, which writes into an empty folder."""
    module = load_benchmark("reliability")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "reliability.json")
    monkeypatch.setattr(module, "PAGE", tmp_path / "reliability.md")
    return module


def test_a_page_without_soak_tests_requires_an_option(
    reliability: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = tmp_path / "proofs.jsonl"

    def made_of(kills: int, *flags: str) -> str:
        test = f"training killed with SIGKILL {kills} times"
        record.write_text(json.dumps({"guarantee": 2, "test": test, "counts": {"kills": kills}}))
        monkeypatch.setattr(sys, "argv", ["reliability.py", str(record), *flags])
        reliability.main()
        return (tmp_path / "reliability.md").read_text()

    with pytest.raises(SystemExit) as ended:
        made_of(200)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("missing records: training killed with SIGKILL 1000 times;")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [record]
    assert "The soak tests are not included." in made_of(200, "--without-soak")
    assert "not included" not in made_of(1000)


def test_the_page_and_the_soak_tests_use_the_same_names(reliability: ModuleType) -> None:
    assert {describe_kills(SOAK_KILLS)} == reliability.SOAK
