"""From the inputs that people write to the targets that a model predicts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moreish.errors import MoreishError
from moreish.generate.predict import Hypothesis, Search, predict_targets
from moreish.models import Model
from moreish.tasks import Task
from moreish.tokenizers import ExampleTokenizer, Ids


@dataclass(frozen=True)
class Prediction:
    """The target that a model predicts for an input."""

    input: str
    target: str
    probability: float
    """That of the whole target."""
    ids: Ids = field(repr=False)
    """The tokens of the target."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """Other targets with their probabilities, the best first."""
    source_ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    """The tokens of the input, from the boundary to the separator."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model of examples, with what is needed to write its inputs and to read its targets."""

    model: Model
    tokenizer: ExampleTokenizer
    task: Task | None
    """The task that the examples are of, which has a form of its own for the model."""
    max_target: int
    """Largest number of predictions of a target, its end included."""

    def encode_input(self, text: str) -> Ids:
        """Return the tokens of an input, of which the beginning is left out where it is too long
        for the model.

        Raises:
            MoreishError: it has unknown characters, or is not a problem of the task.
        """
        if self.task is not None:
            text = self.task.encode_input(text)
        ids = self.tokenizer.encode(text)
        ids = np.concatenate([[self.tokenizer.boundary_id], ids, [self.tokenizer.separator_id]])
        if self.model.max_length is not None:
            ids = ids[-max(1, self.model.max_length - self.max_target + 1) :]
        return ids

    def decode_target(self, ids: Ids) -> str:
        """Return the target of its tokens, in the form that people write."""
        text = self.tokenizer.decode_target(ids)
        return text if self.task is None else self.task.decode_target(text)

    def predict(
        self,
        inputs: Sequence[str],
        search: Search,
        progress: Callable[[float], None] | None = None,
    ) -> list[Prediction]:
        """Predict the target of each input.

        Args:
            inputs: in the form that people write.
            search: how targets are looked for.
            progress: called with the finished share.

        Raises:
            MoreishError: an input cannot be read; the message has its number.
        """
        encoded = []
        for number, text in enumerate(inputs, 1):
            try:
                encoded.append(self.encode_input(text))
            except MoreishError as error:
                raise MoreishError(f"input {number:,}: {error}") from None
        # Of a task, numbers may be longer than any in training.
        longest = max(map(len, encoded), default=0)
        found: dict[int, Prediction] = {}
        is_label = self.tokenizer.form == "label"
        for number, hypotheses in predict_targets(
            self.model,
            encoded,
            is_target_V=self.tokenizer.target_ids,
            eos_token=None if is_label else self.tokenizer.boundary_id,
            max_tokens=self.max_target if self.task is None else max(self.max_target, longest),
            search=search,
        ):
            found[number] = self._prediction(inputs[number], encoded[number], hypotheses)
            if progress is not None:
                progress(len(found) / len(inputs))
        return [found[number] for number in range(len(inputs))]

    def _prediction(self, text: str, source: Ids, hypotheses: list[Hypothesis]) -> Prediction:
        (target, probability), *others = (
            (self.decode_target(each.ids), math.exp(each.log_probability)) for each in hypotheses
        )
        return Prediction(text, target, probability, hypotheses[0].ids, tuple(others), source)
