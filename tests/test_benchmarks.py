"""The benchmarks that no machine here can run do at least run, with tiny sizes."""

import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_utilisation_on_a_cpu(gpu: ModuleType, optimizer: str) -> None:
    tiny = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 8, "tied": True}
    found = gpu.utilisation(tiny, 300, 6, 2, accumulate=3, optimizer=optimizer)
    assert found["tokens_per_second"] > 0
    assert found["tflops"] > 0


def test_the_lecture_s_model_on_a_cpu(gpu: ModuleType, shakespeare: str) -> None:
    tiny = {**gpu.LECTURE_MODEL, "layers": 1, "width": 12, "context": 256}
    found = gpu.shakespeare(tiny, 4, batch_size=2, eval_every=2)
    assert [at["step"] for at in found["curve"]] == [2, 4]
    assert found["seconds_to_goal"] is None
    assert found["loss"] > gpu.GOAL


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path / "x.json"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "there is no CUDA GPU here" in done.stderr
    assert not list(tmp_path.iterdir())
