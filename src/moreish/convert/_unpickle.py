"""Converts a PyTorch file to safetensors and JSON, in a process of its own.

    python -I _unpickle.py FILE FOLDER plain|trusted

`plain` builds only tensors and plain values; `trusted` runs whatever program the file holds.
`moreish.convert.pt_import` starts this script; nothing imports it. An error message is the last
line on standard output.
"""

import json
import math
import pickle  # noqa: TID251 (for the name of its error)
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
"""How PyTorch names what it would not build: of some modules it says that they are blocked, of all
other functions and classes that they are not allowed."""

GATHERED = 1_000_000
"""Numbers that a tensor may have more of than it holds (PyTorch's `expand`)."""


class Unfit(Exception):  # noqa: N818 (its text is the message)
    """Something that safetensors cannot hold."""


def main(path: str, folder: str, how: str) -> int:
    """Returns the exit status."""
    try:
        # This process is what the rule against it is for: see `moreish.convert.pt_import`.
        found = torch.load(path, map_location="cpu", weights_only=how == "plain")  # noqa: TID251
    except Exception as error:  # a stranger's program may raise anything
        program = of_its_own(path, error) if how == "plain" else None
        print(program or f"damaged, or none ({_kind(error)})")  # noqa: T201
        return NEEDS_TRUST if program else 1
    try:
        tensors: dict[str, torch.Tensor] = {}
        left_out: dict[str, str] = {}
        values = sorted_out(found, "", tensors, left_out)
        if not tensors:
            raise Unfit("it holds no tensors")
        # Tied weights share their memory, which the format does not allow.
        copies = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
        save_file(copies, Path(folder) / "weights.safetensors")
        about = {"values": {} if values is GONE else values, "left_out": left_out}
        (Path(folder) / "about.json").write_text(json.dumps(about))
    except Unfit as error:
        print(error)  # noqa: T201
        return 1
    except Exception as error:  # sparse, quantised, in itself …
        print(f"it holds what safetensors cannot ({_kind(error)})")  # noqa: T201
        return 1
    return 0


def of_its_own(path: str, error: Exception) -> str | None:
    """What the file would run to be built, if that is why PyTorch's restricted reader gave up."""
    refused = REFUSED.search(str(error))
    if refused and isinstance(error, pickle.UnpicklingError | RuntimeError):
        return (refused[1] or refused[2])[:100]
    # Newer pickles name their functions in a way that the reader does not understand.
    if "Unsupported operand" in str(error) and zipfile.is_zipfile(path):
        return "a pickle that is not PyTorch's own: what it calls is not known"
    return None


GONE = object()
"""In place of what is not a plain value: a tensor, which stands elsewhere now, or left out."""

NUMBERS = "?bhilqBHILQefdFD"
"""Type codes of the NumPy arrays that PyTorch has a type for."""


def sorted_out(
    value: Any, name: str, tensors: dict[str, torch.Tensor], left_out: dict[str, str]
) -> Any:
    """Puts tensors into `tensors`, under their names, and the types of what is neither a tensor nor
    plain into `left_out`; returns what is plain."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is np.ndarray and value.dtype.char in NUMBERS:
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if isinstance(value, torch.Tensor):
        name = name or "tensor"
        if name in tensors:
            raise Unfit(f"two of its tensors would be called {name}")
        holds = value.untyped_storage().nbytes() // value.element_size()
        if value.numel() > holds + GATHERED:
            raise Unfit(f"{name} claims {value.numel():,} numbers and holds {holds:,}")
        tensors[name] = value
        return GONE
    if isinstance(value, dict):
        if len({str(key) for key in value}) < len(value):
            raise Unfit(f"two entries of {name or 'it'} would have one name")
        parts = {str(key): sorted_out(part, f"{name}.{key}".lstrip("."), tensors, left_out)
                 for key, part in value.items()}  # fmt: skip
        kept = {key: part for key, part in parts.items() if part is not GONE}
        return kept if kept or not parts else GONE
    if isinstance(value, list | tuple | set | frozenset):
        found = [
            sorted_out(part, f"{name}.{n}".lstrip("."), tensors, left_out)
            for n, part in enumerate(value)
        ]
        rest = [part for part in found if part is not GONE]
        return rest if rest or not found else GONE
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    fields = getattr(value, "__dict__", None)
    if isinstance(fields, dict) and fields and not isinstance(value, np.ndarray):
        return sorted_out(fields, name, tensors, left_out)  # settings of a class of their own
    left_out[name or "all of it"] = type(value).__name__
    return GONE


def _kind(error: Exception) -> str:
    found = str(error).partition("WeightsUnpickler error: ")
    lines = (found[2] or found[0]).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
