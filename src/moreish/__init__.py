"""Train small language models of any text, and generate more of it.

import moreish

run = moreish.train("names", model="mlp", steps=2000)
run.sample(10)
run.evaluate()["val"].loss  # nats per token
run = moreish.load("runs/names-mlp")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moreish.api import compare, doctor, load, plan, prepare, resume, train
    from moreish.errors import MoreishError
    from moreish.runs import Run

    __version__: str

_HOME = {
    "MoreishError": "moreish.errors",
    "Run": "moreish.runs",
    "compare": "moreish.api",
    "doctor": "moreish.api",
    "load": "moreish.api",
    "plan": "moreish.api",
    "prepare": "moreish.api",
    "resume": "moreish.api",
    "train": "moreish.api",
}

__all__ = ["MoreishError", "Run", "compare", "doctor", "load", "plan", "prepare", "resume", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: PyTorch takes a second, and `moreish --help` does not need it."""
    if name == "__version__":
        return import_module("importlib.metadata").version("moreish")
    if name == "tasks":
        return import_module("moreish.tasks")
    if name not in _HOME:
        raise AttributeError(f"module 'moreish' has no attribute '{name}'")
    found = getattr(import_module(_HOME[name]), name)
    if not isinstance(found, type):
        found = import_module("moreish.python_errors").names_arguments(found)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return [*__all__, "__version__", "tasks"]
