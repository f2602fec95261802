"""Files of examples that nobody should write: one clear line, or a finite loss on every target."""

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch

from conftest import Moreish, Proved, repetitions
from moreish.config import resolve
from moreish.data import IGNORE_INDEX
from moreish.errors import MoreishError
from moreish.models import build_model
from moreish.training import next_token_loss, set_up

PARTS = [
    "", " ", "a", "b", "yes", "no", "the quick brown fox", "ß", "é", "e\u0301", "\u200d", "😀",
    "\t", "\n", "\r\n", '"', '""', "'", ",", ";", "|", "\\", "{", "}", "[", "<|endoftext|>",
    "\x00", "\x1f",
    "\ufeff", "NaN", "null", "None", "0", "-1", "1e400", "a" * 300, "word " * 40, "\u202e", "𝔘",
]  # fmt: skip


def text(random: Random) -> str:
    return "".join(random.choices(PARTS, k=random.choice([0, 1, 1, 2, 4])))


def value(random: Random) -> object:
    """A field of JSON: mostly text."""
    others = (None, True, 0, -1.5, [], {}, ["a"], [{"role": "user"}], [{"content": 3}], "\ud800")
    return random.choice(others) if random.random() < 0.1 else text(random)


def conversation(random: Random) -> list[object]:
    roles = ["user", "assistant", "system", "", None, 3]
    return [
        {"role": random.choice(roles), "content": value(random)}
        for _ in range(random.choice([0, 1, 2, 3]))
    ]


def content(random: Random) -> tuple[str, str]:
    """The suffix and the content of a file."""
    rows = random.choice([0, 1, 2, 3, 5, 12, 30])
    few = [text(random) for _ in range(random.choice([1, 2, 3]))]
    pairs = [
        (text(random), random.choice(few) if random.random() < 0.5 else text(random))
        for _ in range(rows)
    ]
    kind = random.choice(["csv", "tsv", "jsonl", "messages", "noise"])
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        lines = [separator.join(("text", "label")), *(separator.join(pair) for pair in pairs)]
        return f".{kind}", "\n".join(lines)
    if kind == "jsonl":
        keys = random.choice([("prompt", "completion"), ("text", "label"), ("a", "b")])
        found = [
            {keys[0]: value(random) if random.random() < 0.2 else a, keys[1]: b} for a, b in pairs
        ]
        return ".jsonl", "\n".join(map(json.dumps, found))
    if kind == "messages":
        found = [{"messages": conversation(random)} for _ in range(rows)]
        return ".jsonl", "\n".join(map(json.dumps, found))
    return random.choice([".csv", ".jsonl", ".tsv", ".json"]), "".join(random.choices(PARTS, k=30))


def check(path: Path, random: Random) -> bool:
    """Set up a run on a file, and compute a loss on every split; return whether it has examples."""
    tokenizer = random.choice(["char", "char", "byte", "word"])
    data = {"source": str(path), "kind": "examples", "tokenizer": tokenizer, "min_word_count": 1}
    name = random.choice(["gpt", "encoder-decoder", "lstm", "bigram"])
    sizes = {"layers": 1, "heads": 1, "width": 8}
    if name in ("lstm", "bigram"):
        sizes = {"width": 8} if name == "lstm" else {}
    settings = {"data": data, "model": {"name": name, **sizes}, "train": {"steps": 1}}
    try:
        setup = set_up(resolve(settings))
    except MoreishError as error:
        assert "\n" not in str(error), error
        return False
    model = build_model(setup.config.model, setup.tokenizer.vocab_size)
    for tokens in setup.splits.values():
        length = random.choice([model.max_length or 64, tokens.longest_target])
        windows = tokens.windows(max(1, length))
        batch = tokens.gather(windows)
        scored = (batch.targets_BT != IGNORE_INDEX).sum(1)
        assert (scored >= 1).all()
        assert int(scored.sum()) == tokens.num_targets
        with torch.inference_mode():
            loss = next_token_loss(model, batch).item()
        assert math.isfinite(loss)
    return True


@pytest.mark.repeated
def test_hostile_files(tmp_path: Path, proved: Proved) -> None:
    number, accepted = repetitions(10_000), 0
    for seed in range(number):
        random = Random(seed)
        suffix, written = content(random)
        path = tmp_path / f"data{suffix}"
        path.write_bytes(written.encode("utf-8", "surrogatepass"))
        try:
            accepted += check(path, random)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {written[:200]!r}") from error
    assert accepted > number / 10
    proved(number, "files of examples that nobody should write", {"files": number})


def test_many_labels_and_labels_seen_once(moreish: Moreish, tmp_path: Path) -> None:
    rows = [f"word {n % 3000} text,label {n % 3000}" for n in range(20_000)] + ["rare,once"]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(rows))
    done = moreish("train", "data.csv", "--as", "examples", "--out", "run", "--json")
    assert done.status == 0, done.err
    val = done.json["splits"]["val"]
    assert math.isfinite(val["loss"]) and val["accuracy"] is not None


def test_a_context_that_is_too_short_for_the_targets(moreish: Moreish, tmp_path: Path) -> None:
    rows = [f"{n},{'long ' * 20}{n}" for n in range(30)]
    (tmp_path / "data.csv").write_text("input,target\n" + "\n".join(rows))
    done = moreish(
        "train", "data.csv", "--as", "examples", "--model", "gpt", "--context", "8", "--steps", "2",
        "--tokenizer", "char",
    )  # fmt: skip
    assert done.status == 2
    assert "--context 8" in done.err and "the longest target has" in done.err
