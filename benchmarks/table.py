"""Writes the measured results into README.md, docs/ladder.md and docs/fine-tuning.md.

    python benchmarks/table.py [--check]

With `--check` it writes nothing and fails if a page does not match the results.
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
    "nanogpt": "nanoGPT's CPU setting (time R)",
    "gpt-eighth": "`--model gpt`, with n-gram embeddings, trained for R/8",
    "gpt": "`--model gpt`, with n-gram embeddings, trained for R",
    "planned-fifth": "planned by Moreish for R/5",
    "planned": "planned by Moreish for R",
}

PEERS = {"": "nanoGPT", "_to_nanogpt": "nanoGPT", "_to_transformers": "`transformers`' GPT-2"}

TEXTS = {
    "names-lecture": "32,033 names (from the lecture)",
    "shakespeare": "tiny Shakespeare, 1.1 MB",
    "words": "a list of 104,334 English words",
    "french": "a list of French words",
    "python": "source code of Python's standard library, 4.7 MB",
    "german": "sayings and jokes in German, 2.9 MB",
}


def load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def quality() -> list[str]:
    """Returns a row for each training run."""
    rows = ["| name | recipe | lecture or peer | Moreish |", "|---|---|---|---|"]
    for name, case in load("quality").get("results", {}).items():
        loss = spread(case.get("losses", [case["splits"]["val"]["loss"]]), 4)
        rows.append(f"| `{name}` | {case['what']} | {case['peer']} | {loss} |")
    return rows


def spread(values: list[float], digits: int) -> str:
    """Formats the mean, with the range if there are several values."""
    mean = f"**{sum(values) / len(values):.{digits}f}**"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def race() -> list[str]:
    """Returns a row for each contestant of the race."""
    rows = ["| tiny Shakespeare, run in turn | whole process | running | fresh windows |"]
    rows.append("|---|---|---|---|")
    rounds = load("race").get("rounds", [])
    for side, what in RACE.items():
        found = [one[side] for one in rounds if side in one]
        if found:
            seconds = spread([one["seconds"] for one in found], 0).replace("*", "")
            context = found[0].get("context", 64)
            losses = spread([one["loss"] for one in found], 4)
            running = [one["running_loss"] for one in found if "running_loss" in one]
            carried = spread(running, 4) if running else ""
            rows.append(f"| {what}, context {context} | {seconds} s | {carried} | {losses} |")
    return rows


def texts() -> list[str]:
    """Returns the losses after half a minute, also on texts that nothing was tuned on."""
    rows = ["| text | n-gram counts | GPT | planned, fresh windows | planned, running |"]
    rows.append("|---|---|---|---|---|")
    results = load("texts")
    for name, found in ((name, results[name]) for name in TEXTS if name in results):
        cells = [found["losses"][side] for side in ("kneser-ney", "gpt", "planned")]
        cells.append(found["running"]["planned"])
        shown = ["–" if loss is None else f"{loss:.4f}" for loss in cells]
        rows.append(f"| {TEXTS[name]} | " + " | ".join(shown) + " |")
    return rows


def gpt2_tokens() -> str:
    """Returns a sentence that compares tokens with characters."""
    results = load("texts")
    if "shakespeare-gpt2" not in results:
        return "GPT-2's tokens on tiny Shakespeare: not measured yet."
    bits = [
        found["bits_per_byte"]["planned"] * found["running"]["planned"] / found["losses"]["planned"]
        for found in (results["shakespeare"], results["shakespeare-gpt2"])
    ]
    return (
        "With GPT-2's tokens, the model that is planned for tiny Shakespeare takes "
        f"{bits[1]:.3f} bits per byte, running; with characters {bits[0]:.3f}."
    )


def speed() -> list[str]:
    """Returns a row for each measurement of speed and memory."""
    found = load("speed")
    rows = ["| measurement | Moreish |", "|---|---|"]
    for name, title in (
        ("training", "training tokens/s, nanoGPT's CPU setting"),
        ("training-compiled", "the same, Moreish compiled"),
        ("sampling-1", "sampling one sequence, nanoGPT's CPU model"),
        ("sampling-32", "sampling 32 sequences in one batch"),
    ):
        for key, ratio in found.get(name, {}).items():
            if key.startswith("ratio") and not key.endswith(("_low", "_high")):
                side = PEERS[key.removeprefix("ratio")]
                low, high = found[name][f"{key}_low"], found[name][f"{key}_high"]
                rows.append(f"| {title} | {ratio:.2f}× {side} ({low:.2f} to {high:.2f}) |")
    default, larger = found.get("default-run"), found.get("shakespeare-run")
    if default is not None:
        title = "sampling 10,000 names from the model of `make run`"
        rows.append(f"| {title} | {default['names_seconds']:.1f} s |")
        rows.append(f"| peak memory of `make run` | {default['megabytes']:.0f} MB |")
    if larger is not None:
        what = "peak memory of `moreish train shakespeare`"
        rows.append(f"| {what} | {larger['megabytes']:.0f} MB |")
    prepared = load("scale").get("preparing-1-gb-char")
    if prepared is not None:
        rows.append(
            "| reading, splitting and encoding a text of 1 GB | "
            f"{prepared['megabytes_a_second']:.0f} MB/s (copying the file: "
            f"{prepared['copy_megabytes_a_second']:.0f}); memory "
            f"{1000 * prepared['gigabytes']:.0f} MB |"
        )
    large = load("prepare")
    if large:
        ratio, memory = large["times_tiktoken"]["median"], large["memory_mb"]
        rows.append(
            "| 1 GB to token files with GPT-2's tokenizer | "
            f"{ratio:.2f}× tiktoken alone on as many threads; memory {memory:.0f} MB |"
        )
    if default is not None:
        rows.append(f"| `moreish --help` | {default['help_seconds']:.2f} s |")
        first = default["first_sample_seconds"]
        rows.append(f"| `moreish sample`, from start to the first sample | {first:.1f} s |")
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
                f"{machine['processors']} cores without a GPU ({when}). Seconds include counting "
                "and training. `python benchmarks/quality.py --only NAME` measures one row."
            ),
            "",
            *quality(),
            "",
            (
                "Time to quality (`python benchmarks/race.py`), mean and range of the rounds. "
                "nanoGPT's README reports 1.4697 after three minutes on an A100. The time of "
                "Moreish includes scoring the whole training and validation splits."
            ),
            "",
            *race(),
            "",
            (
                "Validation loss after half a minute (`make texts`). Defaults were tuned on the "
                "first three texts. The GPT has n-gram embeddings, except on lists. Running: the "
                "state, with the memory of recent text, is carried through the whole split:"
            ),
            "",
            *texts(),
            "",
            gpt2_tokens(),
            "",
            (
                "Speed (`python benchmarks/speed.py`), measured in turn; median and range of the "
                "rounds:"
            ),
            "",
            *speed(),
            "",
        ]
    )


def ladders() -> str:
    """Returns the losses of every rung on both data sets of the lectures."""
    names, text = (load(f"ladder-{data}")["rungs"] for data in ("names-lecture", "shakespeare"))
    by_rung = {entry["rung"]: entry for entry in text}
    rows = [
        (
            "| rung | names: validation loss | training loss | copied "
            "| tiny Shakespeare: validation loss | training loss | longest copy |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    best = [min(entry["splits"]["val"]["loss"] for entry in entries) for entries in (names, text)]
    for entry in names:
        cells = [entry["rung"]]
        for rung, lowest in zip((entry, by_rung[entry["rung"]]), best, strict=True):
            val, train = (rung["splits"][split]["loss"] for split in ("val", "train"))
            cells += [f"**{val:.4f}**" if val == lowest else f"{val:.4f}", f"{train:.4f}"]
            copied = rung["copied"]
            cells.append(f"{copied:.0%}" if rung is entry else f"{copied:.0f} characters")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(["", *rows, ""])


def pretrained() -> str:
    """Returns the results of fine-tuning, the lecture's third exercise."""
    found = load("pretrain")
    if not found:
        return "\nNot measured yet.\n"
    rows = ["| training data | steps | validation loss | best step |", "|---|---|---|---|"]
    for run in found["runs"][1:]:
        loss = f"**{run['val']:.4f}** ± {run['stderr']:.4f}"
        rows.append(f"| {run['what']} | {run['steps']:,} | {loss} | {run['best_after']:,} |")
    verse, run = found["verse"], found["runs"][0]
    text = (
        f"Pretraining text: {verse['characters'] / 1e6:.0f} million characters of verse, without "
        f"{verse['shared_with_shakespeare']:,} lines that share six consecutive words with tiny "
        f"Shakespeare. Model: a GPT with {run['parameters']:,} parameters and context "
        f"{found['model']['context']}, {found['train']['batch_tokens']:,} characters per step. It "
        f"was pretrained on {run['steps'] * found['train']['batch_tokens'] / 1e6:.1f} million "
        f"characters, to a validation loss of {run['val']:.4f} on verse. One seed, "
        f"{found['date']}."
    )
    return "\n".join(["", text, "", *rows, ""])


