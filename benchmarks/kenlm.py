"""Kneser-Ney compared with an independent implementation: KenLM's `lmplz` (Heafield et al. 2013).

    python benchmarks/kenlm.py PATH/TO/lmplz [--out benchmarks/results/kenlm.json]

The program is part of the source distribution of the package `kenlm`, built with its own CMake
files. It reads the training names of the lecture's split, one per line, with spaces between
letters. This script computes the loss of its ARPA file on the validation names and compares it with
ours. Two things differ by design: KenLM pads names with a single start symbol, and it reserves
probability for unknown words.
"""

import argparse
import math
import subprocess
from pathlib import Path

from result_files import write_results

from moreish.data import catalog
from moreish.data.encode import encode_corpus
from moreish.data.text.corpus import Corpus
from moreish.evaluate.metrics import evaluate_losses
from moreish.models import CountBasedModel, build_model, model_config
from moreish.tokenizers.char import CharTokenizer

Table = dict[tuple[str, ...], tuple[float, float]]


def read_arpa(text: str) -> Table:
    """Return log10 of the probability and of the back-off of each n-gram."""
    table: Table = {}
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) >= 2:
            back_off = float(parts[2]) if len(parts) > 2 else 0.0
            table[tuple(parts[1].split(" "))] = float(parts[0]), back_off
    return table


def log_probability(table: Table, context: tuple[str, ...], word: str) -> float:
    """Return log10 of a probability: of the longest n-gram in the file, with its back-offs."""
    found = table.get((*context, word))
    if found is not None:
        return found[0]
    return table.get(context, (0.0, 0.0))[1] + log_probability(table, context[1:], word)


def kenlm_loss(table: Table, names: list[str], order: int) -> float:
    """Return the mean loss in nats per letter, including the ends of names."""
    total, count = 0.0, 0
    for name in names:
        words = ["<s>", *name, "</s>"]
        for place in range(1, len(words)):
            context = tuple(words[max(0, place - order + 1) : place])
            total -= log_probability(table, context, words[place]) * math.log(10)
            count += 1
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lmplz", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kenlm.json"))
    options = parser.parse_args()
    names = catalog.load_dataset("names-lecture").split("\n")
    tokenizer = CharTokenizer.build(names, boundary=True)
    corpus = Corpus.of(names, "lines")
    splits = encode_corpus(corpus, tokenizer, "lecture", 42)

    def texts(split: str) -> list[str]:
        tokens = splits[split]
        return [tokenizer.decode(tokens.item(i)) for i in range(len(tokens.boundaries) - 1)]

    spaced = "\n".join(" ".join(name) for name in texts("train")) + "\n"
    results = []
    for order in range(2, 7):
        command = [str(options.lmplz), "-o", str(order), "--discount_fallback", "-S", "20%"]
        done = subprocess.run(command, input=spaced, capture_output=True, text=True, check=True)
        model = build_model(model_config({"name": "kneser-ney", "order": order}), 27)
        assert isinstance(model, CountBasedModel)
        model.fit_counts(splits["train"])
        found = {
            "order": order,
            "kenlm": kenlm_loss(read_arpa(done.stdout), texts("val"), order),
            "ours": float(evaluate_losses(model, splits["val"]).mean(dtype=float)),
        }
        print(found, flush=True)
        results.append(found)
    report = {"split": "the lecture's names, validation, nats a letter", "orders": results}
    write_results(options.out, report)


if __name__ == "__main__":
    main()
