"""The byte tokenizer: one token for each byte of UTF-8, so that no text is unknown."""

from collections.abc import Iterable
from typing import Any, Self, final

import numpy as np

from moreish.tokenizers.base import BOUNDARY_ID, NO_LIMITS, Ids, Tokenizer, VocabularyLimits, utf8


@final
class ByteTokenizer(Tokenizer):
    """The 256 byte values; with a boundary, byte `b` has the id `b + 1`.

    >>> ByteTokenizer(boundary=False).encode("é").tolist()
    [195, 169]
    >>> ByteTokenizer(boundary=True).encode("é").tolist()
    [196, 170]
    """

    name = "byte"
    needs_text = False

    def __init__(self, *, boundary: bool) -> None:
        tokens = [b""] * boundary + [bytes([byte]) for byte in range(256)]
        super().__init__(tokens, boundary_id=BOUNDARY_ID if boundary else None)
        self._first_id = int(boundary)

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Build the tokenizer; neither `texts` nor `limits` make a difference."""
        return cls(boundary=boundary)

    def encode(self, text: str, previous: str = "") -> Ids:
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int64) + self._first_id

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        ids_N = self.encode("\n".join([*items, ""]))
        ids_N[ids_N == ord("\n") + self._first_id] = BOUNDARY_ID
        return ids_N

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        return cls(boundary=boundary)
