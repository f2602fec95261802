"""Time and memory on large texts: setting up a run, auditing, counting, and novelty look-ups.

    python benchmarks/scale.py [--only NAME ...] [--out benchmarks/results/scale.json]

The text is synthetic: words drawn by their frequency in tiny Shakespeare, with one in 200 letters
replaced, so that new n-grams keep appearing. Each case runs in its own process, whose peak memory
is reported.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_files import read_results, write_results

from moreish.config import resolve
from moreish.data import catalog
from moreish.data.audit.audit import audit_source
from moreish.data.text.lines import CorpusKind
from moreish.data.token_dataset import TokenDataset
from moreish.evaluate.novelty import NearestItemIndex, OverlapIndex
from moreish.models import CountBasedModel, Hybrid, build_model, model_config
from moreish.runs.run import Run
from moreish.tokenizers.char import CharTokenizer
from moreish.training.setup import set_up


def words(megabytes: int) -> Iterator[bytes]:
    """Yield chunks of a text of that many million characters."""
    found, counts = np.unique(catalog.load_dataset("shakespeare").split(), return_counts=True)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", "u1")
    spaced = np.array([f"{word} ".encode() for word in found], dtype=object)
    random = np.random.default_rng(0)
    left = megabytes * 1_000_000
    while left > 0:
        drawn = random.choice(len(spaced), size=1_000_000, p=counts / counts.sum())
        bytes_P = np.frombuffer(b"".join(spaced[drawn])[:left], "u1").copy()
        odd = random.integers(len(bytes_P), size=len(bytes_P) // 200)
        bytes_P[odd] = random.choice(letters, size=len(odd))
        piece = bytes_P.tobytes()
        left -= len(piece)
        yield piece


def shakespeare() -> tuple[TokenDataset, int]:
    text = catalog.load_dataset("shakespeare")
    tokenizer = CharTokenizer.build([text], boundary=False)
    ids = tokenizer.encode(text).astype(np.uint8)
    return TokenDataset(ids[: int(0.9 * len(ids))], items=False), tokenizer.vocab_size


def fit(tokens: TokenDataset, vocab_size: int, order: int) -> dict[str, Any]:
    model = build_model(model_config({"name": "kneser-ney", "order": order}), vocab_size)
    began = time.perf_counter()
    assert isinstance(model, CountBasedModel)
    model.fit_counts(tokens)
    return {"seconds": time.perf_counter() - began, "numbers": model.num_parameters()}


def counting_shakespeare() -> dict[str, Any]:
    """Measure Kneser-Ney counts of order 7, the best of nine runs."""
    tokens, size = shakespeare()
    return min((fit(tokens, size, 7) for _ in range(9)), key=lambda found: found["seconds"])


def counting(megabytes: int) -> dict[str, Any]:
    """Measure Kneser-Ney counts of order 7 on a memory-mapped token file, as in a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids"
        letters = np.unique(
            np.frombuffer(" ".join(catalog.load_dataset("shakespeare").split()).encode(), "u1")
        )
        places = np.zeros(256, dtype=np.uint8)
        places[letters] = np.arange(len(letters))
        with path.open("wb") as file:
            for piece in words(megabytes):
                file.write(places[np.frombuffer(piece, "u1")].tobytes())
        before = peak_memory()
        ids = np.memmap(path, dtype=np.uint8, mode="r")
        return {"before": before, **fit(TokenDataset(ids, items=False), len(letters), 7)}


def experts(megabytes: int) -> dict[str, Any]:
    """Measure what a hybrid with a memory fits before training on a text, and all experts' reading
    of 1 MB of it, on one core."""
    torch.set_num_threads(1)
    codes = np.concatenate([np.frombuffer(piece, "u1") for piece in words(megabytes)])
    letters, ids = np.unique(codes, return_inverse=True)
    size, ids = len(letters), ids.astype(np.uint8)
    tokens, before = TokenDataset(ids, items=False), peak_memory()
    config = model_config({"name": "hybrid", "folds": 2, "layers": 1}).for_data(None, size)
    model = build_model(config, size)
    assert isinstance(model, Hybrid)
    began = time.perf_counter()
    model.fit_counts(tokens)
    fitted = time.perf_counter() - began
    read = torch.from_numpy(ids[:1_000_000].astype(np.int64))[None]
    state, began = None, time.perf_counter()
    with torch.inference_mode():
        for part in read.split(model.call_length, dim=1):
            votes, past = model._recall(part, None if state is None else state[1])
            _, _, counts_state = model._consult(part, None if state is None else state[0], votes)
            state = counts_state, past
    return {"before": before, "seconds": fitted, "seconds_of_1_mb": time.perf_counter() - began}


