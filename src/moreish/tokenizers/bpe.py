"""Byte-level byte pair encoding (BPE): Sennrich et al. 2016, Radford et al. 2019.

The vocabulary is trained on a text by Hugging Face's tokenizers library, or read from a byte-level
tokenizer.json such as those of GPT-2, Llama 3 and Qwen. Vocabularies of GPT-2's kind are encoded
with tiktoken, which is several times as fast and gives the same ids.

Array suffixes: N tokens of a text, V tokens of the vocabulary.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError
from moreish.tokenizers.base import (
    NO_LIMITS,
    Ids,
    Tokenizer,
    VocabularyLimits,
    cut_before_space,
    utf8,
)
from moreish.utils.extras import import_extra

Encoder = Callable[[list[str]], list[NDArray[np.integer]]]

END_OF_TEXT = "<|endoftext|>"
BOUNDARY_NAMES = (END_OF_TEXT, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>")
"""Names of special tokens that projects use at the end of a text, the most specific first."""

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 512, 32_768
CHARACTERS_PER_TOKEN = 500
"""Characters of training text for each token of the vocabulary when no size is given."""

MAX_WORD_LENGTH = 1000
"""Characters of one word, or of one run of whitespace, in the text that a vocabulary is trained
on: training takes time proportional to the square of a word's length."""

LONG_WORD = re.compile(rf"\S{{{MAX_WORD_LENGTH}}}|\s{{{MAX_WORD_LENGTH}}}")

UP_TO_LAST_LINE_END = re.compile(r"(?s).*\w\n(?=\w)")
"""No token crosses a line end between two letters, in any pre-tokenizer; other line ends may join
the signs before them."""


PRINTABLE_BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
OTHER_BYTES = [byte for byte in range(256) if byte not in PRINTABLE_BYTES]
UNICODE_TO_BYTE = {chr(byte): byte for byte in PRINTABLE_BYTES}
UNICODE_TO_BYTE |= {chr(256 + index): byte for index, byte in enumerate(OTHER_BYTES)}
"""The bytes by the characters of byte-level vocabularies: printable bytes are written as
themselves, the others as the characters from U+0100 on: the inverse of `bytes_to_unicode` in
GPT-2's encoder.py."""
TO_LATIN_1 = {ord(character): byte for character, byte in UNICODE_TO_BYTE.items()}


