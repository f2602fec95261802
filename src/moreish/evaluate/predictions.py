"""How good predicted targets are: exact match, accuracy, F1, calibration, error rates, BLEU, chrF.

Standard errors are over examples; those of corpus measures (F1, BLEU, chrF) by the bootstrap.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError
from moreish.generate import Prediction
from moreish.utils.extras import import_extra

RESAMPLES = 200
"""Resamples of the bootstrap."""

MAX_EDIT_STEPS = 1_000_000_000
"""Pairs of characters that edit distances of one evaluation compare: ten seconds."""

MAX_PLAIN_STEPS = 4096
"""The same of one distance, above which rows are computed at once."""

CALIBRATION_BINS = 10
"""Bins of equal width of the expected calibration error (Guo et al. 2017, section 2)."""


def with_stderr(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of a measurement of each example, and its standard error."""
    count = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return {name: float(values.mean()), f"{name}_stderr": error}


def score_labels(predictions: Sequence[Prediction], targets: Sequence[str]) -> dict[str, float]:
    """Return accuracy, macro-averaged F1, and the expected calibration error."""
    predicted = [p.target for p in predictions]
    is_right = np.array([p == t for p, t in zip(predicted, targets, strict=True)], np.float64)
    labels = sorted({*predicted, *targets})
    index = {label: i for i, label in enumerate(labels)}
    predicted_E = np.array([index[each] for each in predicted])
    target_E = np.array([index[each] for each in targets])

    def f1(chosen_E: NDArray[np.int64]) -> float:
        return macro_f1(predicted_E[chosen_E], target_E[chosen_E], len(labels))

    # Those of a model that has diverged may be no numbers.
    probabilities = np.nan_to_num(np.array([p.probability for p in predictions]))
    return {
        **with_stderr("accuracy", is_right),
        "macro_f1": f1(np.arange(len(targets))),
        "macro_f1_stderr": bootstrap(f1, len(targets)),
        "calibration_error": calibration_error(probabilities, is_right),
    }


def macro_f1(predicted_E: NDArray[np.int64], target_E: NDArray[np.int64], labels: int) -> float:
    """Return the mean F1 of the labels that occur, as scikit-learn computes it."""
    right = np.bincount(target_E[predicted_E == target_E], minlength=labels)
    total = np.bincount(predicted_E, minlength=labels) + np.bincount(target_E, minlength=labels)
    occurs = total > 0
    return float((2 * right[occurs] / total[occurs]).mean())


def calibration_error(probabilities: NDArray[np.float64], is_right: NDArray[np.float64]) -> float:
    """Return the mean difference of probability and accuracy, over bins of the probability."""
    bins = reliability(probabilities, is_right)
    gaps = (number * abs(confidence - accuracy) for confidence, accuracy, number in bins)
    return sum(gaps) / len(probabilities)


def reliability(
    probabilities: NDArray[np.float64], is_right: NDArray[np.float64]
) -> list[tuple[float, float, int]]:
    """Return the mean probability, the accuracy and the number of predictions of each bin of the
    probability that is not empty."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        (float(probabilities[bins == b].mean()), float(is_right[bins == b].mean()), int(count))
        for b, count in enumerate(np.bincount(bins))
        if count
    ]


def confusion(
    predictions: Sequence[Prediction], targets: Sequence[str]
) -> Counter[tuple[str, str]]:
    """Count the pairs of true and predicted label."""
    return Counter(zip(targets, (p.target for p in predictions), strict=True))


def bootstrap(measure: Callable[[NDArray[np.int64]], float], count: int) -> float:
    """Return the standard error of a measure of a set of examples (Efron 1979)."""
    random = np.random.default_rng(0)
    values = [measure(random.integers(count, size=count)) for _ in range(RESAMPLES)]
    return float(np.std(values, ddof=1))


def score_texts(
    predictions: Sequence[Prediction], targets: Sequence[str], *, words: bool, translation: bool
) -> dict[str, float]:
    """Return the share of targets that are predicted exactly, and how far the others are off. Of
    an input with several targets, the nearest one counts.

    Args:
        words: whether targets are sequences of symbols with spaces, such as phonemes, whose error
            rate is that of the symbols; otherwise it is that of the characters.
        translation: whether BLEU and chrF are computed, with sacrebleu.
    """
    predicted = {p.input: p.target for p in predictions}
    targets_of: dict[str, list[str]] = {}
    for prediction, target in zip(predictions, targets, strict=True):
        targets_of.setdefault(prediction.input, []).append(target)
    is_right = np.array([predicted[i] in t for i, t in targets_of.items()], np.float64)
    scores = with_stderr("exact_match", is_right)
    pairs = []
    for source in affordable_inputs(targets_of, predicted):
        several = targets_of[source]
        parts = [target.split() if words else list(target) for target in several]
        guess = predicted[source].split() if words else list(predicted[source])
        pairs.append(min((edit_distance(guess, part), len(part)) for part in parts))
    errors, lengths = np.array(pairs, np.float64).T
    name = "symbol_error_rate" if words else "char_error_rate"
    scores[name] = float(errors.sum() / max(1.0, lengths.sum()))
    residuals = errors - scores[name] * lengths
    scores[f"{name}_stderr"] = (
        float(residuals.std(ddof=1)) * math.sqrt(len(pairs)) / max(1.0, lengths.sum())
        if len(pairs) > 1
        else math.nan
    )
    if translation:
        scores |= score_translations([p.target for p in predictions], targets)
    return scores


def affordable_inputs(
    targets_of: Mapping[str, Sequence[str]], predicted: Mapping[str, str]
) -> list[str]:
    """Return the inputs whose edit distances are computed: all, or some that are spread evenly
    where targets are long."""
    sources = list(targets_of)
    steps = sum(len(predicted[s]) * sum(map(len, several)) for s, several in targets_of.items())
    number = math.ceil(len(sources) * min(1.0, MAX_EDIT_STEPS / max(1, steps)))
    return [sources[i] for i in np.linspace(0, len(sources) - 1, number).round().astype(int)]


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the number of insertions, deletions and replacements from `a` to `b` (Levenshtein)."""
    if a == b:
        return 0
    if len(a) * len(b) > MAX_PLAIN_STEPS:
        return _long_edit_distance(a, b)
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def _long_edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the same, row by row in NumPy."""
    index = {symbol: i for i, symbol in enumerate({*a, *b})}
    b_J = np.array([index[symbol] for symbol in b])
    place_J = np.arange(len(b) + 1)
    row_J = place_J.copy()
    for i, left in enumerate(a, 1):
        best_J = row_J + 1
        best_J[0] = i
        np.minimum(best_J[1:], row_J[:-1] + (b_J != index[left]), out=best_J[1:])
        # Each insertion to the right costs one more.
        row_J = np.minimum.accumulate(best_J - place_J) + place_J
    return int(row_J[-1])


def score_translations(predicted: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Return BLEU and chrF (sacrebleu's, 0 to 100) with the standard errors of its bootstrap;
    nothing where sacrebleu is not installed."""
    try:
        metrics = import_extra("sacrebleu.metrics", "tasks", "scoring translations")
    except MoreishError:
        return {}
    scores = {}
    for name, metric in (("bleu", metrics.BLEU(references=None)), ("chrf", metrics.CHRF())):
        result = metric.corpus_score(list(predicted), [list(targets)], n_bootstrap=RESAMPLES)
        scores[name] = float(result.score)
        scores[f"{name}_stderr"] = float(result._ci) / 1.96
    return scores
