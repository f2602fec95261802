"""Iterates over the lines of a text that arrives in chunks, a list of lines at a time."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

CorpusKind = Literal["lines", "text", "examples"]
"""A list with one item a line, running text, or examples: inputs with their targets."""

MAX_HELD_CHARACTERS = 1 << 20
"""Characters of a line that are held until it ends; longer lines come in parts."""


def complete_lines(text: Iterable[str]) -> Iterator[list[str]]:
    """Yield all lines of a text, however long; a line end at the end is followed by an empty line.

    >>> list(complete_lines(["one\\ntw", "o\\n"]))
    [['one'], ['two'], ['']]
    """
    return (lines for lines, _ in bounded_lines(text, sys.maxsize))


def bounded_lines(
    text: Iterable[str], max_held: int | None = None
) -> Iterator[tuple[list[str], bool]]:
    """Yield lines like `complete_lines`, and whether the last of them continues in the next list.

    A line that is longer than `max_held` (default: `MAX_HELD_CHARACTERS`) comes in parts.
    """
    unfinished: list[str] = []
    held = 0
    for chunk in text:
        lines, line_end, rest = chunk.rpartition("\n")
        if line_end:
            yield "".join([*unfinished, lines]).split("\n"), False
            unfinished, held = [], 0
        unfinished.append(rest)
        held += len(rest)
        if held > (max_held or MAX_HELD_CHARACTERS):
            yield ["".join(unfinished)], True
            unfinished, held = [], 0
    yield "".join(unfinished).split("\n"), False


def filter_lines(text: Iterable[str], keep: Callable[[str], bool]) -> Iterator[str]:
    """Yield the text with only the lines for which `keep` is true.

    Lines that are longer than `MAX_HELD_CHARACTERS` always stay.
    """
    line_end, starts_inside = "", False
    for lines, ends_inside in bounded_lines(text):
        last = len(lines) - 1
        kept = [
            line
            for index, line in enumerate(lines)
            if (starts_inside and index == 0) or (ends_inside and index == last) or keep(line)
        ]
        if kept:
            yield line_end + "\n".join(kept)
            line_end = "" if ends_inside else "\n"
        starts_inside = ends_inside
