"""The interface of all tokenizers.

Array suffixes: N tokens of a text, V tokens of the vocabulary.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError
from moreish.utils.text import plural

Ids = NDArray[np.int64]

SURROGATE = re.compile("[\ud800-\udfff]")
"""A lone surrogate, which is half of a UTF-16 character and cannot be encoded as UTF-8."""

UP_TO_LAST_SPACE = re.compile(r"(?s).*\S(?=[ \n])")

WHITESPACE_LABELS = str.maketrans(" \n\t", "␣↵⇥")

CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
"""All bytes of UTF-8 that do not begin a character."""

CHUNK_TOKENS = 1 << 20
"""Number of tokens that are decoded at a time."""

BOUNDARY_ID = 0
"""The id of the boundary token of our own tokenizers, written `.` in the makemore lectures. In
tokenizers of other projects it may be another id."""

UNKNOWN_TEXT = "\ufffd"
"""The text that the unknown token decodes to."""


@dataclass(frozen=True, kw_only=True)
class VocabularyLimits:
    """Limits of a vocabulary that is trained on a text."""

    vocab_size: int | None = None
    """Largest number of tokens; None chooses it by the length of the text."""
    min_word_count: int = 4
    """Occurrences below which a word is unknown. Bengio et al. 2003, section 4.1, merge all words
    that occur three times or fewer into one token."""


NO_LIMITS = VocabularyLimits()


def utf8(text: str) -> bytes:
    """Encode `text` as UTF-8; bytes that a terminal escaped as surrogates become bytes again.

    Raises:
        MoreishError: `text` contains another lone surrogate.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise MoreishError(
            f"{text[error.start]!r} is a lone surrogate, which UTF-8 cannot encode"
        ) from None


def is_valid_text(value: Any) -> TypeGuard[str]:
    """Return whether `value` is a string without lone surrogates."""
    return isinstance(value, str) and not SURROGATE.search(value)


def cut_before_space(text: str) -> int:
    """Find the last space or line end that follows another character; return 0 if there is none.

    No word of `WordTokenizer` and no token of GPT-2's pre-tokenizer crosses this position.

    >>> cut_before_space("one two thr")
    7
    """
    match = UP_TO_LAST_SPACE.match(text)
    return match.end() if match else 0


