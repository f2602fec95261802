"""Problems of a task without end: a pure function of seed and number, so that nothing is stored.

A problem belongs to the split that a hash of its input names, so that no problem is in two of them,
however many are drawn.
"""

import zlib
from random import Random

from moreish.data.examples.corpus import ExampleCorpus
from moreish.data.split import SPLITS, SplitName
from moreish.errors import MoreishError
from moreish.tasks import Example, Task

SHARES = (80, 90)
"""Of a hundred values of the hash, those below the first are for training, below the second for
validation, the rest for test."""

SAMPLE = 10_000
"""Problems of the training split that are stored, as a sample of all."""

MAX_DRAWS = 2_000
"""Draws in a row without a new held-out problem after which there are no more of them."""

MAX_ATTEMPTS = 10_000
"""Draws in a row without a training problem after which a task is rejected."""


def side_of(text: str) -> SplitName:
    """Return the split that the problem with this input belongs to."""
    value = zlib.crc32(text.encode("utf-8", "surrogatepass")) % 100
    return SPLITS[sum(value >= share for share in SHARES)]


def training_problem(task: Task, seed: int, number: int) -> Example:
    """Return a training problem by its number, in the model's form.

    Raises:
        MoreishError: the task hardly has training problems.
    """
    random = Random(f"train {seed} {number}")  # noqa: S311
    for _ in range(MAX_ATTEMPTS):
        problem = task.problem(random)
        if side_of(problem.input) == "train":
            return task.encode(problem)
    raise MoreishError("this task has too few problems: nearly none are left for training")


def held_out_problems(task: Task, side: SplitName, number: int) -> list[Example]:
    """Return `number` distinct problems of a held-out split in the model's form, or all that are
    found."""
    random = Random(f"{side}")  # noqa: S311
    found: dict[str, Example] = {}
    draws_in_vain = 0
    while len(found) < number and draws_in_vain < MAX_DRAWS:
        problem = task.problem(random)
        draws_in_vain += 1
        if side_of(problem.input) == side and problem.input not in found:
            found[problem.input] = problem
            draws_in_vain = 0
    return [task.encode(problem) for problem in found.values()]


def task_corpus(name: str, task: Task, held_out: int) -> ExampleCorpus:
    """Return a sample of the training problems of a task, and its held-out problems.

    Raises:
        MoreishError: it has no held-out problems.
    """
    parts = [[training_problem(task, 0, number) for number in range(SAMPLE)]]
    parts += [held_out_problems(task, side, held_out) for side in SPLITS[1:]]
    if not all(parts):
        raise MoreishError(f"task {name} has too few problems to hold some out")
    return ExampleCorpus(
        name=name,
        examples=[example for part in parts for example in part],
        sizes_of_split=tuple(map(len, parts)),
        task=task,
        target_form="text",
        notes=["training problems are drawn anew for every step; none of the held-out ones is"],
    )