def arithmetic() -> str:
    """Return the table of arithmetic."""
    return tasks("problems", ("addition", "calculator"))


def words() -> str:
    """Return the table of classified and spelled words."""
    return tasks("words", ("names", "cmudict"))


def tasks(title: str, beginnings: tuple[str, ...]) -> str:
    """Return a table of the tasks whose names begin so."""
    rows = [f"| {title} | command | right | whole process |", "|---|---|---|---|"]
    for name, record in load("tasks").items():
        if not name.startswith(beginnings):
            continue
        shares = [run.get("exact_match", run.get("accuracy")) for run in record["runs"]]
        seconds = [run["seconds"] for run in record["runs"]]
        right = f"{min(shares):.2%}" if min(shares) < max(shares) else f"{shares[0]:.2%}"
        if min(shares) < max(shares):
            right += f" to {max(shares):.2%}"
        command = record["command"].removeprefix("moreish train ")
        rows.append(f"| {record['what']} | `{command}` | **{right}** | {max(seconds):.0f} s |")
    return "\n".join(rows)


REVIEWS = {"rotten-tomatoes": "Rotten Tomatoes", "imdb": "IMDb"}
CLASSIFIERS = {
    "words": "NB-SVM on words (`--model nb-svm`)",
    "planned": "as planned: NB-SVM on words, and on characters of short texts",
    "hybrid": "NB-SVM and an encoder that corrects it",
    "sklearn svm": "scikit-learn's linear SVM on the same log-count ratios",
    "sklearn logistic": "scikit-learn's logistic regression on them",
}