class Tokenizer(ABC):
    """A lossless mapping from text to token ids: `decode(encode(text)) == text` for known text.

    A list of items, or a corpus of several documents, has a boundary token. It plays the part of
    both BOS and EOS: it begins the token stream and follows every item, and it never occurs inside
    an item. `encode` never returns it, and it decodes to nothing. One running text has no boundary.
    """

    name: ClassVar[str]
    needs_text: ClassVar[bool]
    """See `TokenizerBuilder`."""
    line_spaces: bool = False
    """Whether tokens at the beginning of a line have an implied space, see `implied_spaces`."""

    def __init__(
        self, tokens: list[bytes], *, boundary_id: int | None, unk_id: int | None = None
    ) -> None:
        """
        Args:
            tokens: the UTF-8 bytes of each token; those of the boundary are empty.
            boundary_id: the id of the boundary token; None if there is none.
            unk_id: the id that replaces unknown text; None if unknown text is an error.
        """
        self.tokens, self.boundary_id, self.unk_id = tokens, boundary_id, unk_id
        self.vocab_size = len(tokens)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({plural(self.vocab_size, 'token')})"

    @abstractmethod
    def encode(self, text: str, previous: str = "") -> Ids:
        """Return the token ids (N,) of `text`, without boundaries.

        Args:
            text: the text, or a part of one.
            previous: the text before that part, or at least its last character.

        Raises:
            MoreishError: `text` has unknown characters, which the message names, and the tokenizer
                has no unknown token; or it contains a lone surrogate.
        """

    @abstractmethod
    def encode_items(self, items: list[str]) -> Ids:
        """Return the token ids of all `items`, which have no line ends, each with a boundary after
        it."""

    def decode_bytes(self, ids: Ids, previous: int | None = None) -> bytes:
        """Return the UTF-8 bytes of `ids`; boundaries decode to nothing.

        Args:
            ids: token ids (N,).
            previous: the token before them; None at the beginning of a text.
        """
        ids = np.asarray(ids)
        chunks = []
        for first in range(0, len(ids), CHUNK_TOKENS):
            ids_K = ids[first : first + CHUNK_TOKENS]
            raw = [self.tokens[i] for i in ids_K.tolist()]
            if self.line_spaces:
                for place in np.flatnonzero(self.implied_spaces(ids_K, previous)):
                    raw[place] = raw[place][1:]
            chunks.append(b"".join(raw))
            previous = int(ids_K[-1])
        return b"".join(chunks)

    def decode(self, ids: Ids, previous: int | None = None) -> str:
        """Return the text of `ids`; bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, previous).decode("utf-8", "replace")

    def implied_spaces(
        self, ids: NDArray[np.integer], previous: int | None = None
    ) -> NDArray[np.bool_]:
        """Return whether the space that a token begins with is implied and so not part of the text,
        (N,): that of a word at the beginning of a line.

        Args:
            ids, previous: as for `decode_bytes`.
        """
        return np.zeros(len(ids), dtype=bool)

    def safe_cut(self, text: str) -> int:
        """Return the last position that no token crosses, whatever follows `text`; 0 if none.

        Both parts, encoded one after the other (the second with `previous`), give the ids of the
        whole text.
        """
        return len(text)

    def find_unknown(self, text: str) -> list[str]:
        """Return the distinct unknown characters or words of `text`, in order of appearance."""
        return []

    def normalize_prompt(self, text: str) -> str:
        """Return a prompt without what no text of the training data can contain, and which makes
        no difference to a reader."""
        return text

    def drop_unknown(self, text: str) -> str:
        """Return `text` without its unknown characters or words."""
        return text

    def char_lengths(self) -> Ids:
        """Return the number of characters of each token, (V,).

        A character is counted at its first byte. The boundary counts as one character, like the
        line end that it replaces; so does the unknown token.
        """
        return self._lengths(len(t.translate(None, CONTINUATION_BYTES)) for t in self.tokens)

    def byte_lengths(self) -> Ids:
        """Return the number of UTF-8 bytes of each token, (V,); the boundary and the unknown token
        count as one."""
        return self._lengths(map(len, self.tokens))

    def _lengths(self, lengths: Iterable[int]) -> Ids:
        lengths_V = np.fromiter(lengths, np.int64, self.vocab_size)
        lengths_V[[i for i in (self.boundary_id, self.unk_id) if i is not None]] = 1
        return lengths_V

    def to_json(self) -> dict[str, Any]:
        """Return everything that `from_json` needs to build an equal tokenizer."""
        return {"name": self.name, "boundary": self.boundary_id is not None}

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        """Build the tokenizer that `to_json` described.

        Args:
            data: the content of a tokenizer.json.
            boundary: whether the corpus needs a boundary token.

        Raises:
            MoreishError: `data` is not the output of `to_json`.
        """

    def label(self, token: int) -> str:
        """Return one token in a printable form.

        `·` is the boundary, `␣` and `↵` are whitespace, and bytes that are not printable text are
        written in hexadecimal, as in `‹e282›`.
        """
        if token == self.boundary_id:
            return "·"
        raw = self.tokens[token]
        try:
            text = raw.decode().translate(WHITESPACE_LABELS)
        except UnicodeDecodeError:
            return f"‹{raw.hex()}›"
        return text if text.isprintable() else f"‹{raw.hex()}›"

    def fingerprint(self) -> str:
        """Return the sha256 of the JSON form; equal fingerprints mean equal encodings."""
        canonical = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
