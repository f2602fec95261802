"""Safetensors files are read by the safetensors library."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from moreish.utils.files import write_atomic
from moreish.utils.safetensors_io import CHUNK_BYTES, DTYPE_NAMES, iter_safetensors_bytes


def test_safetensors_library_reads_the_file(tmp_path: Path) -> None:
    """All types, unusual shapes, shared and non-contiguous memory, and several chunks."""
    wide = torch.arange(CHUNK_BYTES, dtype=torch.float32).view(-1, 64)
    tensors = {f"of {kind}": torch.tensor([[0, 1, 1]]).to(kind) for kind in DTYPE_NAMES}
    tensors |= {"wide": wide, "turned": wide.T, "again": wide, "part": wide[3:5, ::2]}
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5), "é": torch.ones(3)}
    chunks = list(iter_safetensors_bytes(tensors, {"about": "it"}))
    assert max(map(len, chunks)) <= CHUNK_BYTES and len(chunks) > 8
    write_atomic(tmp_path / "x.safetensors", chunks)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"about": "it"}


def test_small_tensors_share_one_chunk() -> None:
    assert len(list(iter_safetensors_bytes({"a": torch.ones(9), "b": torch.ones(3, 3)}))) == 1
    assert len(list(iter_safetensors_bytes({}))) == 1
