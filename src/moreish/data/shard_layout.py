"""What kind of folder of prepared text a folder is, if it is one."""

from pathlib import Path
from typing import Literal

from moreish.errors import MoreishError
from moreish.utils.files import read_json

MANIFEST, PROGRESS, TOKENIZER = "manifest.json", "progress.json", "tokenizer.json"


def preparation_state(folder: Path) -> Literal["prepared", "begun", "other"]:
    """Whether a folder holds prepared text, or some of it, or is something else."""
    damaged = (folder / MANIFEST).is_file() and any(folder.glob("*-train-*.npy"))
    if damaged or _says(folder / MANIFEST, "prepared"):
        return "prepared"
    return "begun" if _says(folder / PROGRESS, "begun") else "other"


def _says(path: Path, kind: str) -> bool:
    try:
        tree = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and tree.get("moreish") == kind


def refuse_prepared(folder: Path) -> None:
    """Raises MoreishError where prepared text is given to what reads texts."""
    kind = preparation_state(folder)
    if kind == "prepared":
        raise MoreishError(
            f"{folder} is prepared text, for train, plan, ladder and lr-range: name the text itself"
        )
    if kind == "begun":
        raise MoreishError(
            f"{folder} is prepared only in part: run the same moreish prepare again, to its end"
        )
