"""The planner on texts that it was not tuned on, beside those that it was: what half a minute buys.

    python benchmarks/texts.py [--minutes 0.5] [--out benchmarks/results/texts.json]

Needed beside the lectures' data: word lists and German prose, in Debian's packages `wamerican`,
`wfrench` and `fortunes-de`; the Python source is that of the running interpreter. What is missing
is named and passed over. Each text is counted, given to a GPT alone (what the planner would choose
without counts: of running text with embeddings of n-grams), and given to the planner. The English
words decided how the items of a list are held out, so they count as tuned on. Losses are exact, on
validation.
"""

import argparse
import json
import math
import sysconfig
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quality import measure

from moreish.config import resolve
from moreish.planning.planner import plan_run
from moreish.runs.record import library_versions, machine_info
from moreish.settings import to_toml
from moreish.training.setup import set_up


def words() -> str:
    """A word list: 104,334 English words and their forms."""
    return Path("/usr/share/dict/american-english").read_text("utf-8")


def french() -> str:
    """A word list: French words and their forms."""
    return Path("/usr/share/dict/french").read_text("utf-8")


def source() -> str:
    """The modules of Python's standard library that are one file."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "\n".join(file.read_text("utf-8") for file in files)


def german() -> str:
    """Sayings, jokes and quotations in German."""
    files = sorted(Path("/usr/share/games/fortunes/de").iterdir())
    plain = [f for f in files if f.is_file() and not f.is_symlink() and f.suffix != ".dat"]
    if not plain:
        raise FileNotFoundError("fortunes-de")
    return "\n".join(file.read_text("utf-8") for file in plain)


OTHERS: dict[str, Callable[[], str]] = {
    "words": words,
    "french": french,
    "python": source,
    "german": german,
}
TUNED = ("names-lecture", "shakespeare")


def compare(source: str, minutes: float, folder: str) -> dict[str, Any]:
    """Counts, a GPT alone and the plan on one text."""
    split = "lecture" if source in TUNED else "seeded"
    text, budget = [source, "--split", split], ["--minutes", str(minutes)]
    asked = {"data": {"source": source, "split": split}, "train": {"minutes": minutes}}
    alone = plan_run(set_up(resolve(asked)), counts=False).config
    recipe = Path(folder) / "alone.toml"
    recipe.write_text(to_toml(alone.model_dump(mode="json", exclude_none=True)), "utf-8")
    sides = {
        "kneser-ney": [*text, "--model", "kneser-ney"],
        "gpt": ["--config", str(recipe)],
        "planned": [*text, *budget],
    }
    return {name: measure(arguments, folder) for name, arguments in sides.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--only", nargs="*", choices=[*TUNED, *OTHERS], default=[*TUNED, *OTHERS])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/texts.json"))
    options = parser.parse_args()
    results = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            text = name
            if name in OTHERS:
                try:
                    (Path(folder) / f"{name}.txt").write_text(OTHERS[name](), "utf-8")
                except FileNotFoundError as error:
                    print(f"{name:<14} NOT MEASURED: {error}", flush=True)
                    continue
                text = f"{folder}/{name}.txt"
            found = compare(text, options.minutes, folder)
        losses = {
            side: record and record["splits"]["val"]["loss"] for side, record in found.items()
        }
        results[name] = {
            "minutes": options.minutes,
            "losses": losses,
            "seconds": {side: record and record["seconds"] for side, record in found.items()},
            "parameters": {side: record and record["parameters"] for side, record in found.items()},
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine_info(),
            "versions": library_versions(),
        }
        print(
            f"{name:<14} " + "  ".join(f"{k} {v or math.nan:.4f}" for k, v in losses.items()),
            flush=True,
        )
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
