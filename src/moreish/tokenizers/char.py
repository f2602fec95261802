"""The character tokenizer of the makemore lectures: one token for each character."""

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
    is_valid_text,
)

LINE_END = "\n"

UNKNOWN_ID = -1
"""Stands for unknown characters in the lookup table; never returned."""


def code_points(text: str) -> NDArray[np.unsignedinteger]:
    """Return the Unicode code points of `text`: uint8 for ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode(), dtype=np.uint8)
    # Lone surrogates pass, so that the error message can name them.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@final
class CharTokenizer(Tokenizer):
    """Characters in code point order; with a boundary, `.` is 0 and `a` is 1, as in makemore.

    >>> tokenizer = CharTokenizer.build(["emma"], boundary=True)
    >>> tokenizer.encode("mae").tolist()
    [3, 1, 2]
    >>> tokenizer.encode_items(["emma", "mae"]).tolist()
    [2, 3, 3, 1, 0, 3, 1, 2, 0]
    >>> CharTokenizer.build(["emma"], boundary=False).encode("mae").tolist()
    [2, 0, 1]
    """

    name = "char"
    needs_text = False

    def __init__(self, characters: str, *, boundary: bool) -> None:
        """`characters` must be distinct and in code point order."""
        tokens = [b""] * boundary + [character.encode() for character in characters]
        super().__init__(tokens, boundary_id=BOUNDARY_ID if boundary else None)
        self.characters = characters
        # A table from code point to id; the last entry is for all higher code points.
        points = code_points(characters)
        highest = int(points.max(initial=ord(LINE_END)))
        self._id_of_code_point = np.full(highest + 2, UNKNOWN_ID)
        self._id_of_code_point[points] = np.arange(boundary, self.vocab_size)

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Collect the characters of `texts`; `limits` make no difference."""
        distinct: set[str] = set()
        for text in texts:
            distinct.update(text)
        return cls("".join(sorted(distinct)), boundary=boundary)

    def encode(self, text: str, previous: str = "") -> Ids:
        return self._look_up(text, self._id_of_code_point)

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        table = self._id_of_code_point.copy()
        table[ord(LINE_END)] = BOUNDARY_ID
        return self._look_up(LINE_END.join([*items, ""]), table)

    def _look_up(self, text: str, table: Ids) -> Ids:
        ids_N: Ids = table.take(code_points(text), mode="clip")
        if (ids_N == UNKNOWN_ID).any():
            names = " ".join(map(repr, self.find_unknown(text)))
            raise MoreishError(f"not in the model's vocabulary: {names}")
        return ids_N

    def find_unknown(self, text: str) -> list[str]:
        known = set(self.characters)
        return list(dict.fromkeys(c for c in text if c not in known))

    def drop_unknown(self, text: str) -> str:
        known = set(self.characters)
        return "".join(c for c in text if c in known)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "characters": self.characters}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        characters = data.get("characters")
        if not is_valid_text(characters) or sorted(set(characters)) != list(characters):
            raise MoreishError(
                "the tokenizer file is damaged: its characters are not distinct and sorted"
            )
        return cls(characters, boundary=boundary)


assert BOUNDARY_ID == 0, "the constructors rely on the boundary having the first id"
