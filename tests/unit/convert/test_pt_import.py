"""Import of PyTorch files: no code in them runs without --trust."""

import argparse
import json
import os
import pickle  # noqa: TID251 (what strangers send)
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import Moreish
from moreish.convert.pt_import import import_pt
from moreish.errors import MoreishError

# For tests about the content of files, not about the process.
quick = pytest.mark.usefixtures("quick_processes")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path, how: str = "eval") -> None:
        self.mark, self.how = mark, how

    def __reduce__(self) -> tuple[object, ...]:
        if self.how == "os.system":
            return os.system, (f"touch {self.mark}",)
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def checkpoint() -> dict[str, object]:
    """Returns a checkpoint like those of nanoGPT: tied weights, an optimizer, settings."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "model": {**model.state_dict(), "tied": model.weight},
        "optimizer": optimizer.state_dict(),
        "model_args": {"n_layer": 2, "bias": False, "vocab_size": None},
        "best_val_loss": torch.tensor(1.5),
        "worst": float("inf"),
    }


@quick
def test_tensors_and_plain_values(tmp_path: Path) -> None:
    saved = checkpoint()
    torch.save(saved, tmp_path / "ckpt.pt")
    imported = import_pt(tmp_path / "ckpt.pt", tmp_path / "out")
    tensors = load_file(imported.weights)
    for name, tensor in saved["model"].items():  # type: ignore[attr-defined]
        assert torch.equal(tensors[f"model.{name}"], tensor)
    assert imported.tensors == len(tensors)
    assert imported.numbers == sum(tensor.numel() for tensor in tensors.values())
    assert imported.about["model_args"] == {"n_layer": 2, "bias": False, "vocab_size": None}
    assert imported.about["worst"] == "inf"
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about == {"values": imported.about, "left_out": {}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pt", "out"]


@quick
@pytest.mark.parametrize(
    ("how", "named"),
    [("eval", r"\(eval\)"), ("os.system", rf"\({os.system.__module__}\.system\)")],
)
@pytest.mark.parametrize(
    "form",
    [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}],
    ids=["zip", "older", "newer"],
)
def test_code_does_not_run(tmp_path: Path, form: Any, how: str, named: str) -> None:
    mark = tmp_path / "it-ran"
    torch.save({"model": torch.ones(2), "x": Malicious(mark, how)}, tmp_path / "bad.pt", **form)
    if "pickle_protocol" in form:
        named = "calls unknown functions"
    why = rf"^\S+ holds more than tensors and plain values.*{named}.* run code .*add --trust$"
    with pytest.raises(MoreishError, match=why):
        import_pt(tmp_path / "bad.pt", tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()
    import_pt(tmp_path / "bad.pt", tmp_path / "out", trusted=True)
    assert mark.exists()  # with trust it does run, so the test can fail


@quick
def test_plain_pickles_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(MoreishError):
        import_pt(tmp_path / "bad.pt", tmp_path / "out")
    assert not mark.exists()


@quick
def test_settings_of_another_class_need_trust(tmp_path: Path) -> None:
    settings = argparse.Namespace(layers=3)
    torch.save({"w": torch.ones(2), "args": settings}, tmp_path / "a.pt")
    with pytest.raises(MoreishError, match=r"argparse\.Namespace"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    imported = import_pt(tmp_path / "a.pt", tmp_path / "out", trusted=True)
    assert imported.about["args"] == {"layers": 3}


@quick
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript as such
def test_torchscript_needs_trust(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    torch.jit.trace(model, torch.ones(1, 2)).save(tmp_path / "a.pt")
    with pytest.raises(MoreishError, match=r"TorchScript.*run code.*add --trust"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    imported = import_pt(tmp_path / "a.pt", tmp_path / "out", trusted=True)
    assert torch.equal(load_file(imported.weights)["weight"], model.weight)


@quick
def test_numpy_becomes_tensors(tmp_path: Path) -> None:
    arrays = {
        "floats": np.arange(6.0).reshape(2, 3).T,
        "swapped": np.arange(3, dtype=">i4"),
        "none": np.zeros((0, 2), np.float16),
        "one": np.array(7, np.uint8),
    }
    torch.save({**arrays, "loss": np.float32(1.5)}, tmp_path / "a.pt")
    imported = import_pt(tmp_path / "a.pt", tmp_path / "out", trusted=True)
    tensors = load_file(imported.weights)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    assert tensors["none"].dtype == torch.float16
    assert imported.about == {"loss": 1.5}
    assert imported.left_out == {}


@quick
def test_skipped_values_are_listed(tmp_path: Path, moreish: Moreish) -> None:
    odd = {
        "\x1b[31m": b"bytes",
        "words": np.array(["a"]),
        "masked": np.ma.masked_array([1.0], [True]),
        "long": np.zeros(2, np.longdouble),
        "function": os.path.join,
    }
    torch.save({"w": torch.ones(2), "kept": 1, "odd": [odd]}, tmp_path / "a.pt")
    done = moreish("import", "pt", "a.pt", "--out", "out", "--trust")
    assert done.status == 0
    assert done.out.splitlines()[1] == (
        "Skipped, neither tensors nor plain values: odd.0.␛[31m (bytes), odd.0.words (ndarray), "
        "odd.0.masked (MaskedArray), odd.0.long (ndarray), odd.0.function (function)"
    )
    about = json.loads(Path("out/about.json").read_text())
    assert about["values"] == {"kept": 1}
    assert list(about["left_out"]) == [f"odd.0.{name}" for name in odd]
    torch.save({"w": torch.ones(2), "odd": [b""] * 20}, tmp_path / "b.pt", pickle_protocol=3)
    done = moreish("import", "pt", "b.pt", "--out", "b", "--trust")
    assert done.out.endswith(" and 12 more, listed in about.json\n")
    as_json = moreish("import", "pt", "b.pt", "--out", "c", "--trust", "--json").json
    assert as_json["left_out"] == {f"odd.{n}": "bytes" for n in range(20)}


@quick
@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(300), b"\x80\x02}q\x00." * 9]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(MoreishError, match=r"a\.pt"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@quick
@pytest.mark.parametrize(
    "content", [b"not a checkpoint, only some text", pickle.dumps({"a": 1}), b"\x1b[31m\x07" * 9]
)
def test_other_files_do_not_ask_for_trust(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(MoreishError, match="damaged, or not a PyTorch file") as refused:
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert "--trust" not in str(refused.value)


@quick
@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ({"a.b": torch.ones(2), "a": {"b": torch.zeros(2)}}, "two tensors would be named"),
        ({1: 5, "1": 6}, "would have the same name"),
        ({"w": torch.ones(1).expand(2**40)}, "claims 1,099,511,627,776 numbers"),
        ({"w": torch.eye(3).to_sparse()}, "safetensors cannot"),
        (5, "holds no tensors"),
        ("text", "holds no tensors"),
        ({}, "holds no tensors"),
        ({"lr": [0.1]}, "holds no tensors"),
    ],
)
def test_unsupported_content_is_refused(tmp_path: Path, saved: object, why: str) -> None:
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(MoreishError, match=why):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match="is not a file"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(MoreishError, match="exists: name a new folder"):
        import_pt(tmp_path / "a.pt", tmp_path)


def test_a_separate_process_reads_the_file(tmp_path: Path) -> None:
    """In a process that is not a fork: trusted code runs there and nowhere else. The audit hook of
    the tests would notice code that runs here."""
    mark = tmp_path / "it-ran"
    torch.save({"w": torch.ones(2), "x": Malicious(mark)}, tmp_path / "bad.pt")
    with pytest.raises(MoreishError, match=r"\(eval\)"):
        import_pt(tmp_path / "bad.pt", tmp_path / "out")
    assert not mark.exists()
    import_pt(tmp_path / "bad.pt", tmp_path / "out", trusted=True)
    assert mark.exists()
    assert "moreish.convert._unpickle" not in sys.modules
