"""Runs of examples: what predicts their targets, and how good the predictions are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moreish.config import RunConfig
from moreish.data import TokenDataset, split_examples
from moreish.evaluate import score_labels, score_texts
from moreish.generate import Prediction, Predictor, Search
from moreish.models import Model
from moreish.runs.record import DatasetInfo
from moreish.tasks import Example, build_task
from moreish.tokenizers import ExampleTokenizer, Tokenizer

MAX_PREDICTED = 10_000
"""Examples of a split whose targets are predicted when it is scored."""

MAX_PREDICTED_IN_TRAINING = 500
"""The same in evaluations during training, and of the training split."""

MIN_TARGET_WORDS = 3
"""Mean number of words of targets from which they are scored as translations."""


def make_predictor(
    model: Model, tokenizer: Tokenizer, config: RunConfig, data: DatasetInfo
) -> Predictor:
    """Return what predicts the targets of a run of examples."""
    assert isinstance(tokenizer, ExampleTokenizer)
    assert data.longest_target is not None
    return Predictor(
        model=model,
        tokenizer=tokenizer,
        task=None if config.task is None else build_task(config.task),
        max_target=data.longest_target,
    )


@dataclass(frozen=True)
class Predicted:
    """Examples of a split in the form that people write, with the predictions for them."""

    examples: list[Example]
    predictions: list[Prediction]
    form: str | None
    """What the targets are."""

    def as_lines(self) -> list[str]:
        """Return each input with its prediction, and with its target where that is another."""
        lines = (
            f"{prediction.input} → {prediction.target}" + ("" if is_right else f" (not {target})")
            for prediction, target, is_right in zip(
                self.predictions, self.targets, self.is_right, strict=True
            )
        )
        return list(dict.fromkeys(lines))

    @property
    def targets(self) -> list[str]:
        return [example.target for example in self.examples]

    @property
    def is_right(self) -> list[bool]:
        """Whether each prediction is a target of its input, which may have several; a label is
        right for its own example only."""
        pairs = zip(self.predictions, self.targets, strict=True)
        if self.form == "label":
            return [prediction.target == target for prediction, target in pairs]
        known = set(self.examples)
        return [
            Example(each.input, prediction.target) in known
            for each, prediction in zip(self.examples, self.predictions, strict=True)
        ]


def predict_split(
    predictor: Predictor,
    tokens: TokenDataset,
    number: int,
    search: Search,
    progress: Callable[[float], None] | None = None,
) -> Predicted:
    """Predict the targets of `number` different inputs that are spread evenly over a split, or of
    all."""
    encoded = split_examples(tokens, predictor.tokenizer, number)
    task = predictor.task
    inputs = [e.input if task is None else task.decode_input(e.input) for e in encoded]
    targets = [e.target if task is None else task.decode_target(e.target) for e in encoded]
    predictions = predictor.predict(inputs, search, progress)
    examples = list(map(Example, inputs, targets))
    return Predicted(examples, predictions, predictor.tokenizer.form)


def score_predictions(predicted: Predicted, *, full: bool) -> dict[str, Any]:
    """Return the fields of a `Score` that compare predictions with targets.

    Args:
        predicted: the predictions.
        full: whether measures are included that take a library and some time.
    """
    targets, form = predicted.targets, predicted.form
    if form == "label":
        return score_labels(predicted.predictions, targets)
    words = np.mean([len(target.split()) for target in targets])
    is_translation = full and form == "text" and bool(words >= MIN_TARGET_WORDS)
    return score_texts(
        predicted.predictions, targets, words=form == "words", translation=is_translation
    )
