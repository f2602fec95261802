"""One table of everything that was measured: the README's section, and that of docs/ladder.md.

    python benchmarks/table.py [--check]

With `--check` it only says whether these pages are what the results make of them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: begin ({}) -->", "<!-- figures: end -->"

RACE = {
    "nanogpt": "nanoGPT's CPU setting, which takes R",
    "gpt-eighth": "a GPT alone, trained for R/8",
    "gpt": "a GPT alone, trained for R",
    "planned-fifth": "what the planner chooses for R/5",
    "planned": "what the planner chooses for R",
}

PEERS = {"": "nanoGPT", "_to_nanogpt": "nanoGPT", "_to_transformers": "`transformers`' GPT-2"}

TEXTS = {
    "names-lecture": "32,033 names (the lecture's)",
    "shakespeare": "tiny Shakespeare, 1.1 MB",
    "words": "a list of 104,334 English words",
    "french": "a list of French words",
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
        loss = spread(case.get("losses", [case["splits"]["val"]["loss"]]), 4)
        rows.append(f"| `{name}` | {case['what']} | {case['peer']} | {loss} |")
    return rows


def spread(values: list[float], digits: int) -> str:
    """Their mean, and the lowest and the highest where there are several."""
    mean = f"**{sum(values) / len(values):.{digits}f}**"
    ends = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return mean + ends


def race() -> list[str]:
    """Time to quality: a row for each side."""
    rows = ["| tiny Shakespeare, both sides in turn | whole process | validation loss |"]
    rows.append("|---|---|---|")
    rounds = load("race").get("rounds", [])
    for side, what in RACE.items():
        found = [one[side] for one in rounds if side in one]
        if found:
            seconds = spread([one["seconds"] for one in found], 0).replace("*", "")
            context = found[0].get("context", 64)
            losses = spread([one["loss"] for one in found], 4)
            rows.append(f"| {what}, context {context} | {seconds} s | {losses} |")
    return rows


def texts() -> list[str]:
    """What half a minute buys on texts that nothing was tuned on, beside two that it was."""
    rows = ["| text | counted | a GPT alone | planned |", "|---|---|---|---|"]
    results = load("texts")
    for name, found in ((name, results[name]) for name in TEXTS if name in results):
        sides = [found["losses"][side] for side in ("kneser-ney", "gpt", "planned")]
        rows.append(f"| {TEXTS[name]} | " + " | ".join(f"{loss:.4f}" for loss in sides) + " |")
    return rows


def speed() -> list[str]:
    """A row for each measurement of speed."""
    found = load("speed")
    rows = ["| what | Moreish |", "|---|---|"]
    for name, title in (
        ("training", "training tokens a second, nanoGPT's CPU setting"),
        ("training-compiled", "the same, ours compiled"),
        ("sampling-1", "one stream of samples, nanoGPT's CPU model"),
        ("sampling-32", "32 streams together"),
    ):
        for key, ratio in found.get(name, {}).items():
            if key.startswith("ratio") and not key.endswith(("_low", "_high")):
                side = PEERS[key.removeprefix("ratio")]
                low, high = found[name][f"{key}_low"], found[name][f"{key}_high"]
                rows.append(f"| {title} | {ratio:.2f} times {side} ({low:.2f} to {high:.2f}) |")
    default, larger = found.get("default-run"), found.get("shakespeare-run")
    if default is not None:
        rows.append(f"| 10,000 names from `make run`'s model | {default['names_seconds']:.1f} s |")
        rows.append(f"| memory that `make run` takes at the most | {default['megabytes']:.0f} MB |")
    if larger is not None:
        what = "memory that `moreish train shakespeare` takes at the most"
        rows.append(f"| {what} | {larger['megabytes']:.0f} MB |")
    prepared = load("scale").get("preparing-1-gb-char")
    if prepared is not None:
        rows.append(
            "| a text of a gigabyte, read, split and encoded | "
            f"{prepared['megabytes_a_second']:.0f} MB/s (copying the file: "
            f"{prepared['copy_megabytes_a_second']:.0f}); memory "
            f"{1000 * prepared['gigabytes']:.0f} MB |"
        )
    large = load("prepare")
    if large:
        ratio, memory = large["times_tiktoken"]["median"], large["memory_mb"]
        rows.append(
            "| a gigabyte through GPT-2's tokenizer into token files | "
            f"{ratio:.2f} times tiktoken alone on as many threads; memory {memory:.0f} MB |"
        )
    if default is not None:
        rows.append(f"| `moreish --help` | {default['help_seconds']:.2f} s |")
        first = default["first_sample_seconds"]
        rows.append(f"| `moreish sample`, from nothing to the first text | {first:.1f} s |")
    return rows


def section() -> str:
    results = load("quality")["results"].values()
    machine = next(iter(results))["machine"]
    days = sorted(result["made"][:10] for result in results)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return "\n".join(
        [
            "",
            (
                "Validation loss in nats per character, exact over the whole split, on "
                f"{machine['processors']} cores without a GPU ({when}). Seconds count everything "
                "from the beginning of counting to the last step. `python benchmarks/quality.py "
                "--only` measures a row."
            ),
            "",
            *quality(),
            "",
            (
                "Time to quality (`python benchmarks/race.py`): the mean, and the lowest and the "
                "highest round. nanoGPT's README has 1.4697 after three minutes of an A100. Our "
                "processes also score the whole training and validation splits, which is not part "
                "of the training."
            ),
            "",
            *race(),
            "",
            (
                "What half a minute buys (`make texts`). The first three were tuned on; a GPT "
                "alone has embeddings of n-grams, but not for lists:"
            ),
            "",
            *texts(),
            "",
            (
                "Speed (`python benchmarks/speed.py`), both sides in turn (median, and the lowest "
                "and highest round):"
            ),
            "",
            *speed(),
            "",
        ]
    )


def ladders() -> str:
    """Every rung on both of the lectures' data."""
    names, text = (load(f"ladder-{data}")["rungs"] for data in ("names-lecture", "shakespeare"))
    by_rung = {entry["rung"]: entry for entry in text}
    rows = [
        (
            "| rung | names: validation | training | copied "
            "| tiny Shakespeare: validation | training | copied |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    best = [min(entry["splits"]["val"]["loss"] for entry in entries) for entries in (names, text)]
    for entry in names:
        cells = [entry["rung"]]
        for of, least in zip((entry, by_rung[entry["rung"]]), best, strict=True):
            val, train = (of["splits"][split]["loss"] for split in ("val", "train"))
            cells += [f"**{val:.4f}**" if val == least else f"{val:.4f}", f"{train:.4f}"]
            copied = of["copied"]
            cells.append(f"{copied:.0%}" if of is entry else f"{copied:.0f} characters")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(["", *rows, ""])


def pretrained() -> str:
    """The lecture's third exercise."""
    found = load("pretrain")
    if not found:
        return "\nNot measured yet.\n"
    rows = ["| trained on | steps | validation loss | lowest after |", "|---|---|---|---|"]
    for run in found["runs"][1:]:
        loss = f"**{run['val']:.4f}** ± {run['stderr']:.4f}"
        rows.append(f"| {run['what']} | {run['steps']:,} | {loss} | {run['best_after']:,} steps |")
    verse, run = found["verse"], found["runs"][0]
    text = (
        f"The large text: {verse['characters'] / 1e6:.0f} million characters of verse "
        f"({verse['shared_with_shakespeare']:,} lines that share six words in a row with tiny "
        f"Shakespeare are left out). The model: a GPT of {run['parameters']:,} parameters, context "
        f"{found['model']['context']}, {found['train']['batch_tokens']:,} characters a step. It "
        f"saw {run['steps'] * found['train']['batch_tokens'] / 1e6:.1f} million characters of "
        f"verse, and had a loss of {run['val']:.4f} on verse then. One seed, {found['date']}."
    )
    return "\n".join(["", text, "", *rows, ""])


PAGES = (
    (ROOT / "docs" / "fine-tuning.md", "python benchmarks/pretrain.py", pretrained),
    (ROOT / "README.md", "make bench", section),
    (ROOT / "docs" / "ladder.md", "make ladders", ladders),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path, command, made in PAGES:
        page = path.read_text("utf-8")
        begin = BEGIN.format(command)
        before, rest = page.split(begin)
        new = f"{before}{begin}\n{made()}\n{END}{rest.split(END)[1]}"
        if not options.check:
            path.write_text(new, "utf-8")
        elif new != page:
            sys.exit(f"{path.name} is not what the results say: {command}")
    if not options.check:
        print(section())


if __name__ == "__main__":
    main()
