"""One token a word or sign, the rare ones all the same: Bengio et al. 2003."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self, final

import numpy as np

from moreish.errors import MoreishError
from moreish.tokenizers.base import (
    BOUNDARY_ID,
    NO_LIMITS,
    UNKNOWN_TEXT,
    Ids,
    Tokenizer,
    VocabularyLimits,
    cut_before_space,
    is_text,
    utf8,
)

PIECES = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
"""Words and signs, with the space before them, and white space; together they are the text."""


@final
class WordTokenizer(Tokenizer):
    """The words in the order of their frequency, after the boundary and the unknown word.

    >>> tokenizer = WordTokenizer(["a", " dog", ","], boundary=False)
    >>> tokenizer.encode("a dog, a").tolist()
    [1, 2, 3, 0]
    """

    name = "word"
    needs_text = True

    def __init__(self, words: list[str], *, boundary: bool) -> None:
        """`words`: distinct, each as it stands in the text."""
        self.words = words
        self.boundary_id = BOUNDARY_ID if boundary else None
        self.unk_id = int(boundary)
        self._first = self.unk_id + 1
        self.vocab_size = self._first + len(words)
        self._ids = {word: place for place, word in enumerate(words, self._first)}

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        counts: Counter[str] = Counter()
        rest = ""
        for text in texts:
            rest += text
            at = cut_before_space(rest)
            counts.update(PIECES.findall(rest[:at]))
            rest = rest[at:]
        counts.update(PIECES.findall(rest))
        kept = [word for word, count in counts.items() if count >= limits.min_word_count]
        if counts and not kept:
            raise MoreishError(
                f"no word occurs {limits.min_word_count} times: --set data.min_word_count=1"
            )
        kept.sort(key=lambda word: (-counts[word], word))
        most = len(kept) if limits.vocab_size is None else limits.vocab_size - 1 - boundary
        return cls(kept[:most], boundary=boundary)

    def encode(self, text: str) -> Ids:
        utf8(text)  # half a character is no word
        ids, unk = self._ids, self.unk_id
        found = PIECES.findall(text)
        return np.fromiter((ids.get(piece, unk) for piece in found), np.int64, len(found))

    def safe_cut(self, text: str) -> int:
        return cut_before_space(text)

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        parts = [np.append(self.encode(item), BOUNDARY_ID) for item in items]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def decode_bytes(self, ids: Ids) -> bytes:
        first, words = self._first, self.words
        told = (
            words[i - first] if i >= first else UNKNOWN_TEXT if i == self.unk_id else ""
            for i in np.asarray(ids).tolist()
        )
        return "".join(told).encode()

    def find_unknown(self, text: str) -> list[str]:
        pieces = PIECES.findall(text)
        return list(dict.fromkeys(p.strip() or p for p in pieces if p not in self._ids))

    def drop_unknown(self, text: str) -> str:
        return "".join(piece for piece in PIECES.findall(text) if piece in self._ids)

    def char_lengths(self) -> Ids:
        return np.array([1] * self._first + [len(word) for word in self.words])

    def byte_lengths(self) -> Ids:
        return np.array([1] * self._first + [len(word.encode()) for word in self.words])

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "boundary": self.boundary_id is not None, "words": self.words}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        words = data.get("words")
        if (
            not isinstance(words, list)
            or not isinstance(data.get("boundary"), bool)
            or not all(is_text(word) and PIECES.fullmatch(word) for word in words)
            or len(set(words)) != len(words)
        ):
            raise MoreishError("the tokenizer file is damaged: its words are no list of words")
        return cls(words, boundary=boundary)
