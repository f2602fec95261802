"""The word tokenizer: one token for each frequent word or sign, one for all others.

Bengio et al. 2003, "A Neural Probabilistic Language Model", section 4.1.
"""

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
    is_valid_text,
    utf8,
)

WORDS = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
"""Words and signs, each with the space before it, and whitespace; joined, they are the text."""


@final
class WordTokenizer(Tokenizer):
    """Words by descending frequency, after the boundary and the unknown token.

    >>> tokenizer = WordTokenizer(["a", " dog", ","], boundary=False)
    >>> tokenizer.encode("a dog, a").tolist()  # " a" is not "a", so it is unknown
    [1, 2, 3, 0]
    """

    name = "word"
    needs_text = True

    def __init__(self, words: list[str], *, boundary: bool) -> None:
        """`words` must be distinct, each with the space before it if there is one."""
        tokens = [b""] * boundary + [UNKNOWN_TEXT.encode(), *(word.encode() for word in words)]
        boundary_id = BOUNDARY_ID if boundary else None
        super().__init__(tokens, boundary_id=boundary_id, unk_id=int(boundary))
        self.words = words
        self._ids = {word: id_ for id_, word in enumerate(words, 1 + boundary)}

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Count the words of `texts` and keep the frequent ones.

        Raises:
            MoreishError: no word occurs `limits.min_word_count` times.
        """
        counts: Counter[str] = Counter()
        rest = ""
        for text in texts:
            rest += text
            end = cut_before_space(rest)
            counts.update(WORDS.findall(rest[:end]))
            rest = rest[end:]
        counts.update(WORDS.findall(rest))
        frequent = [word for word, count in counts.items() if count >= limits.min_word_count]
        if counts and not frequent:
            raise MoreishError(
                f"no word occurs {limits.min_word_count} times: --set data.min_word_count=1"
            )
        frequent.sort(key=lambda word: (-counts[word], word))
        if limits.vocab_size is not None:
            frequent = frequent[: limits.vocab_size - 1 - boundary]
        return cls(frequent, boundary=boundary)

    def encode(self, text: str) -> Ids:
        utf8(text)  # raises for lone surrogates
        ids, unk_id = self._ids, self.unk_id
        words = WORDS.findall(text)
        return np.fromiter((ids.get(word, unk_id) for word in words), np.int64, len(words))

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        parts = [np.append(self.encode(item), BOUNDARY_ID) for item in items]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def safe_cut(self, text: str) -> int:
        return cut_before_space(text)

    def find_unknown(self, text: str) -> list[str]:
        unknown = (word for word in WORDS.findall(text) if word not in self._ids)
        return list(dict.fromkeys(word.strip() or word for word in unknown))

    def drop_unknown(self, text: str) -> str:
        return "".join(word for word in WORDS.findall(text) if word in self._ids)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "words": self.words}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        words = data.get("words")
        if (
            not isinstance(words, list)
            or not all(is_valid_text(word) and WORDS.fullmatch(word) for word in words)
            or len(set(words)) != len(words)
        ):
            raise MoreishError("the tokenizer file is damaged: its words are not a list of strings")
        return cls(words, boundary=boundary)
