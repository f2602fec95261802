"""Addition of two whole numbers, the task at the end of the GPT lecture.

The target is written from the units up, because a carry goes that way: each digit then follows from
two digits of the input and what was written just before it.
"""

import re
from random import Random
from typing import Literal, final

from pydantic import Field

from moreish.tasks.base import Example, Task, TaskConfig, not_a_problem

PROBLEM = re.compile(r"\s*(\d+)\s*\+\s*(\d+)\s*=?\s*")


class AdditionConfig(TaskConfig):
    name: Literal["addition"] = "addition"
    digits: int = Field(3, ge=1, le=200)
    """Largest number of digits of the two numbers."""
    reverse: bool = True
    """Whether the model writes the target from the units up."""
    reverse_numbers: bool = False
    """Whether the model reads the two numbers from the units up too; with `model.positions=digits`
    it then adds numbers longer than `digits`."""
    pad: bool = True
    """Whether the model reads numbers of equal length, with zeros before the first digit: as many
    digits as `digits`, or with `reverse_numbers` as the longer one has."""


@final
class Addition(Task):
    """`123+456` and `579`."""

    Config = AdditionConfig

    def __init__(self, config: AdditionConfig) -> None:
        self.config = config

    def problem(self, random: Random) -> Example:
        """Draw two numbers: half of the time from all that have few enough digits, half of the time
        with a random number of digits each, so that short ones are not rare."""
        digits = self.config.digits
        lengths = [digits, digits]
        if random.random() < 0.5:
            lengths = [random.randint(1, digits) for _ in range(2)]
        a, b = (random.randrange(10**length) for length in lengths)
        return Example(f"{a}+{b}", str(a + b))

    def encode_input(self, text: str) -> str:
        match = PROBLEM.fullmatch(text)
        if match is None:
            raise not_a_problem(text, "two whole numbers, such as 123+456")
        a, b = (str(int(number)) for number in match.groups())
        if self.config.pad:
            least = 0 if self.config.reverse_numbers else self.config.digits
            width = max(len(a), len(b), least)
            a, b = a.zfill(width), b.zfill(width)
        return "+".join(map(self._turn, (a, b)))

    def _turn(self, number: str) -> str:
        return number[::-1] if self.config.reverse_numbers else number

    def decode_input(self, text: str) -> str:
        return "+".join(str(int(self._turn(number))) for number in text.split("+"))

    def encode_target(self, example: Example) -> str:
        a, b = self.encode_input(example.input).split("+")
        target = str(int(example.target))
        if self.config.pad:
            target = target.zfill(max(len(a), len(b)) + 1)
        return target[::-1] if self.config.reverse else target

    def decode_target(self, text: str) -> str:
        digits = text[::-1] if self.config.reverse else text
        return digits.lstrip("0") or digits[-1:]
