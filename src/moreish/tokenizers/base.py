"""What every tokenizer is."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

BOUNDARY = 0
"""The id of the boundary token, where a tokenizer has one. The lectures write it `.`."""


class Tokenizer(ABC):
    """Text to ids and back, exactly: `decode(encode(text)) == text` for every text it covers.

    Where a text is a list of items, or several documents, id 0 is the boundary token: it begins
    and ends every item and never stands inside one. One running text has no boundary.
    """

    name: ClassVar[str]
    has_boundary: bool
    vocab_size: int

    @classmethod
    @abstractmethod
    def build(cls, texts: Iterable[str], *, boundary: bool) -> Self:
        """A tokenizer that covers all of `texts`."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Ids of `text`, without boundaries. Raises MoreishError naming unknown characters."""

    @abstractmethod
    def encode_items(self, items: list[str]) -> Ids:
        """Ids of all `items` in one go, each followed by a boundary; none holds a line end."""

    @abstractmethod
    def to_bytes(self, ids: Ids) -> bytes:
        """The UTF-8 bytes that `ids` stand for; boundaries give none."""

    @abstractmethod
    def unknown(self, text: str) -> str:
        """The distinct characters of `text` that this tokenizer cannot encode, in order."""

    @abstractmethod
    def char_lengths(self) -> Ids:
        """(V,) characters in each token, a boundary counting as the one line end it stands for."""

    @abstractmethod
    def byte_lengths(self) -> Ids:
        """(V,) UTF-8 bytes in each token, a boundary counting as one."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs, `name` included."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises MoreishError when `data` is not what `to_json` gives."""

    def decode(self, ids: Ids) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return self.to_bytes(ids).decode("utf-8", "replace")

    def label(self, token: int) -> str:
        """One token as a person reads it: `·` for the boundary, `␣` and `↵` for white space."""
        if self.has_boundary and token == BOUNDARY:
            return "·"
        raw = self.to_bytes(np.array([token]))
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return raw.hex()
        return {" ": "␣", "\n": "↵", "\t": "⇥"}.get(text) or (
            text if text.isprintable() else raw.hex()
        )

    def fingerprint(self) -> str:
        """sha256 of the JSON form: equal fingerprints encode equally."""
        canonical = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
