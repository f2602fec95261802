"""A PyTorch file to safetensors and JSON, in a process of its own.

    python -I unpickle.py FILE FOLDER plain|trusted

`plain` builds tensors and plain values only and runs nothing else; `trusted` runs whatever program
the file holds. Started by `moreish.importing`, imported by nothing. What went wrong is the last
line on standard output.
"""

import json
import math
import pickle  # noqa: TID251 (for the name of its error)
import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

NEEDS_TRUST = 3


REFUSED = re.compile(r"WeightsUnpickler error.*?(?:GLOBAL|[Cc]lass|type) ([\w.]+)")
"""How PyTorch names what it would not build."""

GATHERED = 1_000_000
"""Numbers that a tensor may have more of than it holds (PyTorch's `expand`)."""


class Unfit(Exception):  # noqa: N818 (its text is the message)
    """Something that safetensors cannot hold."""


def main(path: str, folder: str, how: str) -> int:
    """Returns the exit status."""
    try:
        # This process is what the rule against it is for: see `moreish.importing`.
        found = torch.load(path, map_location="cpu", weights_only=how == "plain")  # noqa: TID251
    except Exception as error:  # a stranger's program may raise anything
        refused = re.search(
            r"WeightsUnpickler error.*?(?:GLOBAL|[Cc]lass|type) ([\w.]+)", str(error)
        )
        if how == "plain" and isinstance(error, pickle.UnpicklingError) and refused:
            print(refused[1])  # noqa: T201
            return NEEDS_TRUST
        print(f"damaged, or none ({_kind(error)})")  # noqa: T201
        return 1
    try:
        tensors: dict[str, torch.Tensor] = {}
        about = sorted_out(found, "", tensors)
        # Tied weights share their memory, which the format does not allow.
        copies = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
        save_file(copies, Path(folder) / "weights.safetensors")
        (Path(folder) / "about.json").write_text(json.dumps({} if about is GONE else about))
    except Unfit as error:
        print(error)  # noqa: T201
        return 1
    except Exception as error:  # sparse, quantised, in itself …
        print(f"it holds what safetensors cannot ({_kind(error)})")  # noqa: T201
        return 1
    return 0


GONE = object()
"""In place of a tensor, which stands elsewhere now."""


def sorted_out(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Puts tensors into `tensors`, under their names; returns what is plain beside them."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
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
        parts = {str(key): sorted_out(part, f"{name}.{key}".lstrip("."), tensors)
                 for key, part in value.items()}  # fmt: skip
        kept = {key: part for key, part in parts.items() if part is not GONE}
        return kept if kept or not parts else GONE
    if isinstance(value, list | tuple | set):
        found = [
            sorted_out(part, f"{name}.{n}".lstrip("."), tensors) for n, part in enumerate(value)
        ]
        rest = [part for part in found if part is not GONE]
        return rest if rest or not found else GONE
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__dict__"):  # a configuration of a class of its own
        return sorted_out(vars(value), name, tensors)
    return f"({type(value).__name__})"


def _kind(error: Exception) -> str:
    found = str(error).partition("WeightsUnpickler error: ")
    lines = (found[2] or found[0]).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