def reviews() -> str:
    """Return the table of classified reviews."""
    rows = ["| reviews | model | labels right | whole process |", "|---|---|---|---|"]
    for source, title in REVIEWS.items():
        record = load("reviews").get(source, {})
        for side, what in CLASSIFIERS.items():
            runs = [run[side] for run in record.get("runs", []) if side in run]
            if runs:
                share = sum(run["test"] for run in runs) / len(runs)
                seconds = max(run["seconds"] for run in runs)
                rows.append(f"| {title} | {what} | **{share:.2%}** | {seconds:.0f} s |")
    return "\n".join(rows)


TRANSLATORS = {
    "moreish": "Moreish, five beams",
    "joeynmt": "JoeyNMT, five beams",
    "lookup": "the target of the most similar training input",
}


def translation() -> str:
    """Return the table of translations."""
    rows = ["| direction | model | BLEU | chrF | training |", "|---|---|---|---|---|"]
    for direction, record in load("translate").items():
        for side, what in TRANSLATORS.items():
            if (found := record.get(side)) is None:
                continue
            minutes = f"{found['seconds'] / 60:.0f} min" if "seconds" in found else ""
            title = direction.replace("-", " → ")
            scores = f"**{found['bleu']:.1f}** | **{found['chrf']:.1f}**"
            rows.append(f"| {title} | {what} | {scores} | {minutes} |")
    return "\n".join(rows)


PAGES = (
    (ROOT / "docs" / "fine-tuning.md", "python benchmarks/pretrain.py", pretrained),
    (ROOT / "README.md", "make bench", section),
    (ROOT / "docs" / "ladder.md", "make ladders", ladders),
    (ROOT / "docs" / "tasks.md", "python benchmarks/tasks.py", arithmetic),
    (ROOT / "docs" / "tasks.md", "python benchmarks/tasks.py: words", words),
    (ROOT / "docs" / "tasks.md", "python benchmarks/reviews.py", reviews),
    (ROOT / "docs" / "tasks.md", "python benchmarks/translate.py", translation),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path, command, make_section in PAGES:
        page = path.read_text("utf-8")
        begin = BEGIN.format(command)
        before, rest = page.split(begin)
        new = f"{before}{begin}\n{make_section()}\n{END}{rest.split(END, 1)[1]}"
        if not options.check:
            path.write_text(new, "utf-8")
        elif new != page:
            sys.exit(f"{path.name} does not match the results: run {command}")
    if not options.check:
        print(section())


if __name__ == "__main__":
    main()
