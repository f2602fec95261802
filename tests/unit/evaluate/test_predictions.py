"""Measures of predicted targets."""

from random import Random

import numpy as np
import pytest

from moreish.evaluate import predictions as measured
from moreish.evaluate.predictions import edit_distance, score_texts
from moreish.generate import Prediction


def predicted(source: str, target: str) -> Prediction:
    return Prediction(source, target, 0.5, np.zeros(0, np.int64))


def test_edit_distances_of_long_texts_are_those_of_short_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = Random(0)
    pairs = [
        tuple("".join(random.choices("abc", k=random.randrange(12))) for _ in range(2))
        for _ in range(300)
    ]
    pairs += [("", "abc"), ("abc", ""), ("kitten", "sitting")]
    plain = [edit_distance(a, b) for a, b in pairs]
    assert plain[-3:] == [3, 3, 3]
    monkeypatch.setattr(measured, "MAX_PLAIN_STEPS", -1)
    assert [edit_distance(a, b) for a, b in pairs] == plain


def test_error_rates_of_long_targets_are_those_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [predicted(f"input {n}", "a" * n) for n in range(100)]
    targets = ["b" * n for n in range(100)]
    whole = score_texts(found, targets, words=False, translation=False)
    assert whole["char_error_rate"] == 1
    monkeypatch.setattr(measured, "MAX_EDIT_STEPS", 10_000)
    some = score_texts(found, targets, words=False, translation=False)
    assert some["char_error_rate"] == 1
    assert some["exact_match"] == whole["exact_match"] == 0.01


def test_each_of_several_targets_is_right() -> None:
    found = [predicted("read", "red"), predicted("read", "red"), predicted("lead", "x")]
    scores = score_texts(found, ["reed", "red", "led"], words=False, translation=False)
    assert scores["exact_match"] == 0.5
    assert scores["char_error_rate"] == pytest.approx(3 / 6)
