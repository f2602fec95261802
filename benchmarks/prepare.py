"""Speed of `moreish prepare` with GPT-2's tokenizer compared with tiktoken alone.

    python benchmarks/prepare.py [--text FILE] [--megabytes 1000] [--rounds 3]

Without a file the text is synthetic: documents of random excerpts of tiny Shakespeare, with the
letters of one in 50 words shuffled, so that new words keep appearing. tiktoken gets the documents
from memory (`encode_ordinary_batch`) and discards the tokens; `prepare` reads the file and writes
verified token files. Both use as many threads and alternate, each in its own process, whose peak
memory is reported.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from result_files import write_results

from moreish.data import catalog
from moreish.data.shards.pipeline import PrepareConfig, available_cores, prepare_dataset
from moreish.data.shards.readers import SourceFormat
from moreish.runs.record import library_versions, machine_info
from moreish.tokenizers import tokenizer_builder

SEPARATOR = "<|endoftext|>"

BATCH_CHARACTERS = 16_000_000
"""The number of characters that tiktoken gets at a time: as Python integers, all tokens would not
fit into memory."""


def documents(megabytes: float) -> Iterator[str]:
    """Yield documents of so many million characters in total."""
    words = catalog.load_dataset("shakespeare").split(" ")
    random = np.random.default_rng(0)
    left = megabytes * 1e6
    while left > 0:
        drawn: list[str] = []
        for _ in range(random.integers(2, 30)):
            at = int(random.integers(len(words) - 40))
            drawn += words[at : at + int(random.integers(5, 40))]
        for odd in random.integers(len(drawn), size=len(drawn) // 50):
            drawn[odd] = "".join(random.permutation(list(drawn[odd])))
        document = " ".join(drawn)
        left -= len(document) + len(SEPARATOR) + 2
        yield document


def tiktoken_alone(text: Path) -> dict[str, Any]:
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    vocabulary = tokenizer_builder("gpt2").build([], boundary=True)
    ranks = {vocabulary.decode_bytes(np.array([n])): n for n in range(vocabulary.vocab_size - 1)}
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={}
    )
    every = [part.strip("\n") for part in text.read_text("utf-8").split(SEPARATOR)]
    encoding.encode_ordinary("warm")
    seconds, tokens, held, size = 0.0, 0, list[str](), 0
    for number, document in enumerate(every, 1):
        held.append(document)
        size += len(document)
        if size >= BATCH_CHARACTERS or number == len(every):
            began = time.perf_counter()
            found = encoding.encode_ordinary_batch(held, num_threads=available_cores())
            seconds += time.perf_counter() - began
            tokens += sum(map(len, found))
            held, size = [], 0
    return {"seconds": seconds, "tokens": tokens}


def moreish_prepare(text: Path) -> dict[str, Any]:
    tokenizer_builder("gpt2").build([], boundary=True)  # downloads the tokenizer if needed
    with tempfile.TemporaryDirectory(dir=text.parent) as folder:
        order = PrepareConfig(sources=(str(text),), source_format=SourceFormat(separator=SEPARATOR))
        began = time.perf_counter()
        done = prepare_dataset(order, Path(folder) / "prepared", overwrite=False)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        prepare_dataset(order, Path(folder) / "prepared", overwrite=False)
        manifest = done.prepared.manifest
        boundaries = sum(shard.documents for shard in manifest.shards)
        tokens = sum(manifest.tokens().values()) - boundaries
        return {
            "seconds": seconds,
            "tokens": tokens,
            "verifying": time.perf_counter() - began,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        }


SIDES = {"tiktoken": tiktoken_alone, "moreish": moreish_prepare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/prepare.json"))
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.text)))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = options.text or Path(folder) / "text.txt"
        if options.text is None:
            with text.open("w", encoding="utf-8") as file:
                for document in documents(options.megabytes):
                    file.write(f"{document}\n{SEPARATOR}\n")
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(options.rounds):
            rounds.append({})
            for side in sorted(SIDES, reverse=number % 2 == 0):
                command = [sys.executable, __file__, "--side", side, "--text", str(text)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                rounds[-1][side] = json.loads(done.stdout)
                print(number + 1, side, rounds[-1][side], flush=True)
        megabytes = text.stat().st_size / 1e6
    assert len({found["tokens"] for one in rounds for found in one.values()}) == 1
    pace = {side: [megabytes / one[side]["seconds"] for one in rounds] for side in SIDES}
    ratios = [one["tiktoken"]["seconds"] / one["moreish"]["seconds"] for one in rounds]
    found = {
        "megabytes": round(megabytes, 1),
        "threads": available_cores(),
        "tokens": rounds[0]["moreish"]["tokens"],
        "megabytes_a_second": {
            side: [round(p, 2) for p in sorted(paces)] for side, paces in pace.items()
        },
        "times_tiktoken": {
            "median": round(median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        },
        "verifying_seconds": round(median(one["moreish"]["verifying"] for one in rounds), 2),
        "memory_mb": round(max(one["moreish"]["memory_mb"] for one in rounds)),
        "versions": library_versions(),
        "machine": machine_info(),
    }
    write_results(options.out, found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
