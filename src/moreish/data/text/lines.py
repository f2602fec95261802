"""Texts line by line, some lines at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

CorpusKind = Literal["lines", "text"]
"""A list of items, one a line, or running text."""

LONGEST = 1 << 20
"""Characters that are waited for until a line ends, where lines may be of any length."""


def whole_lines(text: Iterable[str]) -> Iterator[list[str]]:
    """All lines of a text, some at a time; after a line end at its end, an empty one."""
    begun: list[str] = []
    for piece in text:
        lines, line_end, rest = piece.rpartition("\n")
        if line_end:
            yield "".join([*begun, lines]).split("\n")
            begun = []
        begun.append(rest)
    yield "".join(begun).split("\n")


def short_lines(text: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """As `whole_lines`, but a line that is too long to be waited for comes in parts; and beside
    the lines whether the last of them goes on."""
    begun: list[str] = []
    held = 0
    for piece in text:
        lines, line_end, rest = piece.rpartition("\n")
        if line_end:
            yield "".join([*begun, lines]).split("\n"), False
            begun, held = [], 0
        begun.append(rest)
        held += len(rest)
        if held > LONGEST:
            yield ["".join(begun)], True
            begun, held = [], 0
    yield "".join(begun).split("\n"), False


def chosen_lines(text: Iterable[str], keep: Callable[[str], bool]) -> Iterator[str]:
    """The text with only some of its lines; a line that is too long to be waited for stays."""
    line_end, inside = "", False
    for lines, goes_on in short_lines(text):
        last = len(lines) - 1
        chosen = [
            line
            for number, line in enumerate(lines)
            if (inside and number == 0) or (goes_on and number == last) or keep(line)
        ]
        if chosen:
            yield line_end + "\n".join(chosen)
            line_end = "" if goes_on else "\n"
        inside = goes_on
