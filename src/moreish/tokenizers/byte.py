"""The byte tokenizer: one token for each byte of UTF-8, so that no text is unknown."""

from collections.abc import Iterable
from typing import Any, Self, final

import numpy as np

from moreish.errors import MoreishError
from moreish.tokenizers.base import (
    BOUNDARY_ID,
    NO_LIMITS,
    Ids,
    Tokenizer,
    VocabularyLimits,
    utf8,
)


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
    unk_id = None

    def __init__(self, *, boundary: bool) -> None:
        self.boundary_id = BOUNDARY_ID if boundary else None
        self._first_id = int(boundary)
        self.vocab_size = 256 + self._first_id

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Build the tokenizer; neither `texts` nor `limits` make a difference."""
        return cls(boundary=boundary)

    def encode(self, text: str) -> Ids:
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int64) + self._first_id

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        ids_N = self.encode("\n".join([*items, ""]))
        ids_N[ids_N == ord("\n") + self._first_id] = BOUNDARY_ID
        return ids_N

    def decode_bytes(self, ids: Ids) -> bytes:
        values = np.asarray(ids, dtype=np.int64) - self._first_id
        return values[values >= 0].astype(np.uint8).tobytes()

    def safe_cut(self, text: str) -> int:
        return len(text)

    def find_unknown(self, text: str) -> list[str]:
        return []

    def drop_unknown(self, text: str) -> str:
        return text

    def char_lengths(self) -> Ids:
        # A character is counted at its first byte; continuation bytes are 0b10xxxxxx.
        is_first_byte = (np.arange(256) & 0b1100_0000) != 0b1000_0000
        return np.concatenate([np.ones(self._first_id), is_first_byte]).astype(np.int64)

    def byte_lengths(self) -> Ids:
        return np.ones(self.vocab_size, dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "boundary": self.boundary_id is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        if not isinstance(data.get("boundary"), bool):
            raise MoreishError("the tokenizer file is damaged: 'boundary' is not true or false")
        return cls(boundary=boundary)
