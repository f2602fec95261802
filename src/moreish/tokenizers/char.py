"""One token a character: the lectures' tokenizer."""

from collections.abc import Iterable
from typing import Any, Self, final

import numpy as np

from moreish.errors import MoreishError
from moreish.tokenizers.base import BOUNDARY, Ids, Tokenizer


def code_points(text: str) -> Ids:
    """The Unicode code points of `text`."""
    encoded = text.encode("utf-32-le", "surrogatepass")  # a lone surrogate is a character to name
    return np.frombuffer(encoded, dtype="<u4").astype(np.int64)


@final
class CharTokenizer(Tokenizer):
    """Characters in code point order; with a boundary, `.` = 0 and `a` = 1 as in makemore.

    >>> tokenizer = CharTokenizer.build(["emma"], boundary=True)
    >>> tokenizer.encode("mae").tolist()
    [3, 1, 2]
    >>> CharTokenizer.build(["emma"], boundary=False).encode("mae").tolist()
    [2, 0, 1]
    """

    name = "char"

    def __init__(self, characters: str, *, boundary: bool) -> None:
        """`characters`: distinct and in code point order."""
        self.characters = characters
        self.has_boundary = boundary
        self._code_points = code_points(characters)
        self._first = int(boundary)
        self.vocab_size = self._first + len(characters)

    @classmethod
    def build(cls, texts: Iterable[str], *, boundary: bool) -> Self:
        distinct: set[str] = set()
        for text in texts:
            distinct.update(text)
        return cls("".join(sorted(distinct)), boundary=boundary)

    def encode(self, text: str) -> Ids:
        points = code_points(text)
        if not len(self._code_points):
            places, found = points, points < 0
        else:
            places = np.searchsorted(self._code_points, points)
            places = np.minimum(places, len(self._code_points) - 1)
            found = self._code_points[places] == points
        if not found.all():
            names = " ".join(map(repr, self.unknown(text)))
            raise MoreishError(f"the model never saw {names}; leave them out or drop them")
        return places + self._first

    def to_bytes(self, ids: Ids) -> bytes:
        places = np.asarray(ids, dtype=np.int64) - self._first
        points = self._code_points[places[places >= 0]]
        return points.astype("<u4").tobytes().decode("utf-32-le").encode()

    def unknown(self, text: str) -> str:
        known = set(self.characters)
        return "".join(dict.fromkeys(c for c in text if c not in known))

    def char_lengths(self) -> Ids:
        return np.ones(self.vocab_size, dtype=np.int64)

    def byte_lengths(self) -> Ids:
        lengths = [len(character.encode()) for character in self.characters]
        return np.array([1] * self._first + lengths, dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "boundary": self.has_boundary, "characters": self.characters}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        characters, boundary = data.get("characters"), data.get("boundary")
        if (
            not isinstance(characters, str)
            or not isinstance(boundary, bool)
            or sorted(set(characters)) != list(characters)
        ):
            raise MoreishError("the tokenizer file is damaged: its characters are not in order")
        return cls(characters, boundary=boundary)


assert BOUNDARY == 0, "encode() and to_bytes() count on the boundary being the first id"
