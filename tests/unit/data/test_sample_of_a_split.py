"""Evaluations during training score a sample of a large validation split."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Moreish, item_tokens
from moreish.data import TokenDataset
from moreish.runs import Run
from moreish.runs import run as run_module
from moreish.workflows import fit as fit_module


def test_a_sample_of_items_has_whole_items() -> None:
    words = [f"{a}{b}{'x' * (n % 4)}" for n, a in enumerate("abcdefgh") for b in "ijklmnop"]
    tokenizer, tokens = item_tokens(words)
    sample = tokens.sample(100, block=1)
    found = [tokenizer.decode(sample.item(i)) for i in range(len(sample.boundaries) - 1)]
    assert len(set(found)) == len(found) > 15 and set(found) <= set(words)
    assert found[0] == words[0] and found[-1] == words[-1]
    assert abs(sample.num_predictions - 100) < 20
    assert tokens.sample(tokens.num_predictions, block=1) is tokens


def test_a_sample_of_text_has_blocks_of_all_parts() -> None:
    tokens = TokenDataset(np.arange(10_000, dtype=np.uint32), items=False)
    sample = tokens.sample(1_000, block=50)
    blocks = sample.ids_N.reshape(-1, 50)
    assert len(blocks) == 20 and (np.diff(blocks, axis=1) == 1).all()
    assert blocks[0, 0] == 0 and blocks[-1, -1] == 9_999


@pytest.mark.parametrize("model", ["kneser-ney", "bigram"])
def test_the_result_is_exact(model: str, moreish: Moreish, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("l.txt").write_text("".join(f"{n * 7919 % 1000}\n" for n in range(1_000)))
    monkeypatch.setattr(run_module, "MAX_VALIDATION_PREDICTIONS", 100)
    assert moreish("train", "l.txt", "--model", model, "--steps", 5, "--out", "r").status == 0
    run = Run.open("r")
    whole = run.split("val").num_predictions
    assert 80 < run.validation_sample.num_predictions < 120 < whole
    assert run.scores["val"].tokens == whole
    assert run.scores["val"].loss == run.score("val").loss


def test_the_sample_remains_where_the_final_evaluation_is_interrupted(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("l.txt").write_text("".join(f"{n * 7919 % 1000}\n" for n in range(1_000)))
    monkeypatch.setattr(run_module, "MAX_VALIDATION_PREDICTIONS", 100)
    original = Run.score

    def score(self: Run, name: str, *args: object, **kwargs: object) -> object:
        if kwargs.get("tokens") is None:
            raise KeyboardInterrupt
        return original(self, name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "score", score)
    result = moreish("train", "l.txt", "--model", "bigram", "--steps", 5, "--out", "r")
    assert result.status == 0 and "is that of a sample" in result.out
    assert Run.open("r").record.splits["val"].tokens < 120


def test_a_long_final_evaluation_is_left_to_the_user(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("l.txt").write_text("".join(f"{n * 7919 % 1000}\n" for n in range(1_000)))
    monkeypatch.setattr(run_module, "MAX_VALIDATION_PREDICTIONS", 10)
    monkeypatch.setattr(fit_module, "EXACT_SECONDS", 0.0)
    result = moreish("train", "l.txt", "--model", "kneser-ney", "--out", "r")
    assert result.status == 0 and "of all: moreish eval r" in result.out
    assert Run.open("r").record.splits["val"].tokens < 20