def preparing(tokenizer: str, kind: str = "text") -> dict[str, Any]:
    """Measure the setup of a run on a 1 GB file that is not in the page cache, and reading and
    copying the file for comparison."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        # Another process writes the text, so that its memory is not measured.
        subprocess.run([sys.executable, __file__, "--write", path, "--as", kind], check=True)
        before = peak_memory()
        read = min(read_through(path) for _ in range(3))
        copied = copy(path)
        forget(path)
        settings = {
            "data": {"source": str(path), "tokenizer": tokenizer, "kind": kind},
            "model": {"name": "ngram"},
        }
        began, cpu = time.perf_counter(), time.process_time()
        ready = set_up(resolve(settings))
        Run.create(
            Path(folder) / "run", ready.config, ready.tokenizer, ready.splits, ready.facts,
            overwrite=False,
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        megabytes = path.stat().st_size / 1e6
        return {
            "before": before,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "megabytes_a_second": megabytes / seconds,
            "read_megabytes_a_second": megabytes / read,
            "copy_megabytes_a_second": megabytes / copied,
        }


def doctor(kind: CorpusKind) -> dict[str, Any]:
    """Measure the audit of 1 GB in lines of three words, or in a single line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        subprocess.run([sys.executable, __file__, "--write", path, "--as", kind], check=True)
        before, began = peak_memory(), time.perf_counter()
        found = audit_source(str(path), kind)
        return {
            "before": before,
            "seconds": time.perf_counter() - began,
            "lines": found.lines,
            "findings": len(found.findings),
        }


def forget(path: Path) -> None:
    """Remove a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path) -> float:
    """Return the seconds to read a file."""
    forget(path)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return time.perf_counter() - began


def copy(path: Path) -> float:
    """Return the seconds to copy a file."""
    forget(path)
    beside = path.with_suffix(".copy")
    began = time.perf_counter()
    shutil.copyfile(path, beside)
    seconds = time.perf_counter() - began
    beside.unlink()
    return seconds


def write(path: Path, kind: str) -> None:
    """Write 1 GB of running text, or of lines of three words."""
    with path.open("wb") as file:
        for piece in words(1000):
            if kind == "lines":
                spaces = np.flatnonzero((letters := np.frombuffer(piece, "u1").copy()) == ord(" "))
                letters[spaces[::3]] = ord("\n")
                piece = letters.tobytes()
            file.write(piece)


def novelty() -> dict[str, Any]:
    """Measure the suffix array of 100 MB, and look-ups of 500 characters in it."""
    data = b"".join(words(100))
    began = time.perf_counter()
    index = OverlapIndex(data)
    built = time.perf_counter() - began
    text = catalog.load_dataset("shakespeare")[5000:5500]
    began = time.perf_counter()
    longest = [index.longest_overlap(text[i:] + text[:i]) for i in range(20)]
    return {
        "seconds": built,
        "seconds_a_text": (time.perf_counter() - began) / 20,
        "longest": max(len(found.text) for found in longest),
    }


def nearest() -> dict[str, Any]:
    """Measure the search for the nearest of ten million items (100 MB) to unknown names."""
    known = catalog.load_dataset("names").split("\n")
    random = np.random.default_rng(0)
    pairs = random.integers(len(known), size=(10_000_000, 2))
    items = [known[a][:5] + known[b][-4:] for a, b in pairs.tolist()]
    began = time.perf_counter()
    found = NearestItemIndex(items)
    built = time.perf_counter() - began
    asked = [name[::-1] for name in known[:20]]
    began = time.perf_counter()
    distances = [found.nearest(name)[1] for name in asked]
    return {
        "seconds": built,
        "seconds_a_text": (time.perf_counter() - began) / 20,
        "megabytes": sum(map(len, items)) / 1e6 + 10,
        "mean_distance": float(np.mean(distances)),
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "preparing-1-gb-byte": lambda: preparing("byte"),
    "preparing-1-gb-char": lambda: preparing("char"),
    "preparing-1-gb-of-lines": lambda: preparing("char", "lines"),
    "doctor-1-gb": lambda: doctor("text"),
    "doctor-1-gb-of-lines": lambda: doctor("lines"),
    "counting-shakespeare": counting_shakespeare,
    "counting-100-mb": lambda: counting(100),
    "counting-1-gb": lambda: counting(1000),
    "experts-1-mb": lambda: experts(1),
    "experts-100-mb": lambda: experts(100),
    "novelty-100-mb": novelty,
    "nearest-100-mb": nearest,
}


def peak_memory() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    parser.add_argument(
        "--case", choices=sorted(CASES), help="run one case in this process and print JSON"
    )
    parser.add_argument("--write", type=Path, help="write the text of a case to this file")
    parser.add_argument("--as", dest="kind", choices=["text", "lines"], default="text")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.json"))
    options = parser.parse_args()
    if options.write:
        write(options.write, options.kind)
        return
    if options.case:
        found = CASES[options.case]()
        print(json.dumps({**found, "gigabytes": peak_memory()}))
        return
    report = read_results(options.out)
    for name in options.only:
        command = [sys.executable, __file__, "--case", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report[name] = {key: round(value, 4) for key, value in json.loads(done.stdout).items()}
        print(name, report[name], flush=True)
        write_results(options.out, report)


if __name__ == "__main__":
    main()
