"""Files of other programs, made into such as Moreish reads."""

import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from moreish.errors import MoreishError
from moreish.files import in_bytes, read_json

UNPICKLER = Path(__file__).parent / "unpickle.py"
"""Run by itself: nothing of Moreish imports it."""

NEEDS_TRUST = 3
"""Its exit status where a file holds more than tensors and plain values."""

PATIENCE = 3600
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was in a file."""

    weights: Path
    """A safetensors file with all tensors; names of nested ones are joined by dots."""
    tensors: int
    numbers: int
    """Of all tensors together."""
    about: dict[str, Any]
    """The plain values, which lie beside the weights in about.json."""


def import_pt(path: Path, out: Path, *, trusted: bool = False) -> Imported:
    """The tensors and plain values of a PyTorch file (`torch.save`), in a new folder.

    Such a file is a pickle: a program that builds what was saved. It is opened in a process of its
    own, by PyTorch's restricted reader, which builds tensors and plain values and runs nothing
    else.

    Args:
        trusted: run whatever program it holds, with the user's rights.

    Raises:
        MoreishError: it is no such file, holds more than tensors and is not `trusted`, or `out`
            exists.
    """
    if not path.is_file():
        raise MoreishError(f"{path} is no file")
    if out.exists():
        raise MoreishError(f"{out} exists: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / "made"
        made.mkdir()
        how = "trusted" if trusted else "plain"
        try:
            done = subprocess.run(  # noqa: S603 (our own script; isolated from folder and settings)
                [sys.executable, "-I", UNPICKLER, path.resolve(), made.resolve(), how],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MoreishError(f"{path} was not read after an hour: it was given up") from None
        said = (done.stdout.strip().splitlines() or ["its process died"])[-1]
        if done.returncode == NEEDS_TRUST:
            raise MoreishError(
                f"{path} holds more than tensors and plain values ({said}): to build it runs code "
                "that whoever made the file chose, with your rights. If you trust them: --trust"
            )
        if done.returncode != 0:
            raise MoreishError(f"{path} cannot be read as a PyTorch file: {said}")
        found = _checked(made, path)
        shutil.move(made, out)
    return Imported(**{**found, "weights": out / "weights.safetensors"})


def _checked(made: Path, path: Path) -> dict[str, Any]:
    """What the other process wrote is not believed before it is read."""
    try:
        about = read_json(made / "about.json")
        with safe_open(made / "weights.safetensors", "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise MoreishError(f"{path} was not turned into tensors: {error}") from None
    return {"tensors": len(shapes), "numbers": sum(map(math.prod, shapes)), "about": about}


def describe(imported: Imported) -> str:
    """A sentence for the user."""
    size = in_bytes(imported.weights.stat().st_size)
    return f"{imported.tensors:,} tensors, {imported.numbers:,} numbers, {size}"
