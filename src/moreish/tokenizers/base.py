"""What every tokenizer is."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError

Ids = NDArray[np.int64]

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which only UTF-16 needs."""

BEFORE_SPACE = re.compile(r"(?s).*\S(?=[ \n])")
"""Up to the last place that no word of ours, and no token of GPT-2's kind, reaches across."""

SHOWN_AS = {" ": "␣", "\n": "↵", "\t": "⇥"}

BOUNDARY_ID = 0
"""The id of the boundary token of our own tokenizers, where there is one; the lectures write it
`.`. Other people's may have another id."""

UNKNOWN_TEXT = "\ufffd"
"""What a token of which the text is not known is written as."""


@dataclass(frozen=True, kw_only=True)
class VocabularyLimits:
    """What a vocabulary that is learned from a text is to have."""

    vocab_size: int | None = None
    """The most tokens; None: what suits the text."""
    min_word_count: int = 4
    """Occurrences below which a word is unknown: Bengio et al. 2003, section 4.1, merge those that
    occur three times or fewer."""


NO_LIMITS = VocabularyLimits()
"""What suits the text."""


def utf8(text: str) -> bytes:
    """The bytes of `text`; those that a terminal could not decode, and escaped, are bytes again.

    Raises:
        MoreishError: it holds half a character.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise MoreishError(f"{text[error.start]!r} is half a character, not UTF-8") from None


def is_text(found: Any) -> TypeGuard[str]:
    """Whether it is text that UTF-8 can write."""
    return isinstance(found, str) and not SURROGATE.search(found)


def cut_before_space(text: str) -> int:
    """The last such place; 0 if there is none."""
    found = BEFORE_SPACE.match(text)
    return found.end() if found else 0


class Tokenizer(ABC):
    """Text to ids and back, exactly: `decode(encode(text)) == text` for every text it covers.

    Where a text is a list of items, or several documents, there is a boundary token: it begins and
    ends every item and never stands inside one. One running text has no boundary.
    """

    name: ClassVar[str]
    boundary_id: int | None
    """The id of the boundary token, if there is one."""
    unk_id: int | None
    """The id that stands for all that is unknown; None: unknown text is an error."""
    vocab_size: int

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Ids of `text`, without boundaries.

        Raises:
            MoreishError: some of it is unknown, which is named, and there is no token for that.
        """

    @abstractmethod
    def safe_cut(self, text: str) -> int:
        """The last place at which `text` may be cut so that its parts are encoded as the whole is,
        whatever comes after it; 0 if there is none."""

    @abstractmethod
    def encode_items(self, items: list[str]) -> Ids:
        """Ids of all `items` in one go, each followed by a boundary; none holds a line end."""

    @abstractmethod
    def decode_bytes(self, ids: Ids) -> bytes:
        """The UTF-8 bytes that `ids` stand for; boundaries give none."""

    @abstractmethod
    def find_unknown(self, text: str) -> list[str]:
        """The distinct characters or words of `text` that it does not know, in order."""

    @abstractmethod
    def drop_unknown(self, text: str) -> str:
        """`text` without them."""

    @abstractmethod
    def char_lengths(self) -> Ids:
        """(V,) characters in each token, a boundary counting as the one line end it stands for."""

    @abstractmethod
    def byte_lengths(self) -> Ids:
        """(V,) UTF-8 bytes in each token, a boundary counting as one."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        """The tokenizer that `to_json` described, with a boundary or without one.

        Raises:
            MoreishError: `data` is not what `to_json` gives.
        """

    def decode(self, ids: Ids) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def label(self, token: int) -> str:
        """One token as a person reads it: `·` for the boundary, `␣` and `↵` for white space; bytes
        that are no text, or cannot be seen, are `‹e282›`, since `ad` may be a token too."""
        if token == self.boundary_id:
            return "·"
        raw = self.decode_bytes(np.array([token]))
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return f"‹{raw.hex()}›"
        text = "".join(SHOWN_AS.get(character, character) for character in text)
        return text if text.isprintable() else f"‹{raw.hex()}›"

    def fingerprint(self) -> str:
        """sha256 of the JSON form: equal fingerprints encode equally."""
        canonical = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
