"""Losses of the planner after half a minute, on texts that it was and was not tuned on.

    python benchmarks/texts.py [--minutes 0.5] [--out benchmarks/results/texts.json]

Besides the lectures' data this needs word lists and German prose from Debian's packages
`wamerican`, `wfrench` and `fortunes-de`; the Python source is that of the running interpreter.
Missing texts are reported and skipped. On each text three models are trained by plain commands:
n-gram counts, a GPT alone (`--model gpt`), and what the planner chooses. How the items of a list
are held out was chosen on the English words, so they count as tuned on. Losses are exact, on
validation, in nats per token; tiny Shakespeare is also split into GPT-2's tokens, whose bits per
byte can be compared with those of characters.
"""

import argparse
import math
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quality import measure
from result_files import provenance, read_results, write_results


def words() -> str:
    """Return a list of 104,334 English words and their forms."""
    return Path("/usr/share/dict/american-english").read_text("utf-8")


def french() -> str:
    """Return a list of French words and their forms."""
    return Path("/usr/share/dict/french").read_text("utf-8")


def source() -> str:
    """Return the single-file modules of Python's standard library."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "\n".join(file.read_text("utf-8") for file in files)


def german() -> str:
    """Return sayings, jokes and quotations in German."""
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
GPT2_TOKENS = "shakespeare-gpt2"


def compare(text: list[str], minutes: float, folder: str) -> dict[str, Any]:
    """Train counts, a GPT alone and the planned model on one text."""
    budget = ["--minutes", str(minutes)]
    sides = {
        "kneser-ney": [*text, "--model", "kneser-ney"],
        "gpt": [*text, *budget, "--model", "gpt"],
        "planned": [*text, *budget],
    }
    return {name: measure(arguments, folder) for name, arguments in sides.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    every = [*TUNED, *OTHERS, GPT2_TOKENS]
    parser.add_argument("--only", nargs="*", choices=every, default=every)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/texts.json"))
    options = parser.parse_args()
    results = read_results(options.out)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            text = [name, "--split", "lecture"]
            if name == GPT2_TOKENS:
                text = ["shakespeare", "--split", "lecture", "--tokenizer", "gpt2"]
            if name in OTHERS:
                try:
                    (Path(folder) / f"{name}.txt").write_text(OTHERS[name](), "utf-8")
                except FileNotFoundError as error:
                    print(f"{name:<14} NOT MEASURED: {error}", flush=True)
                    continue
                text = [f"{folder}/{name}.txt"]
            found = compare(text, options.minutes, folder)
        scores = {side: record and record["splits"]["val"] for side, record in found.items()}
        losses, running, bits = (
            {side: score and score.get(key) for side, score in scores.items()}
            for key in ("loss", "running_loss", "bits_per_byte")
        )
        results[name] = {
            "minutes": options.minutes,
            "losses": losses,
            "running": running,
            "bits_per_byte": bits,
            "seconds": {side: record and record["seconds"] for side, record in found.items()},
            "parameters": {side: record and record["parameters"] for side, record in found.items()},
            **provenance(),
        }
        print(
            f"{name:<16} "
            + "  ".join(f"{k} {v or math.nan:.4f}" for k, v in losses.items())
            + f"  running {running['planned'] or math.nan:.4f}",
            flush=True,
        )
        write_results(options.out, results)


if __name__ == "__main__":
    main()
