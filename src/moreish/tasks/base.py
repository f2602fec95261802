"""The interface of tasks: problems that are generated without end, each with its answer."""

from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar, NamedTuple

from pydantic import Field

from moreish.errors import MoreishError
from moreish.settings import Settings


class Example(NamedTuple):
    """What is given, and what follows from it."""

    input: str
    target: str


class TaskConfig(Settings):
    """Settings that all tasks share."""

    name: str
    held_out: int = Field(10_000, ge=1, le=1_000_000)
    """Number of problems of the validation split, and of the test split; a small task has fewer."""


class Task(ABC):
    """Generates problems, and writes them in the form that a model learns best.

    People read and write the plain form, such as `123+456` and `579`. A model may see another one:
    digits from the units up, numbers of equal length, intermediate steps before the result.
    """

    Config: ClassVar[type[TaskConfig]] = TaskConfig

    @abstractmethod
    def problem(self, random: Random) -> Example:
        """Draw a problem in its plain form. It depends on nothing but the random numbers."""

    def encode_input(self, text: str) -> str:
        """Return the model's form of an input.

        Raises:
            MoreishError: it is not a problem of this task.
        """
        return text

    def decode_input(self, text: str) -> str:
        """Return the plain form of an input in the model's form."""
        return text

    def encode_target(self, example: Example) -> str:
        """Return the model's form of the target of a problem."""
        return example.target

    def decode_target(self, text: str) -> str:
        """Return the plain form of a target; of text that is no target, whatever it contains of
        one."""
        return text

    def encode(self, example: Example) -> Example:
        """Return the model's form of a problem."""
        return Example(self.encode_input(example.input), self.encode_target(example))


def not_a_problem(text: str, expected: str) -> MoreishError:
    """Return the error for an input that a task cannot read."""
    return MoreishError(f"{text[:60]!r} is not a problem of this task: write {expected}")
