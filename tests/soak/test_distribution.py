"""Samples of planned models reproduce the distribution of lists whose frequencies are known."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import moreish
from moreish.data import load_dataset
from moreish.runs import describe_losses

SAMPLES = 5_000

RNG = np.random.default_rng(1)
NAMES = list(dict.fromkeys(load_dataset("names").split("\n")))
FIRST = [
    "Main",
    "Church",
    "High",
    "King",
    "Mill",
    "Park",
    "Station",
    "Queen",
    "Lake",
    "Oak",
    "Hill",
    "Bridge",
    "River",
    "Market",
]
SECOND = ["Street", "Road", "Lane", "Avenue", "Close", "Way", "Drive", "Court"]
NOUNS = {
    "tree": "arbre", "house": "maison", "book": "livre", "sky": "ciel", "water": "eau",
    "sun": "soleil", "moon": "lune", "dog": "chien", "cat": "chat", "bird": "oiseau",
}  # fmt: skip
ADJECTIVES = {"small": "petit", "old": "vieux"}
PAIRS = [f"{a}\t{b}" for a, b in NOUNS.items()] + [
    f"{c} {a}\t{d} {b}" for c, d in ADJECTIVES.items() for a, b in NOUNS.items()
]


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def zipf(items: list[str], number: int, exponent: float) -> list[str]:
    """Draw items with frequencies as in Zipf's law, the first the most frequent."""
    shares = 1 / np.arange(1, len(items) + 1) ** exponent
    return RNG.choice(items, number, p=shares / shares.sum()).tolist()


LISTS = {
    "streets": zipf([f"{a} {b}" for b in SECOND for a in FIRST], 3000, 1.0),
    "two hundred names": zipf(NAMES[:200], 4000, 1.0),
    "two thousand names": zipf(NAMES[:2000], 6000, 0.8),
    "days": zipf(DAYS, 1000, 0.3),
    "dice": [f"{a} {b}" for a, b in RNG.integers(1, 7, (3000, 2))],
    "numbers": [str(number) for number in RNG.geometric(0.02, 3000)],
    "answers": RNG.choice(["yes", "no", "maybe", "I do not know"], 800, p=[0.5, 0.3, 0.15, 0.05])
    .tolist(),
    "pairs": zipf(PAIRS, 2000, 0.7),
    "repeated and unique": [*zipf(NAMES[:50], 1500, 1.0), *NAMES[1000:2500]],
    "coin": RNG.choice(["heads", "tails"], 300).tolist(),
}  # fmt: skip


def train(items: list[str], path: Path) -> moreish.Run:
    shuffled = np.random.default_rng(0).permutation(items).tolist()
    return moreish.train(shuffled, steps=300, out=path)


def chi_square_p(data: Counter[str], samples: Counter[str]) -> float:
    """Return the p-value of a test of homogeneity, with all rare items as one class."""
    total = data.total()
    frequent = [item for item, count in data.items() if count * SAMPLES / total >= 20]
    table_CK = np.array([[counts[item] for item in frequent] for counts in (data, samples)])
    rest_C1 = np.array([[data.total()], [samples.total()]]) - table_CK.sum(1, keepdims=True)
    table_CK = np.hstack([table_CK, rest_C1])
    table_CK = table_CK[:, table_CK.sum(0) > 0]
    expected_CK = table_CK.sum(1, keepdims=True) * table_CK.sum(0) / table_CK.sum()
    statistic = ((table_CK - expected_CK) ** 2 / expected_CK).sum()
    half = torch.tensor([max(1, table_CK.shape[1] - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("name", LISTS)
def test_samples_reproduce_the_frequencies(name: str, tmp_path: Path) -> None:
    items = LISTS[name]
    run = train(items, tmp_path / "r")
    data, samples = Counter(items), Counter(run.sample(SAMPLES, seed=1))
    assert chi_square_p(data, samples) > 0.001
    train_split = run.split("train")
    in_training = {
        run.tokenizer.decode(train_split.item(i)) for i in range(len(train_split.boundaries) - 1)
    }
    classes = {
        "repeated": {item for item, count in data.items() if count > 1},
        "unique": {item for item, count in data.items() if count == 1},
        "held out": data.keys() - in_training,
    }
    for title, members in classes.items():
        share = sum(data[item] for item in members) / data.total()
        sampled = sum(samples[item] for item in members) / SAMPLES
        # A model of new items generates fewer of the unique ones, and never too many of any.
        assert sampled < share + 0.05, title
        if title == "repeated":
            assert sampled > 0.8 * share, title


@pytest.mark.soak
@pytest.mark.long
def test_a_model_that_prefers_what_the_list_lacks_is_reported(tmp_path: Path) -> None:
    """All combinations once: counts leave one out, so the hybrid learns that none comes again."""
    items = [f"{a}{b}" for a in NAMES[:60] for b in NAMES[100:130]]
    run = train(items, tmp_path / "r")
    assert run.scores["train"].loss > run.scores["val"].loss
    assert describe_losses(run).startswith("Warning: the training loss is higher")
