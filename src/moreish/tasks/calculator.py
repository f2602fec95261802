"""A calculator for whole numbers, which may write its steps before the result.

The steps are those of written arithmetic, digit by digit from the units up, as in "Show Your Work"
(Nye et al. 2021): each then follows from a few earlier digits. Division has a remainder.
"""

import re
from random import Random
from typing import Literal, final

from pydantic import Field, field_validator

from moreish.tasks.base import Example, Task, TaskConfig, not_a_problem

OPERATIONS = "+-*/"
SYNONYMS = str.maketrans("−–×x·÷:", "--***//")
"""Signs that people write, and ours."""

PROBLEM = re.compile(r"\s*(\d+)\s*([+*/-])\s*(\d+)\s*=?\s*")
RESULT = "="
"""The sign between the steps and the result."""


class CalculatorConfig(TaskConfig):
    name: Literal["calculator"] = "calculator"
    digits: int = Field(3, ge=1, le=20)
    """Largest number of digits of the two numbers."""
    operations: str = OPERATIONS
    """The operations that occur, of + - * and /."""
    trace: bool = True
    """Whether the model writes the steps of multiplications and divisions before the result."""

    @field_validator("operations")
    @classmethod
    def _check_operations(cls, value: str) -> str:
        if not value or set(value) - set(OPERATIONS):
            raise ValueError(f"give some of {OPERATIONS}")
        return value


@final
class Calculator(Task):
    """`12*34` and `408`; `7/2` and `3 r 1`; `3-5` and `-2`."""

    Config = CalculatorConfig

    def __init__(self, config: CalculatorConfig) -> None:
        self.config, self.width = config, config.digits

    def problem(self, random: Random) -> Example:
        """Draw an operation and two numbers, with a random number of digits each half of the
        time."""
        operation = random.choice(self.config.operations)
        lengths = [self.width, self.width]
        if random.random() < 0.5:
            lengths = [random.randint(1, self.width) for _ in range(2)]
        a, b = (random.randrange(10**length) for length in lengths)
        if operation == "/":
            b = max(b, 1)
        return Example(f"{a}{operation}{b}", self.result(a, operation, b))

    def result(self, a: int, operation: str, b: int) -> str:
        """Return the result in its plain form."""
        if operation == "+":
            return str(a + b)
        if operation == "-":
            return str(a - b)
        if operation == "*":
            return str(a * b)
        quotient, remainder = divmod(a, b)
        return f"{quotient} r {remainder}" if remainder else str(quotient)

    def encode_input(self, text: str) -> str:
        match = PROBLEM.fullmatch(text.translate(SYNONYMS))
        if match is None:
            raise not_a_problem(text, "two whole numbers and one of + - * /, such as 12*34")
        a, b = int(match[1]), int(match[3])
        if match[2] == "/" and b == 0:
            raise not_a_problem(text, "a divisor other than 0")
        return f"{a:0{self.width}}{match[2]}{b:0{self.width}}"

    def decode_input(self, text: str) -> str:
        a, operation, b = self._parse(text)
        return f"{a}{operation}{b}"

    @staticmethod
    def _parse(text: str) -> tuple[int, str, int]:
        match = PROBLEM.fullmatch(text)
        assert match is not None
        return int(match[1]), match[2], int(match[3])

    def encode_target(self, example: Example) -> str:
        a, operation, b = self._parse(self.encode_input(example.input))
        width = self.width
        if operation == "+":
            return _units_first(a + b, width + 1)
        if operation == "-":  # the sign depends on the highest digits, so it comes first
            return ("-" if a < b else "") + _units_first(abs(a - b), width)
        if operation == "*":
            result = _units_first(a * b, 2 * width)
            return f"{self._multiply(a, b)}{RESULT}{result}" if self.config.trace else result
        quotient, remainder = divmod(a, b)
        result = f"{quotient:0{width}}r{remainder:0{width}}"
        return f"{self._divide(a, b)}{RESULT}{result}" if self.config.trace else result

    def _multiply(self, a: int, b: int) -> str:
        """Return the product with each digit of `b`, and the sum of those so far."""
        steps, total = [], 0
        for place in range(self.width):
            product = a * (b // 10**place % 10)
            total += product * 10**place
            sum_shown = _units_first(total, self.width + place + 1)
            steps.append(f"{_units_first(product, self.width + 1)},{sum_shown}")
        return ";".join(steps)

    def _divide(self, a: int, b: int) -> str:
        """Return, for each digit of `a` from the highest on: what is divided, the digit of the
        quotient, its product with `b`, and the remainder."""
        steps, rest = [], 0
        for digit in f"{a:0{self.width}}":
            rest = 10 * rest + int(digit)
            times = rest // b
            width = self.width + 1
            shown = f"{rest:0{width}}:{times},{times * b:0{width}}"
            rest -= times * b
            steps.append(f"{shown},{rest:0{self.width}}")
        return ";".join(steps)

    def decode_target(self, text: str) -> str:
        result = text.rpartition(RESULT)[2]
        if "r" in result:
            quotient, _, remainder = result.partition("r")
            whole, rest = quotient.lstrip("0") or "0", remainder.lstrip("0")
            return f"{whole} r {rest}" if rest else whole
        sign, digits = ("-", result[1:]) if result.startswith("-") else ("", result)
        plain = digits[::-1].lstrip("0") or digits[:1]
        return sign + plain


def _units_first(number: int, width: int) -> str:
    return f"{number:0{width}}"[::-1]