@final
class BPETokenizer(Tokenizer):
    """A byte-level BPE vocabulary in the form of a Hugging Face tokenizer.json.

    Every text can be encoded, because all 256 bytes are tokens. With a boundary, the first special
    token of `BOUNDARY_NAMES` is used; where the file has no special token, one is added.
    """

    name = "bpe"
    needs_text = True

    def __init__(self, data: dict[str, Any], *, boundary: bool) -> None:
        """Read the content of a tokenizer.json.

        Raises:
            MoreishError: `data` is not a byte-level BPE tokenizer.
        """
        try:
            tokens, special = _tokens(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(str(error)) from None
        if boundary and not special:
            special = {END_OF_TEXT: len(tokens)}
            tokens = [*tokens, b""]
            data = {**data, "added_tokens": [added_token(len(tokens) - 1)]}
        candidates = [special[name] for name in BOUNDARY_NAMES if name in special]
        boundary_id = (candidates or list(special.values()))[0] if boundary else None
        super().__init__(tokens, boundary_id=boundary_id)
        self._data = data

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Train a vocabulary by merging the most frequent pair of tokens again and again.

        Raises:
            MoreishError: the limits leave no room for the 256 bytes, or a library is missing.
        """
        hf = import_extra("tokenizers", "bpe")
        min_size = len(UNICODE_TO_BYTE) + boundary
        if limits.vocab_size is not None and limits.vocab_size < min_size:
            raise MoreishError(f"--vocab-size {limits.vocab_size}: give {min_size} or more")
        characters = 0 if limits.vocab_size else sum(map(len, texts))
        default_size = min(MAX_VOCAB_SIZE, max(MIN_VOCAB_SIZE, characters // CHARACTERS_PER_TOKEN))
        model = hf.Tokenizer(hf.models.BPE())
        model.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = hf.decoders.ByteLevel()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=limits.vocab_size or default_size,
            initial_alphabet=sorted(UNICODE_TO_BYTE),
            special_tokens=[END_OF_TEXT] if boundary else [],
            show_progress=False,
        )
        model.train_from_iterator(_cut_long_words(texts), trainer)
        return cls(_compact(json.loads(model.to_str())), boundary=boundary)

    def encode(self, text: str, previous: str = "") -> Ids:
        try:
            text.encode()
        except UnicodeEncodeError:
            return self.encode_bytewise(utf8(text))
        (ids_N,) = self._encoder([text])
        return ids_N.astype(np.int64)

    def encode_bytewise(self, raw: bytes) -> Ids:
        """Encode bytes, which need not be UTF-8, with one token for each byte."""
        id_of = {token: id_ for id_, token in enumerate(self.tokens) if len(token) == 1}
        return np.array([id_of[bytes([byte])] for byte in raw], dtype=np.int64)

    def safe_cut(self, text: str) -> int:
        if self.is_like_gpt2:
            return cut_before_space(text)
        match = UP_TO_LAST_LINE_END.match(text)
        return match.end() if match else 0

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        if self.is_like_gpt2 and all(item and item == item.strip() for item in items):
            (line_end,) = self.encode("\n").tolist()
            ids_N = self.encode("\n".join([*items, ""]))
            ids_N[ids_N == line_end] = self.boundary_id
            return ids_N
        for item in items:
            utf8(item)
        parts = [np.append(ids, self.boundary_id) for ids in self._encoder(items)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def to_json(self) -> dict[str, Any]:
        return self._data

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        return cls(_compact(data), boundary=boundary)

    @cached_property
    def is_like_gpt2(self) -> bool:
        """Whether tiktoken gives the same ids.

        The pre-tokenizer must be GPT-2's, and token ids must follow the order of the merges.
        """
        model = self._data["model"]
        vocab, merges = model["vocab"], model["merges"]
        ids = [vocab.get(left + right) for left, right in map(_pair, merges)]
        plain = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        pre_tokenizer = self._data["pre_tokenizer"]
        return (
            self._data.get("normalizer") is None
            and {key: pre_tokenizer.get(key) for key in plain} == plain
            and not any(model.get(key) for key in ("ignore_merges", "dropout", "byte_fallback"))
            and None not in ids
            and all(a < b for a, b in pairwise(ids))
            and len([token for token in self.tokens if token]) == len(UNICODE_TO_BYTE) + len(merges)
        )

    @cached_property
    def _encoder(self) -> Encoder:
        if self.is_like_gpt2:
            tiktoken = import_extra("tiktoken", "bpe")
            pattern = import_extra("tiktoken_ext.openai_public", "bpe").r50k_pat_str
            core = tiktoken.Encoding(
                "bpe",
                pat_str=pattern,
                mergeable_ranks={token: i for i, token in enumerate(self.tokens) if token},
                # tiktoken demands a special token; its name in a text is encoded as text.
                special_tokens={END_OF_TEXT: len(self.tokens)},
            )
            return lambda texts: [core.encode_to_numpy(t, disallowed_special=()) for t in texts]
        hf = import_extra("tokenizers", "bpe")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        # Without special tokens, so that their names in a text are encoded as text.
        bare = {**self._data, "added_tokens": [], "post_processor": None, "truncation": None}
        try:
            encoding = hf.Tokenizer.from_str(json.dumps({**bare, "padding": None}))
        except Exception as error:  # the library raises plain Exception
            raise _damaged(str(error)) from None
        return lambda texts: [
            np.array(encoded.ids, np.int64)
            for encoded in encoding.encode_batch_fast(texts, add_special_tokens=False)
        ]


def _tokens(data: dict[str, Any]) -> tuple[list[bytes], dict[str, int]]:
    """Return the bytes of each token, and the ids of the special tokens, whose bytes are empty.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: `data` is not a byte-level tokenizer.
    """
    model = data["model"]
    pre_tokenizer = data["pre_tokenizer"]
    is_byte_level = isinstance(pre_tokenizer, dict) and "ByteLevel" in json.dumps(pre_tokenizer)
    if model.get("type", "BPE") != "BPE" or not is_byte_level:
        raise ValueError("only byte-level BPE is supported")
    vocab: dict[str, int] = model["vocab"]
    added = data.get("added_tokens") or []
    special = {token["content"]: token["id"] for token in added}
    ids = {**vocab, **special}
    if {*map(type, ids.values())} != {int} or sorted(ids.values()) != list(range(len(ids))):
        raise ValueError("its ids are not 0, 1, 2, …")
    tokens = [b""] * len(ids)
    for token, id_ in vocab.items():
        if token not in special:
            tokens[id_] = token.translate(TO_LATIN_1).encode("latin-1")
    if len({token for token in tokens if len(token) == 1}) != len(UNICODE_TO_BYTE):
        raise ValueError("it lacks some of the 256 bytes")
    for pair in model["merges"]:
        left, right = _pair(pair)
        if left not in vocab or right not in vocab:
            raise ValueError("a merge contains something that is not a token")
    return tokens, special


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Return both tokens of a merge, which files write as "a b" or as ["a", "b"]."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _compact(data: dict[str, Any]) -> dict[str, Any]:
    """Write merges as strings, which makes the file five times smaller."""
    try:
        merges = data["model"]["merges"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        return {**data, "model": {**data["model"], "merges": merges}}
    except (KeyError, TypeError) as error:
        raise _damaged(str(error)) from None


def added_token(token: int) -> dict[str, Any]:
    """Return the entry of the boundary in a tokenizer.json."""
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": END_OF_TEXT, **no, "special": True}


def _cut_long_words(texts: Iterable[str]) -> Iterator[str]:
    """Cut texts that contain a very long word or run of whitespace (see `MAX_WORD_LENGTH`)."""
    for text in texts:
        if LONG_WORD.search(text) is None:
            yield text
        else:
            yield from (text[i : i + MAX_WORD_LENGTH] for i in range(0, len(text), MAX_WORD_LENGTH))


def _damaged(why: str) -> MoreishError:
    return MoreishError(f"the tokenizer file is damaged or of another kind: {why[:100]}")
