"""Converts a PyTorch file to safetensors and JSON. Runs as a separate process.

    python -I _unpickle.py FILE FOLDER plain|trusted

`plain` builds only tensors and plain values; `trusted` runs any code in the file.
`moreish.convert.pt_import` starts this script; nothing imports it. On failure, the last line of
standard output is the error message.
"""

import json
import math
import pickle  # noqa: TID251 (for its error class)
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

NEEDS_TRUST = 3

REFUSED = re.compile(
    r"GLOBAL (.+?) (?:was not an allowed|whose module)"
    r"|``weights_only=True`` with (TorchScript archives|files saved in the legacy \.tar format)"
)
"""How PyTorch's restricted unpickler names what it refuses to build."""

MAX_EXPANSION = 1_000_000
"""How many more elements a tensor may have than its storage (PyTorch's `expand`)."""


class UnsupportedError(Exception):
    """The file holds something that safetensors cannot store; the message says what."""


def main(path: str, folder: str, mode: str) -> int:
    """Convert the file and return the exit status."""
    try:
        # `torch.load` is banned elsewhere; this process exists to isolate it.
        content = torch.load(path, map_location="cpu", weights_only=mode == "plain")  # noqa: TID251
    except Exception as error:  # the code in the file may raise anything
        code = needed_code(path, error) if mode == "plain" else None
        print(code or f"damaged, or not a PyTorch file ({_summary(error)})")  # noqa: T201
        return NEEDS_TRUST if code else 1
    try:
        tensors: dict[str, torch.Tensor] = {}
        left_out: dict[str, str] = {}
        values = split_tensors(content, "", tensors, left_out)
        if not tensors:
            raise UnsupportedError("it holds no tensors")
        # The copies untie shared weights: the format does not allow shared memory.
        copies = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
        save_file(copies, Path(folder) / "weights.safetensors")
        about = {"values": {} if values is MOVED else values, "left_out": left_out}
        (Path(folder) / "about.json").write_text(json.dumps(about))
    except UnsupportedError as error:
        print(error)  # noqa: T201
        return 1
    except Exception as error:  # sparse or quantized tensors, reference cycles …
        print(f"it holds what safetensors cannot store ({_summary(error)})")  # noqa: T201
        return 1
    return 0


def needed_code(path: str, error: Exception) -> str | None:
    """Return the code that the file needs to run, if that is why PyTorch refused to read it."""
    refused = REFUSED.search(str(error))
    if refused and isinstance(error, pickle.UnpicklingError | RuntimeError):
        return (refused[1] or refused[2])[:100]
    # The restricted unpickler does not support the opcodes of newer pickle protocols.
    if "Unsupported operand" in str(error) and zipfile.is_zipfile(path):
        return "a pickle that PyTorch did not write, which calls unknown functions"
    return None


MOVED = object()
"""Represents a value that is not plain: a tensor, which is stored elsewhere, or a skipped one."""

NUMERIC_TYPES = "?bhilqBHILQefdFD"
"""The type codes of NumPy arrays that PyTorch has a type for."""


def split_tensors(
    value: Any, name: str, tensors: dict[str, torch.Tensor], left_out: dict[str, str]
) -> Any:
    """Separate tensors from plain values, recursively.

    Args:
        value: any part of the file's content.
        name: its dotted path.
        tensors: receives the tensors by name.
        left_out: receives the types of values that are neither tensors nor plain, by name.

    Returns:
        The plain values, or `MOVED`.
    """
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is np.ndarray and value.dtype.char in NUMERIC_TYPES:
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if isinstance(value, torch.Tensor):
        name = name or "tensor"
        if name in tensors:
            raise UnsupportedError(f"two tensors would be named {name}")
        stored = value.untyped_storage().nbytes() // value.element_size()
        if value.numel() > stored + MAX_EXPANSION:
            raise UnsupportedError(f"{name} claims {value.numel():,} numbers and stores {stored:,}")
        tensors[name] = value
        return MOVED
    if isinstance(value, dict) and len({str(key) for key in value}) < len(value):
        raise UnsupportedError(f"two entries of {name or 'the file'} would have the same name")
    if isinstance(value, dict | list | tuple | set | frozenset):
        plain = {}
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            part = split_tensors(entry, f"{name}.{key}".lstrip("."), tensors, left_out)
            if part is not MOVED:
                plain[str(key)] = part
        if value and not plain:
            return MOVED
        return plain if isinstance(value, dict) else list(plain.values())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    fields = getattr(value, "__dict__", None)
    if isinstance(fields, dict) and fields and not isinstance(value, np.ndarray):
        return split_tensors(fields, name, tensors, left_out)  # an object that holds settings
    left_out[name or "the whole file"] = type(value).__name__
    return MOVED


def _summary(error: Exception) -> str:
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    first_line = (text.strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"[:200]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
