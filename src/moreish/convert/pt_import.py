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

from moreish.errors import MoreishError, visible
from moreish.utils.files import format_bytes, read_json

UNPICKLER = Path(__file__).parent / "_unpickle.py"
"""Run by itself: nothing of Moreish imports it."""

NEEDS_TRUST = 3
"""Its exit status where a file holds more than tensors and plain values."""

PATIENCE = 3600
"""Seconds."""

SHOWN = 8
"""Names of what was left out; about.json lists them all."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was in a file."""

    weights: Path
    """A safetensors file with all tensors; names of nested ones are joined by dots."""
    tensors: int
    numbers: int
    """Of all tensors together."""
    about: Any
    """The plain values, which lie beside the weights in about.json."""
    left_out: dict[str, str]
    """What was neither a tensor nor plain, by its type; listed in about.json too."""


def import_pt(path: Path, out: Path, *, trusted: bool = False) -> Imported:
    """The tensors and plain values of a PyTorch file (`torch.save`), in a new folder.

    Such a file is a pickle: a program that builds what was saved. It is opened in a process of its
    own, by PyTorch's restricted reader, which builds tensors and plain values and runs nothing
    else.

    Args:
        trusted: run whatever program it holds, with the user's rights.

    Raises:
        MoreishError: it is no such file, holds more than tensors and is not `trusted`, holds no
            tensors, or `out` exists.
    """
    if not path.is_file():
        raise MoreishError(f"{path} is no file")
    if out.exists():
        raise MoreishError(f"{out} exists: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / "made"
        made.mkdir()
        try:
            done = _in_another_process(path.resolve(), made, "trusted" if trusted else "plain")
        except subprocess.TimeoutExpired:
            raise MoreishError(f"{path} was not read after an hour: it was given up") from None
        said = (done.stdout.strip().splitlines() or ["its process died"])[-1]
        if done.returncode == NEEDS_TRUST:
            raise MoreishError(
                f"{path} holds more than tensors and plain values ({said}): to build it would "
                "run code that whoever made the file chose, with your rights. If you trust them, "
                "--trust runs it"
            )
        if done.returncode != 0:
            raise MoreishError(f"{path} cannot be read as a PyTorch file: {said}")
        found = _checked(made, path)
        shutil.move(made, out)
    return Imported(**{**found, "weights": out / "weights.safetensors"})


def _in_another_process(path: Path, made: Path, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own script; isolated from folder and settings)
        [sys.executable, "-I", UNPICKLER, path, made.resolve(), how],
        cwd=made.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )


def _checked(made: Path, path: Path) -> dict[str, Any]:
    """What the other process wrote is not believed before it is read."""
    try:
        about = read_json(made / "about.json")
        values, left_out = about["values"], about["left_out"]
        with safe_open(made / "weights.safetensors", "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise MoreishError(f"{path} was not turned into tensors: {error}") from None
    numbers = sum(map(math.prod, shapes))
    return {"tensors": len(shapes), "numbers": numbers, "about": values, "left_out": left_out}


def describe(imported: Imported) -> str:
    """A sentence for the user, and a second one if something was left out."""
    size = format_bytes(imported.weights.stat().st_size)
    said = f"{imported.tensors:,} tensors, {imported.numbers:,} numbers, {size}"
    if imported.left_out:
        shown = list(imported.left_out.items())[:SHOWN]
        more = len(imported.left_out) - len(shown)
        names = ", ".join(f"{name[:100]} ({kind[:100]})" for name, kind in shown)
        said += "\nleft out, neither tensors nor plain values: " + visible(names)
        said += f" and {more:,} more, listed in about.json" if more else ""
    return said
