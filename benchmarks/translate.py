"""Translation: an encoder-decoder of Moreish against JoeyNMT's, at equal time and vocabulary.

    python benchmarks/translate.py PAIRS --joeynmt PYTHON [--minutes 20]

PAIRS is a table with the columns `english` and `french`. PYTHON is an interpreter in which JoeyNMT
2.3 and subword-nmt are installed. Both sides get the same training, validation and test sentences,
4,096 merges of byte pairs or tokens of them, learned from both languages together, and the same
minutes of training on the same cores, one after the other. JoeyNMT's settings are those of its
configuration for small data, with a model of the width that Moreish plans. Scores are sacrebleu's
on the test split, by beam search with five beams. A phrase lookup (the target of the training
input with the smallest edit distance) shows what the network adds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sacrebleu
import yaml
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from result_files import provenance, read_results, write_results

import moreish
from moreish.data.examples import split_examples

BEAMS = 5
JOEYNMT_VALIDATION = 500
"""Validation sentences that JoeyNMT scores every 500 steps."""
DIRECTIONS = (("french", "english"), ("english", "french"))
SPLITS = ("train", "val", "test")


def score(found: list[str], targets: list[str]) -> dict[str, float]:
    """Return BLEU and chrF."""
    return {
        "bleu": sacrebleu.corpus_bleu(found, [targets]).score,
        "chrf": sacrebleu.corpus_chrf(found, [targets]).score,
    }


def run_moreish(
    pairs: Path, source: str, target: str, minutes: float, folder: Path
) -> tuple[dict[str, Any], Any]:
    """Train what is planned, and translate the test split."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "moreish", "train", str(pairs), "--input", source, "--target",
         target, "--minutes", str(minutes), "--out", str(folder / "run"), "--overwrite", "-q"],
        check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    run = moreish.load(folder / "run")
    examples = split_examples(run.split("test"), run.tokenizer)
    found = run.predict([e.input for e in examples], beams=BEAMS)
    scores = score([p.target for p in found], [e.target for e in examples])
    greedy = run.predict([e.input for e in examples])
    scores["bleu_greedy"] = score([p.target for p in greedy], [e.target for e in examples])["bleu"]
    model = run.config.model.model_dump(mode="json")
    return {**scores, "seconds": seconds, "model": model}, run


def lookup(run: Any, number: int) -> dict[str, float]:
    """Translate the first test sentences by the nearest input of the training split."""
    memory = split_examples(run.split("train"), run.tokenizer)
    test = split_examples(run.split("test"), run.tokenizer)[:number]
    inputs = [example.input for example in memory]
    found = []
    for example in test:
        nearest = process.extractOne(
            example.input, inputs, scorer=Levenshtein.normalized_similarity
        )
        found.append(memory[nearest[2]].target)
    return score(found, [example.target for example in test])


