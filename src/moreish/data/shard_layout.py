"""The files of a prepared dataset, and the state of its preparation."""

from pathlib import Path
from typing import Literal

from moreish.errors import MoreishError
from moreish.utils.files import read_json

MANIFEST, PROGRESS, TOKENIZER = "manifest.json", "progress.json", "tokenizer.json"


def preparation_state(folder: Path) -> Literal["prepared", "begun", "other"]:
    """Return whether a folder is a prepared dataset, an unfinished one, or something else."""
    damaged = (folder / MANIFEST).is_file() and any(folder.glob("*-train-*.npy"))
    if damaged or _is_marked(folder / MANIFEST, "prepared"):
        return "prepared"
    return "begun" if _is_marked(folder / PROGRESS, "begun") else "other"


def _is_marked(path: Path, state: str) -> bool:
    try:
        tree = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and tree.get("moreish") == state


def refuse_prepared(folder: Path) -> None:
    """Reject a prepared dataset where a text is needed.

    Raises:
        MoreishError: `folder` is a prepared dataset, or an unfinished one.
    """
    state = preparation_state(folder)
    if state == "prepared":
        raise MoreishError(
            f"{folder} is prepared text, for train, plan, ladder and lr-range: name the text itself"
        )
    if state == "begun":
        raise MoreishError(
            f"the preparation of {folder} is unfinished: run the same moreish prepare again"
        )
