"""The word tokenizer: one token for each frequent word or sign, one for all others.

Bengio et al. 2003, "A Neural Probabilistic Language Model", section 4.1.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

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

LINE_START = re.compile(r"(?<=[^\S ])(?=[\S ])")
"""Positions after a line end or other whitespace that is not a space, where a word begins."""

IMPLIED_SPACE = re.compile(r"(^|[^\S ]) ")


@final
class WordTokenizer(Tokenizer):
    """Words by descending frequency, after the boundary and the unknown token.

    A word has one token, at the beginning of a line and inside it: `encode` adds a space to the
    beginning of each line, which `decode` removes again (as `add_dummy_prefix` of SentencePiece,
    Kudo and Richardson 2018, does for the whole text).

    >>> tokenizer = WordTokenizer([" a", " dog", ","], boundary=False)
    >>> tokenizer.encode("a dog, a").tolist()
    [1, 2, 3, 1]
    """

    name = "word"
    needs_text = True

    def __init__(self, words: list[str], *, boundary: bool, line_spaces: bool = True) -> None:
        """
        Args:
            words: distinct words, each with the space before it if there is one.
            line_spaces: whether a line begins with an implied space; false for vocabularies of
                moreish 0.1.0.
        """
        tokens = [b""] * boundary + [UNKNOWN_TEXT.encode(), *(word.encode() for word in words)]
        boundary_id = BOUNDARY_ID if boundary else None
        super().__init__(tokens, boundary_id=boundary_id, unk_id=int(boundary))
        self.words, self.line_spaces = words, line_spaces
        self._ids = {word: id_ for id_, word in enumerate(words, 1 + boundary)}
        if line_spaces:
            texts = [token.decode() for token in tokens]
            self._has_space_V = np.array([text.startswith(" ") for text in texts])
            self._begins_line_V = np.array([_begins_line(text) for text in texts])

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Count the words of `texts` and keep the frequent ones.

        Raises:
            MoreishError: no word occurs `limits.min_word_count` times.
        """
        counts: Counter[str] = Counter()
        rest, previous = "", ""
        for text in texts:
            rest += text
            if end := cut_before_space(rest):
                counts.update(_split_words(rest[:end], previous))
                rest, previous = rest[end:], rest[end - 1]
        counts.update(_split_words(rest, previous))
        frequent = [word for word, count in counts.items() if count >= limits.min_word_count]
        if counts and not frequent:
            raise MoreishError(
                f"no word occurs {limits.min_word_count} times: --set data.min_word_count=1"
            )
        frequent.sort(key=lambda word: (-counts[word], word))
        if limits.vocab_size is not None:
            frequent = frequent[: limits.vocab_size - 1 - boundary]
        return cls(frequent, boundary=boundary)

    def encode(self, text: str, previous: str = "") -> Ids:
        utf8(text)  # raises for lone surrogates
        ids, unk_id = self._ids, self.unk_id
        words = self._split(text, previous)
        return np.fromiter((ids.get(word, unk_id) for word in words), np.int64, len(words))

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        parts = [np.append(self.encode(item), BOUNDARY_ID) for item in items]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def implied_spaces(
        self, ids: NDArray[np.integer], previous: int | None = None
    ) -> NDArray[np.bool_]:
        if not self.line_spaces or not len(ids):
            return super().implied_spaces(ids, previous)
        begins_line_N = self._begins_line_V[ids]
        first = previous is None or self._begins_line_V[previous]
        return self._has_space_V[ids] & np.append(first, begins_line_N[:-1])

    def safe_cut(self, text: str) -> int:
        return cut_before_space(text)

    def find_unknown(self, text: str) -> list[str]:
        unknown = (word for word in self._split(text) if word not in self._ids and word != " ")
        return list(dict.fromkeys(word.strip() or word for word in unknown))

    def drop_unknown(self, text: str) -> str:
        ids = self.encode(text)
        return self.decode(ids[ids != self.unk_id])

    def normalize_prompt(self, text: str) -> str:
        """Remove single spaces that are no token: those before a line or at the end of a text are
        rare in most texts, and common in prompts."""
        if " " in self._ids:
            return text
        words = "".join(word for word in self._split(text) if word != " ")
        return IMPLIED_SPACE.sub(r"\1", words) if self.line_spaces else words

    def to_json(self) -> dict[str, Any]:
        line_spaces = {"line_spaces": True} if self.line_spaces else {}
        return {**super().to_json(), **line_spaces, "words": self.words}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        words = data.get("words")
        if (
            not isinstance(words, list)
            or not all(is_valid_text(word) and WORDS.fullmatch(word) for word in words)
            or len(set(words)) != len(words)
        ):
            raise MoreishError("the tokenizer file is damaged: its words are not a list of strings")
        return cls(words, boundary=boundary, line_spaces=data.get("line_spaces") is True)

    def _split(self, text: str, previous: str = "") -> list[str]:
        return _split_words(text, previous) if self.line_spaces else WORDS.findall(text)


def _split_words(text: str, previous: str = "") -> list[str]:
    """Return the words of `text`, which continues `previous`, with a space before each line."""
    if _begins_line(previous[-1:]) and text and not _begins_line(text[0]):
        text = " " + text
    return WORDS.findall(LINE_START.sub(" ", text))


def _begins_line(previous: str) -> bool:
    """Return whether a line begins after `previous`."""
    return not previous or (previous.isspace() and not previous.endswith(" "))
