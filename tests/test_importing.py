"""Files of other programs: nothing in them runs unasked."""

import argparse
import json
import pickle  # noqa: TID251 (what strangers send)
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moreish.errors import MoreishError
from moreish.importing import import_pt


class Malicious:
    """Makes a file, if it is built from a pickle."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def checkpoint() -> dict[str, object]:
    """As nanoGPT writes one: tied weights, an optimizer, settings."""
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
    assert json.loads((tmp_path / "out" / "about.json").read_text()) == imported.about
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pt", "out"]


@pytest.mark.parametrize("zipped", [True, False])
def test_programs_do_not_run(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "it-ran"
    torch.save(
        {"model": torch.ones(2), "x": Malicious(mark)},
        tmp_path / "bad.pt",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(MoreishError, match=r"holds more than tensors and plain values.*--trust"):
        import_pt(tmp_path / "bad.pt", tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()
    import_pt(tmp_path / "bad.pt", tmp_path / "out", trusted=True)
    assert mark.exists()  # the test has teeth: in the other process it does run


def test_plain_pickles_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(MoreishError):
        import_pt(tmp_path / "bad.pt", tmp_path / "out")
    assert not mark.exists()


def test_settings_of_a_class_of_their_own_need_trust(tmp_path: Path) -> None:
    settings = argparse.Namespace(layers=3)
    torch.save({"w": torch.ones(2), "args": settings}, tmp_path / "a.pt")
    with pytest.raises(MoreishError, match=r"argparse\.Namespace"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    imported = import_pt(tmp_path / "a.pt", tmp_path / "out", trusted=True)
    assert imported.about["args"] == {"layers": 3}


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(300), b"\x80\x02}q\x00." * 9]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(MoreishError, match=r"a\.pt"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    "content", [b"not a checkpoint, only some text", pickle.dumps({"a": 1}), b"\x1b[31m\x07" * 9]
)
def test_what_is_no_checkpoint_asks_for_no_trust(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(MoreishError, match="damaged, or none") as refused:
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert "--trust" not in str(refused.value)


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ({"a.b": torch.ones(2), "a": {"b": torch.zeros(2)}}, "two of its tensors"),
        ({1: 5, "1": 6}, "would have one name"),
        ({"w": torch.ones(1).expand(2**40)}, "claims 1,099,511,627,776 numbers"),
        ({"w": torch.eye(3).to_sparse()}, "safetensors cannot"),
    ],
)
def test_what_safetensors_cannot_hold_is_said(tmp_path: Path, saved: object, why: str) -> None:
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(MoreishError, match=why):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_places(tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match="is no file"):
        import_pt(tmp_path / "a.pt", tmp_path / "out")
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(MoreishError, match="exists: name a new folder"):
        import_pt(tmp_path / "a.pt", tmp_path)


def test_this_process_unpickles_nothing(tmp_path: Path) -> None:
    """The audit hook of the tests would notice; and the reader is not even imported."""
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    import_pt(tmp_path / "a.pt", tmp_path / "out")
    assert "moreish.unpickle" not in sys.modules
