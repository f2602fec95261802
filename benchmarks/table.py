"""One table of everything that was measured, and the README's section made of it.

    python benchmarks/table.py [--check]

With `--check` it only says whether the README is what the results make of it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: begin (make bench) -->", "<!-- figures: end -->"

PEERS = {"": "nanoGPT", "_to_nanogpt": "nanoGPT", "_to_transformers": "`transformers`' GPT-2"}

TEXTS = {
    "names-lecture": "32,033 names (the lecture's)",
    "shakespeare": "tiny Shakespeare, 1.1 MB",
    "words": "a list of 104,334 English words",
    "python": "Python's standard library, 4.7 MB of source",
    "german": "sayings and jokes in German, 1.5 MB",
}


def load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def quality() -> list[str]:
    """A row for each training."""
    rows = ["| figure | what | the lecture or the peer | Moreish |", "|---|---|---|---|"]
    for name, case in load("quality").get("results", {}).items():
        loss = case["splits"]["val"]["loss"]
        rows.append(f"| `{name}` | {case['what']} | {case['peer']} | **{loss:.4f}** |")
    return rows


def texts() -> list[str]:
    """What half a minute buys on texts that nothing was tuned on, beside two that it was."""
    rows = ["| text | counted | a GPT alone | planned |", "|---|---|---|---|"]
    for name, found in load("texts").items():
        sides = [found["losses"][side] for side in ("kneser-ney", "gpt", "planned")]
        rows.append(f"| {TEXTS[name]} | " + " | ".join(f"{loss:.4f}" for loss in sides) + " |")
    return rows


def speed() -> list[str]:
    """A row for each measurement of speed."""
    found = load("speed")
    rows = ["| what | Moreish |", "|---|---|"]
    for name, title in (
        ("training", "training tokens a second, nanoGPT's CPU setting"),
        ("sampling-1", "one stream of samples, nanoGPT's CPU model"),
        ("sampling-32", "32 streams together"),
    ):
        for key, ratio in found.get(name, {}).items():
            if key.startswith("ratio") and not key.endswith(("_low", "_high")):
                side = PEERS[key.removeprefix("ratio")]
                low, high = found[name][f"{key}_low"], found[name][f"{key}_high"]
                rows.append(f"| {title} | {ratio:.2f} times {side} ({low:.2f} to {high:.2f}) |")
    if "names-10000" in found:
        rows.append(f"| 10,000 names | {found['names-10000']['seconds']:.1f} s |")
    for name, peak in found.get("memory", {}).items():
        if name.endswith("_megabytes"):
            what = {"names_megabytes": "`make run`"}.get(name, "a training on tiny Shakespeare")
            rows.append(f"| memory that {what} needs at the most | {peak:.0f} MB |")
    prepared = load("scale").get("preparing-1-gb-char")
    if prepared is not None:
        rows.append(
            "| a text of a gigabyte, read, split and encoded | "
            f"{prepared['megabytes_a_second']:.0f} MB/s, {1000 * prepared['gigabytes']:.0f} MB |"
        )
    if "starting" in found:
        start = found["starting"]
        rows.append(f"| `moreish --help` | {start['help_seconds']:.2f} s |")
        first = start["first_sample_seconds"]
        rows.append(f"| `moreish sample`, from nothing to the first text | {first:.1f} s |")
    return rows


def section() -> str:
    machine = next(iter(load("quality")["results"].values()))["machine"]
    return "\n".join(
        [
            BEGIN,
            "",
            (
                "Validation loss in nats per character, exact over the whole split, on "
                f"{machine['processors']} cores without a GPU. Seconds count everything from the "
                "beginning of counting to the last step."
            ),
            "",
            *quality(),
            "",
            "What half a minute buys on texts that nothing was tuned on (and the two that it was):",
            "",
            *texts(),
            "",
            "Speed, both sides in turn (median, and the lowest and highest round):",
            "",
            *speed(),
            "",
            END,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    page = (ROOT / "README.md").read_text("utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    made = before + section() + after
    if options.check:
        sys.exit(0 if made == page else "README.md is not what the results say: make bench")
    (ROOT / "README.md").write_text(made, "utf-8")
    print(section())


if __name__ == "__main__":
    main()
