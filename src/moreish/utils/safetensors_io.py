"""Tensors as a safetensors file in chunks, so that saving does not hold a model in memory twice.

The format (github.com/huggingface/safetensors) is the length of a JSON header in 8 bytes, the
header, then the data of each tensor at the offsets that the header states.
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
"""Largest chunk; small tensors share one."""


def iter_safetensors_bytes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """Yield the content of a safetensors file, chunk by chunk.

    Args:
        tensors: on any devices; storage that two of them share is written twice.
        metadata: strings for the header's `__metadata__`.
    """
    # The widest types come first, so that every tensor is aligned to its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        start, offset = offset, offset + tensor.nbytes
        dtype, shape = DTYPE_NAMES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, offset]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pending = len(text).to_bytes(8, "little") + text
    for name in names:
        raw = tensor_bytes(tensors[name])
        if len(pending) + len(raw) <= CHUNK_BYTES:
            pending += raw
            continue
        yield pending
        pending = b""
        for start in range(0, len(raw), CHUNK_BYTES):
            yield bytes(raw[start : start + CHUNK_BYTES])
    yield pending


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the elements of a tensor as bytes, in row-major order."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
