"""Tasks: problems that are generated without end, each with its answer.

A new one is a function that draws a problem, given to `register`.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from moreish.errors import MoreishError, nearest
from moreish.tasks.addition import Addition
from moreish.tasks.base import Example, Task, TaskConfig
from moreish.tasks.calculator import Calculator

PREFIX = "task:"
"""How the source of a task begins."""

Generator = Callable[[Random], tuple[str, str]]


class FunctionTask(Task):
    """A task whose problems a function draws."""

    def __init__(self, config: TaskConfig, draw: Generator) -> None:
        self.config, self.draw = config, draw

    def problem(self, random: Random) -> Example:
        return Example(*self.draw(random))


REGISTRY: dict[str, Callable[[Any], Task]] = {"addition": Addition, "calculator": Calculator}
CONFIGS: dict[str, type[TaskConfig]] = {
    "addition": Addition.Config,
    "calculator": Calculator.Config,
}


def register(name: str) -> Callable[[Generator], Generator]:
    """Register a function as `task:NAME`: it draws an input and its target with the random numbers
    it is given, and with nothing else, so that equal numbers give equal problems.

    >>> @register("double")
    ... def double(random):
    ...     number = random.randrange(1000)
    ...     return str(number), str(2 * number)
    """

    def add(draw: Generator) -> Generator:
        REGISTRY[name] = lambda config: FunctionTask(config, draw)
        CONFIGS[name] = TaskConfig
        return draw

    return add


def task_config(name: str, values: dict[str, Any]) -> TaskConfig:
    """Return the settings of a task.

    Raises:
        MoreishError: there is no such task or setting, or a value does not fit.
    """
    if name not in REGISTRY:
        raise MoreishError(
            f"unknown task '{PREFIX}{name}': {nearest(name, REGISTRY)}; your own must be "
            "registered first, with moreish.tasks.register"
        )
    return CONFIGS[name].parse({"name": name, **values}, "task")


def build_task(config: Any) -> Task:
    """Build a task from its settings."""
    return REGISTRY[config.name](config)
