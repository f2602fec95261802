"""Losses of planned networks beside those of their default settings, on six texts.

    python benchmarks/families.py [--minutes 0.333] [--only TEXT ...] [--families NAME ...]

On each text every family is trained twice in turn: by `moreish train TEXT --model NAME`, whose
settings are planned, and with one setting given at its default, which leaves the others at theirs.
Losses are exact, on validation, in nats per token, running where the text is running. The texts are
those of `texts.py`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from quality import measure
from result_files import provenance, read_results, write_results
from texts import OTHERS, TUNED

DEFAULTS = {
    "gpt": "model.layers=4",
    "lstm": "model.width=128",
    "gru": "model.width=128",
    "rnn": "model.width=128",
    "mlp": "model.hidden=512",
    "wavenet": "model.layers=4",
    "hybrid": "model.network.layers=4",
}
"""For each family, one setting at its default: a model that is more than named is not planned."""


def score(record: dict[str, Any] | None) -> float | None:
    """Return the validation loss of a run, running where there is one."""
    if record is None:
        return None
    scores = record["splits"]["val"]
    loss: float = scores.get("running_loss") or scores["loss"]
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="*", default=[0.333])
    every = [*TUNED, *OTHERS]
    parser.add_argument("--only", nargs="*", choices=every, default=every)
    parser.add_argument("--families", nargs="*", choices=list(DEFAULTS), default=list(DEFAULTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/families.json"))
    options = parser.parse_args()
    results = read_results(options.out)
    for minutes in options.minutes:
        for name in options.only:
            for family in options.families:
                with tempfile.TemporaryDirectory() as folder:
                    text = [name, "--split", "lecture"]
                    if name in OTHERS:
                        (Path(folder) / f"{name}.txt").write_text(OTHERS[name](), "utf-8")
                        text = [f"{folder}/{name}.txt"]
                    plain = [*text, "--model", family, "--minutes", str(minutes)]
                    found = {
                        "planned": score(measure(plain, folder)),
                        "default": score(measure([*plain, "--set", DEFAULTS[family]], folder)),
                    }
                results.setdefault(f"{minutes:g} min", {}).setdefault(name, {})[family] = found
                print(f"{minutes:g} min  {name:<14} {family:<8} {found}", flush=True)
                write_results(options.out, {**results, **provenance()})


if __name__ == "__main__":
    main()
