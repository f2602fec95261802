"""One token a character: the lectures' tokenizer."""

from collections.abc import Iterable
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError
from moreish.tokenizers.base import (
    BOUNDARY_ID,
    NO_LIMITS,
    Ids,
    Tokenizer,
    VocabularyLimits,
    is_text,
)

LINE_END = "\n"

UNKNOWN = -1
"""In place of an id, while text is looked up."""


def code_points(text: str) -> NDArray[np.unsignedinteger]:
    """The Unicode code points of `text`, in the fewest bytes that are quick to be had."""
    if text.isascii():
        return np.frombuffer(text.encode(), dtype=np.uint8)
    encoded = text.encode("utf-32-le", "surrogatepass")  # a lone surrogate is a character to name
    return np.frombuffer(encoded, dtype="<u4")


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
    needs_text = False
    unk_id = None

    def __init__(self, characters: str, *, boundary: bool) -> None:
        """`characters`: distinct and in code point order."""
        self.characters = characters
        self.boundary_id = BOUNDARY_ID if boundary else None
        self._code_points = code_points(characters)
        self._first = int(boundary)
        self.vocab_size = self._first + len(characters)
        # The id of every code point; the last entry is that of all beyond.
        highest = int(self._code_points.max(initial=ord(LINE_END)))
        self._ids = np.full(highest + 2, UNKNOWN)
        self._ids[self._code_points] = np.arange(self._first, self.vocab_size)

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        distinct: set[str] = set()
        for text in texts:
            distinct.update(text)
        return cls("".join(sorted(distinct)), boundary=boundary)

    def encode(self, text: str) -> Ids:
        return self._look_up(text, self._ids)

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        ids = self._ids.copy()
        ids[ord(LINE_END)] = BOUNDARY_ID
        return self._look_up(LINE_END.join([*items, ""]), ids)

    def _look_up(self, text: str, ids: Ids) -> Ids:
        found: Ids = ids.take(code_points(text), mode="clip")
        if (found == UNKNOWN).any():
            names = " ".join(map(repr, self.find_unknown(text)))
            raise MoreishError(f"the model never saw {names}; leave them out or drop them")
        return found

    def decode_bytes(self, ids: Ids) -> bytes:
        places = np.asarray(ids, dtype=np.int64) - self._first
        points = self._code_points[places[places >= 0]]
        return points.astype("<u4").tobytes().decode("utf-32-le").encode()

    def safe_cut(self, text: str) -> int:
        return len(text)

    def find_unknown(self, text: str) -> list[str]:
        known = set(self.characters)
        return list(dict.fromkeys(c for c in text if c not in known))

    def drop_unknown(self, text: str) -> str:
        known = set(self.characters)
        return "".join(c for c in text if c in known)

    def char_lengths(self) -> Ids:
        return np.ones(self.vocab_size, dtype=np.int64)

    def byte_lengths(self) -> Ids:
        lengths = [len(character.encode()) for character in self.characters]
        return np.array([1] * self._first + lengths, dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "boundary": self.boundary_id is not None,
            "characters": self.characters,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        characters = data.get("characters")
        if (
            not is_text(characters)
            or not isinstance(data.get("boundary"), bool)
            or sorted(set(characters)) != list(characters)
        ):
            raise MoreishError("the tokenizer file is damaged: its characters are not in order")
        return cls(characters, boundary=boundary)


assert BOUNDARY_ID == 0, "encode() and to_bytes() count on the boundary being the first id"
