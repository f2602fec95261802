"""From logits to text: filters, and the engine that turns prompts into streams of tokens."""

from moreish.generate.constrained import (
    Automaton,
    Constraint,
    Effort,
    Guide,
    compile_constraint,
    parse_length,
    resample,
)
from moreish.generate.decode import threads
from moreish.generate.sampling import BLOCK, Sampling, draw, probabilities, uniforms
from moreish.generate.writer import POOL, Writer

__all__ = [
    "BLOCK",
    "POOL",
    "Automaton",
    "Constraint",
    "Effort",
    "Guide",
    "Sampling",
    "Writer",
    "compile_constraint",
    "draw",
    "parse_length",
    "probabilities",
    "resample",
    "threads",
    "uniforms",
]
