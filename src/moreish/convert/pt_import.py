"""Converts PyTorch files (`torch.save`) to safetensors, in a separate process."""

import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from moreish.errors import MoreishError, visible
from moreish.utils.files import format_bytes, read_json

UNPICKLER = Path(__file__).parent / "_unpickle.py"
"""The script that reads the file. Nothing in Moreish imports it."""

NEEDS_TRUST = 3
"""The exit status of the script if the file holds more than tensors and plain values."""

TIMEOUT = 3600
"""Seconds until the script is stopped."""

MAX_LISTED = 8
"""How many skipped values a message lists; about.json lists all of them."""


@dataclass(frozen=True, kw_only=True)
class PTImportResult:
    """What was in a PyTorch file."""

    weights: Path
    """The safetensors file with all tensors; names of nested ones are joined by dots."""
    tensors: int
    numbers: int
    """The number of elements of all tensors together."""
    about: Any
    """The plain values, which are also in about.json next to the weights."""
    left_out: dict[str, str]
    """The types of the values that are neither tensors nor plain, by name; also in about.json."""


def import_pt(path: Path, out: Path, *, trusted: bool = False) -> PTImportResult:
    """Write the tensors and plain values of a PyTorch file to a new folder.

    Such a file is a pickle: a program that rebuilds what was saved. It is opened in a separate
    process by PyTorch's restricted unpickler, which builds tensors and plain values and runs no
    other code.

    Args:
        trusted: run any code in the file, with the user's permissions.

    Raises:
        MoreishError: it is not such a file, holds more than tensors without being `trusted`, or
            holds no tensors; or `out` exists.
    """
    if not path.is_file():
        raise MoreishError(f"{path} is not a file")
    if out.exists():
        raise MoreishError(f"{out} exists: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as parent:
        folder = Path(parent) / "converted"
        folder.mkdir()
        try:
            process = run_unpickler(path.resolve(), folder, "trusted" if trusted else "plain")
        except subprocess.TimeoutExpired:
            raise MoreishError(f"{path} was not read within an hour") from None
        reason = (process.stdout.strip().splitlines() or ["the process crashed"])[-1]
        if process.returncode == NEEDS_TRUST:
            raise MoreishError(
                f"{path} holds more than tensors and plain values ({reason}). Loading it would run "
                "code chosen by the author of the file, with your permissions. If you trust the "
                "author, add --trust"
            )
        if process.returncode != 0:
            raise MoreishError(f"{path} cannot be read as a PyTorch file: {reason}")
        result = _read_output(folder, path)
        shutil.move(folder, out)
    return replace(result, weights=out / result.weights.name)


def run_unpickler(path: Path, folder: Path, mode: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 (our own script; -I ignores the current folder)
        [sys.executable, "-I", UNPICKLER, path, folder.resolve(), mode],
        cwd=folder.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        check=False,
    )


def _read_output(folder: Path, path: Path) -> PTImportResult:
    """Read and check what the other process wrote, which may have run untrusted code."""
    weights = folder / "weights.safetensors"
    try:
        about = read_json(folder / "about.json")
        with safe_open(weights, "pt") as file:
            sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
        return PTImportResult(
            weights=weights,
            tensors=len(sizes),
            numbers=sum(sizes),
            about=about["values"],
            left_out=about["left_out"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise MoreishError(f"{path} was not converted to tensors: {error}") from None


def describe_import(result: PTImportResult) -> str:
    """Return a line for the user, and a second one if any values were skipped."""
    size = format_bytes(result.weights.stat().st_size)
    text = f"{result.tensors:,} tensors, {result.numbers:,} numbers, {size}"
    if names := [f"{name[:100]} ({kind[:100]})" for name, kind in result.left_out.items()]:
        listed = visible(", ".join(names[:MAX_LISTED]))
        text += f"\nSkipped, neither tensors nor plain values: {listed}"
        if (more := len(names) - MAX_LISTED) > 0:
            text += f" and {more:,} more, listed in about.json"
    return text
