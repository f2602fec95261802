"""The interface of exports to other libraries, and what their parity checks share.

B batch, T positions, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from moreish.models import Model
from moreish.runs import Run

GREEDY_TOKENS = 200
"""Number of tokens that both programs must generate identically at temperature 0."""

EXAMPLE_TOKENS = 50_000
"""Number of training tokens among which the example of a prompt is chosen."""

PROMPT_TOKENS = 8
"""Largest number of tokens of the prompt that they continue."""


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """How closely the other library reproduces a run."""

    max_difference: float
    """The largest absolute difference of logits, or of log-probabilities."""
    matching_tokens: int
    """The number of tokens that both generate identically at temperature 0."""
    ties: int
    """How many of those the run ranks equal to another token, so that either choice is right."""


class ParityError(Exception):
    """The other library does not reproduce the run; the message says what differs."""


class Exporter(ABC):
    """Writes one run in the format of another library, and reads it back there."""

    program: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """The packages that `pip install moreish[NAME]` adds."""
    library_name: ClassVar[str]
    """The value of `library_name` in the model card."""
    main_file: ClassVar[str]
    """The file by which a folder is recognized as an export."""
    quantity: ClassVar[str] = "logits"
    """What is compared: "logits", or "log-probabilities" if the program returns no logits."""
    architecture: str
    """The type of the model, as the program calls it."""

    def __init__(self, run: Run) -> None:
        """Raises MoreishError if the format cannot express the run."""
        self.run = run

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write all files except the model card."""

    @abstractmethod
    def usage(self) -> str:
        """Return the section of the model card on how to use the files (Markdown)."""

    @abstractmethod
    def check_parity(self, folder: Path) -> ParityResult:
        """Load the folder with the other library and compare. Raises ParityError."""

    def validation_text(self) -> str:
        """Return a text from the validation split, or a fixed one if the run has no data."""
        if not self.run.split_names:
            return "The quick brown fox\njumps over 13 lazy dogs."
        tokens = self.run.split("val")
        ids = tokens.item(0) if tokens.items else tokens.ids_N[:500].astype(np.int64)
        return self.run.tokenizer.decode(ids).replace("\ufffd", "")

    def prompt(self, text: str) -> str:
        """Return the beginning of `text`, of a few tokens, to be continued."""
        ids = self.run.tokenizer.encode(text)
        length = min(len(ids) // 2, self.run.model.context // 2, PROMPT_TOKENS)
        return self.run.tokenizer.decode(ids[: max(1, length)]).replace("\ufffd", "")

    def example_prompt(self) -> str:
        """Return the most common beginning of an item or of a line of the training data, for the
        model card."""
        if not self.run.split_names:
            return "The "
        tokens = self.run.split("train")
        ids = tokens.ids_N[:EXAMPLE_TOKENS].astype(np.int64)
        if tokens.items:
            ends = tokens.boundaries[1 : np.searchsorted(tokens.boundaries, len(ids))]
            items = (tokens.item(number) for number in range(len(ends)))
            beginnings = [self.run.tokenizer.decode(item)[:2] for item in items]
        else:
            lines = self.run.tokenizer.decode(ids).split("\n")
            beginnings = [line.split()[0] + " " for line in lines if line.strip()]
        (found, _), *_ = Counter(filter(str.isprintable, beginnings)).most_common(1) or [("", 0)]
        return found

    def check_encoding(self, text: str, ids: list[int]) -> None:
        """Raise ParityError unless `ids` are what `moreish sample --prompt` reads: the tokens of
        `text`, after a boundary if the tokenizer has one."""
        expected = self.run.tokenizer.encode(text)
        if ids != [*self.run.initial_context(expected), *expected]:
            raise ParityError(f"it encodes {text[:30]!r} differently")

    def parity_result(
        self,
        difference: float,
        tolerance: float,
        prompt: list[int],
        generated: list[int],
        tie_tolerance: float,
    ) -> ParityResult:
        """Check a difference, and tokens that the other program generated after `prompt`.

        Raises:
            ParityError: the difference is not below the tolerance, or the run prefers other tokens.
        """
        if not difference < tolerance:
            raise ParityError(f"{self.quantity} differ by {difference:.2g}")
        ties = check_greedy_decoding(self.run.model, prompt, generated, tie_tolerance)
        return ParityResult(max_difference=difference, matching_tokens=len(generated), ties=ties)


@torch.inference_mode()
def check_greedy_decoding(
    model: Model, prompt: list[int], generated: list[int], tolerance: float
) -> int:
    """Check that the model would have generated the same tokens at temperature 0.

    If the model ranks two tokens equal, either choice is right; the comparison continues after the
    token that the other program chose.

    Args:
        prompt: the tokens that the text starts with.
        generated: the tokens that the other program generated after it.
        tolerance: logits that differ by less are equal.

    Returns:
        The number of such ties.

    Raises:
        ParityError: the model prefers another token.
    """
    state, ties, last_BT = None, 0, torch.tensor([prompt])
    for i, token in enumerate(generated, 1):
        logits_BTV, state = model(last_BT, state)
        logits_V = logits_BTV[0, -1]
        if int(logits_V.argmax()) != token:
            if not logits_V.max() - logits_V[token] < tolerance:
                raise ParityError(f"at temperature 0 it generates another token at position {i}")
            ties += 1
        last_BT = torch.tensor([[token]])
    return ties


def max_abs_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference; infinite for NaN, 0 for equal infinities."""
    difference = torch.where(actual == expected, 0.0, (actual - expected).abs())
    return float(difference.nan_to_num(nan=torch.inf).max()) if difference.numel() else 0.0
