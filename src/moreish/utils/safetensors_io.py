"""Tensors to a safetensors file, piece by piece: to be saved, a model is not in memory twice.

The format (github.com/huggingface/safetensors): the length of a JSON header in 8 bytes, the header,
then the numbers of each tensor, at the places that the header names.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

CHUNK_BYTES = 1 << 20
"""Bytes that small tensors are gathered to."""


def iter_safetensors_bytes(
    tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """A file of `tensors`, from wherever they are. What two of them share is written twice.

    Args:
        about: what the header says beside.
    """
    # The widest numbers first, so that each lies at a multiple of its width.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(about)} if about else {}
    at = 0
    for name in names:
        tensor = tensors[name]
        first, at = at, at + tensor.nbytes
        kind, shape = DTYPE_NAMES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [first, at]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    waiting = len(text).to_bytes(8, "little") + text
    for name in names:
        raw = tensor_bytes(tensors[name])
        if len(waiting) + len(raw) <= CHUNK_BYTES:
            waiting += raw
            continue
        yield waiting
        waiting = b""
        for first in range(0, len(raw), CHUNK_BYTES):
            yield bytes(raw[first : first + CHUNK_BYTES])
    yield waiting


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as they lie in memory, in the order of its dimensions."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