def run_joeynmt(
    python: Path, run: Any, source: str, target: str, minutes: float, folder: Path
) -> dict[str, float]:
    """Train JoeyNMT's Transformer on the same sentences, and translate the test split."""
    texts: dict[str, list[Any]] = {}
    for split in SPLITS:
        examples = split_examples(run.split(split), run.tokenizer)
        texts[split] = examples
        if split == "val":  # so that its evaluations during training take little time
            examples = examples[:JOEYNMT_VALIDATION]
        for column, language in ((0, source), (1, target)):
            lines = [" ".join(example[column].split()) for example in examples]
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", "utf-8")
    both = folder / "both.txt"
    both.write_text(
        "".join((folder / f"train.{language}").read_text() for language in (source, target))
    )
    codes = folder / "codes.txt"
    tool = [str(python), "-c", "from subword_nmt.subword_nmt import main; main()"]
    subprocess.run(
        [*tool, "learn-bpe", "-s", "4000", "-i", str(both), "-o", str(codes)],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    encoded = subprocess.run(
        [*tool, "apply-bpe", "-c", str(codes), "-i", str(both)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    vocabulary = sorted(set(encoded.stdout.split()))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    model = run.config.model
    config = joeynmt_config(folder, source, target, model.width, model.heads, model.layers)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    began = time.perf_counter()
    process_ = subprocess.Popen(
        [str(python), "-m", "joeynmt", "train", str(path), "--skip-test"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process_.wait(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        process_.terminate()
        process_.wait()
    seconds = time.perf_counter() - began
    subprocess.run(
        [str(python), "-m", "joeynmt", "test", str(path), "--output-path", str(folder / "out")],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found = (folder / "out.test").read_text("utf-8").split("\n")[: len(texts["test"])]
    targets = [example.target for example in texts["test"]]
    return {**score(found, targets), "seconds": seconds}


def joeynmt_config(
    folder: Path, source: str, target: str, width: int, heads: int, layers: int
) -> dict[str, Any]:
    """Return JoeyNMT's settings: those of its example for small data."""

    def side(language: str) -> dict[str, Any]:
        return {
            "lang": language,
            "max_length": 100,
            "lowercase": False,
            "level": "bpe",
            "voc_file": str(folder / "vocab.txt"),
            "tokenizer_type": "subword-nmt",
            "tokenizer_cfg": {"codes": str(folder / "codes.txt"), "num_merges": 4000},
        }

    stack = {
        "type": "transformer",
        "num_layers": layers,
        "num_heads": heads,
        "embeddings": {"embedding_dim": width, "scale": True, "dropout": 0.0},
        "hidden_size": width,
        "ff_size": 4 * width,
        "dropout": 0.1,
        "layer_norm": "pre",
    }
    return {
        "name": "anchor",
        "joeynmt_version": "2.3.0",
        "model_dir": str(folder / "model"),
        "use_cuda": False,
        "fp16": False,
        "random_seed": 42,
        "data": {
            "train": str(folder / "train"),
            "dev": str(folder / "val"),
            "test": str(folder / "test"),
            "dataset_type": "plain",
            "src": side(source),
            "trg": side(target),
        },
        "testing": {
            "n_best": 1, "beam_size": BEAMS, "beam_alpha": 1.0, "batch_size": 1024,
            "batch_type": "token", "max_output_length": 100, "eval_metrics": ["bleu"],
        },
        "training": {
            "optimizer": "adamw", "adam_betas": [0.9, 0.98],
            "scheduling": "warmupinversesquareroot",
            "learning_rate": 0.001, "learning_rate_warmup": 500, "learning_rate_min": 1e-8,
            "weight_decay": 0.0, "label_smoothing": 0.1, "loss": "crossentropy",
            "batch_size": 1024, "batch_type": "token", "normalization": "tokens", "epochs": 1000,
            "validation_freq": 500, "logging_freq": 100, "early_stopping_metric": "ppl",
            "patience": 100, "overwrite": True, "shuffle": True, "keep_best_ckpts": 1,
            "clip_grad_norm": 1.0,
        },
        "model": {
            "initializer": "xavier_uniform", "init_gain": 1.0, "bias_initializer": "zeros",
            "embed_initializer": "xavier_uniform", "embed_init_gain": 1.0,
            "tied_embeddings": True, "tied_softmax": True, "encoder": stack, "decoder": stack,
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--joeynmt", type=Path, metavar="PYTHON")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--directions", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/translate.json"))
    options = parser.parse_args()
    results = read_results(options.out)
    for number in options.directions:
        source, target = DIRECTIONS[number]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours, run = run_moreish(options.pairs, source, target, options.minutes, folder)
            found = {"moreish": ours, "lookup": lookup(run, 1000)}
            print(f"{source} → {target}", found, flush=True)
            if options.joeynmt is None:
                print("JoeyNMT NOT MEASURED: this needs --joeynmt", flush=True)
            else:
                found["joeynmt"] = run_joeynmt(
                    options.joeynmt, run, source, target, options.minutes, folder
                )
                print(f"{source} → {target}", json.dumps(found["joeynmt"]), flush=True)
        record = {"minutes": options.minutes, **found, **provenance()}
        results[f"{source}-{target}"] = record
        write_results(options.out, results)


if __name__ == "__main__":
    main()
