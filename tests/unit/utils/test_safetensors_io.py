"""Files of weights, beside the library that reads them."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from moreish.utils.files import write_atomic
from moreish.utils.safetensors_io import CHUNK_BYTES, DTYPE_NAMES, iter_safetensors_bytes


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    """Every type, odd shapes, shared memory, what is not contiguous, and more than a piece."""
    wide = torch.arange(CHUNK_BYTES, dtype=torch.float32).view(-1, 64)
    tensors = {f"of {kind}": torch.tensor([[0, 1, 1]]).to(kind) for kind in DTYPE_NAMES}
    tensors |= {"wide": wide, "turned": wide.T, "again": wide, "part": wide[3:5, ::2]}
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5), "é": torch.ones(3)}
    pieces = list(iter_safetensors_bytes(tensors, {"about": "it"}))
    assert max(map(len, pieces)) <= CHUNK_BYTES and len(pieces) > 8
    write_atomic(tmp_path / "x.safetensors", pieces)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"about": "it"}


def test_small_ones_are_one_piece() -> None:
    assert len(list(iter_safetensors_bytes({"a": torch.ones(9), "b": torch.ones(3, 3)}))) == 1
    assert len(list(iter_safetensors_bytes({}))) == 1
