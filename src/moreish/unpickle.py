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


def main(path: str, folder: str, how: str) -> int:
    """Returns the exit status."""
    try:
        # This process is what the rule against it is for: see `moreish.importing`.
        found = torch.load(path, map_location="cpu", weights_only=how == "plain")  # noqa: TID251
    except pickle.UnpicklingError as error:
        if how == "plain" and "weights_only" in str(error):
            print(_name(str(error)))  # noqa: T201
            return NEEDS_TRUST
        print(_first_line(error))  # noqa: T201
        return 1
    except Exception as error:  # a stranger's program may raise anything
        print(_first_line(error))  # noqa: T201
        return 1
    tensors: dict[str, torch.Tensor] = {}
    about = sorted_out(found, "", tensors)
    # Tied weights share their memory, which the format does not allow.
    save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()},
              Path(folder) / "weights.safetensors")  # fmt: skip
    (Path(folder) / "about.json").write_text(json.dumps(about if about is not None else {}))
    return 0


def sorted_out(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Puts tensors into `tensors`, under their names; returns what is plain beside them."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        tensors[name or "tensor"] = value
        return None
    if isinstance(value, dict):
        parts = {str(key): (part, f"{name}.{key}".lstrip(".")) for key, part in value.items()}
        plain = {key: sorted_out(part, full, tensors) for key, (part, full) in parts.items()}
        return {key: part for key, part in plain.items() if part is not None} or None
    if isinstance(value, list | tuple | set):
        plain_list = [sorted_out(part, f"{name}.{n}", tensors) for n, part in enumerate(value)]
        return [part for part in plain_list if part is not None] or None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__dict__"):  # a configuration of a class of its own
        return sorted_out(vars(value), name, tensors)
    return f"({type(value).__name__})"


def _name(message: str) -> str:
    """Of what the restricted reader would not build."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    return found[1] if found else "objects"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
