"""Text for messages and for terminals."""

from collections.abc import Iterable, Iterator


class WordWrapper:
    """Breaks running text between words, while it is written piece by piece."""

    def __init__(self, width: int) -> None:
        """`width`: of a line, in characters."""
        self.width = width
        self._column = 0
        self._word = ""

    def pieces(self, text: Iterable[str]) -> Iterator[str]:
        """Yield what can be printed of each piece of a text, then the rest."""
        for piece in text:
            yield "".join(map(self._write, piece))
        yield self._end_word()

    def _write(self, character: str) -> str:
        if not character.isspace():
            self._word += character
            return ""
        word = self._end_word()
        if character == "\n":
            self._column = 0
        elif self._column >= self.width:  # the line ends here anyway
            return word
        else:
            self._column += 1
        return word + character

    def _end_word(self) -> str:
        """Return the word that has been held back, on a new line if it does not fit."""
        word, self._word = self._word, ""
        is_too_long = 0 < self._column < self._column + len(word) > self.width
        self._column = len(word) + (0 if is_too_long else self._column)
        return f"\n{word}" if is_too_long else word


def plural(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "line"), plural(2000, "line")
    ('1 line', '2,000 lines')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shorten(value: object) -> str:
    """Return a value as text for a message, cut to 100 characters."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
