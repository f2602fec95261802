"""Byte pair encoding over the bytes of UTF-8: Sennrich et al. 2016, Radford et al. 2019.

Learned from a text by Hugging Face's tokenizers, or read from a tokenizer.json that is byte-level,
as those of GPT-2, Llama 3 or Qwen are. Where a vocabulary is of GPT-2's kind, tiktoken encodes with
it, several times as fast and to the same ids.
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

Encoder = Callable[[list[str]], list[NDArray[np.integer]]]

END_OF_TEXT = "<|endoftext|>"
ENDS = (END_OF_TEXT, "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>")
"""Names that projects give to the boundary."""

LEAST, MOST = 512, 32_768
CHARACTERS = 500
"""Of text for each token of a vocabulary for which nobody names a size."""

LONG_WORD = 1000
"""Characters."""

LONG_WORDS = re.compile(rf"\S{{{LONG_WORD}}}|\s{{{LONG_WORD}}}")

SAFE_ANYWHERE = re.compile(r"(?s).*\w\n(?=\w)")
"""Up to the last place that no token reaches across in the vocabularies of others either, where
line ends may go with the signs before them."""

PIECE = 1 << 20
"""Tokens that are decoded at a time."""


def _bytes_by_character() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as they are, the others as the
    characters from U+0100 on (Radford et al. 2019, encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    written = {chr(byte): byte for byte in printable}
    return written | {chr(256 + place): byte for place, byte in enumerate(others)}


UNICODE_TO_BYTE = _bytes_by_character()
TO_LATIN_1 = {ord(character): byte for character, byte in UNICODE_TO_BYTE.items()}


@final
class BPETokenizer(Tokenizer):
    """A byte-level tokenizer.json."""

    name = "bpe"
    needs_text = True
    unk_id = None

    def __init__(self, data: dict[str, Any], *, boundary: bool) -> None:
        """Raises MoreishError when `data` is no byte-level tokenizer."""
        try:
            tokens, special = _tokens(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(str(error)) from None
        if boundary and not special:
            special = {END_OF_TEXT: len(tokens)}
            tokens = [*tokens, b""]
            data = {**data, "added_tokens": [added_token(len(tokens) - 1)]}
        self._data = data
        ends = [special[name] for name in ENDS if name in special]
        self.boundary_id = (ends or list(special.values()))[0] if boundary else None
        self.vocab_size = len(tokens)
        self._tokens = tokens
        self._flat = np.frombuffer(b"".join(tokens), np.uint8)
        self._length_V = np.fromiter(map(len, tokens), np.int64, len(tokens))
        self._start_V = np.cumsum(self._length_V) - self._length_V

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        """Learn the pairs that occur most often, one after another."""
        hf = library("tokenizers")
        least = len(UNICODE_TO_BYTE) + boundary
        if limits.vocab_size is not None and limits.vocab_size < least:
            raise MoreishError(f"--vocab-size {limits.vocab_size}: give {least} or more, the bytes")
        size = limits.vocab_size or _suiting(sum(map(len, texts)))
        learner = hf.Tokenizer(hf.models.BPE())
        learner.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        learner.decoder = hf.decoders.ByteLevel()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=sorted(UNICODE_TO_BYTE),
            special_tokens=[END_OF_TEXT] if boundary else [],
            show_progress=False,
        )
        learner.train_from_iterator(_without_long_words(texts), trainer)
        return cls(_compact(json.loads(learner.to_str())), boundary=boundary)

    def encode(self, text: str) -> Ids:
        try:
            text.encode()
        except UnicodeEncodeError:
            return self._encode_bytes(utf8(text))
        (ids,) = self._encoder([text])
        return ids.astype(np.int64)

    def _encode_bytes(self, raw: bytes) -> Ids:
        """What a terminal could not decode: a token for each byte."""
        token_of = {token: place for place, token in enumerate(self._tokens) if len(token) == 1}
        return np.array([token_of[raw[at : at + 1]] for at in range(len(raw))], dtype=np.int64)

    def safe_cut(self, text: str) -> int:
        if self._like_gpt2:
            return cut_before_space(text)
        found = SAFE_ANYWHERE.match(text)
        return found.end() if found else 0

    def encode_items(self, items: list[str]) -> Ids:
        assert self.boundary_id is not None
        if self._like_gpt2 and all(item and item == item.strip() for item in items):
            (line_end,) = self.encode("\n").tolist()
            ids_N = self.encode("\n".join([*items, ""]))
            ids_N[ids_N == line_end] = self.boundary_id
            return ids_N
        for item in items:
            utf8(item)
        parts = [np.append(ids, self.boundary_id) for ids in self._encoder(items)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def decode_bytes(self, ids: Ids) -> bytes:
        ids = np.asarray(ids, dtype=np.int64)
        pieces = []
        for first in range(0, len(ids), PIECE):
            some = ids[first : first + PIECE]
            length_N = self._length_V[some]
            before_N = np.cumsum(length_N) - length_N
            places = np.repeat(self._start_V[some] - before_N, length_N) + np.arange(length_N.sum())
            pieces.append(self._flat[places].tobytes())
        return b"".join(pieces)

    def find_unknown(self, text: str) -> list[str]:
        return []

    def drop_unknown(self, text: str) -> str:
        return text

    def char_lengths(self) -> Ids:
        # As for bytes: the first one of a character counts for it.
        starts = (self._flat & 0b1100_0000) != 0b1000_0000
        before = np.append(0, np.cumsum(starts))
        lengths = before[self._start_V + self._length_V] - before[self._start_V]
        return self._with_boundary(lengths)

    def byte_lengths(self) -> Ids:
        return self._with_boundary(self._length_V.copy())

    def _with_boundary(self, lengths: Ids) -> Ids:
        if self.boundary_id is not None:
            lengths[self.boundary_id] = 1
        return lengths

    def to_json(self) -> dict[str, Any]:
        return self._data

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        return cls(_compact(data), boundary=boundary)

    @cached_property
    def _like_gpt2(self) -> bool:
        """Whether each token is made of the pair that comes at its place, in GPT-2's words."""
        model = self._data["model"]
        vocab, merges = model["vocab"], model["merges"]
        ids = [vocab.get(left + right) for left, right in map(_pair, merges)]
        plain = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        given = self._data["pre_tokenizer"]
        return (
            self._data.get("normalizer") is None
            and {key: given.get(key) for key in plain} == plain
            and not any(model.get(key) for key in ("ignore_merges", "dropout", "byte_fallback"))
            and None not in ids
            and all(a < b for a, b in pairwise(ids))
            and len([token for token in self._tokens if token])
            == len(UNICODE_TO_BYTE) + len(merges)
        )

    @cached_property
    def _encoder(self) -> Encoder:
        if self._like_gpt2:
            tiktoken = library("tiktoken")
            words = library("tiktoken_ext.openai_public").r50k_pat_str
            core = tiktoken.Encoding(
                "bpe",
                pat_str=words,
                mergeable_ranks={token: i for i, token in enumerate(self._tokens) if token},
                # It has to have one. Its name in a text is text all the same.
                special_tokens={END_OF_TEXT: len(self._tokens)},
            )
            return lambda texts: [core.encode_to_numpy(t, disallowed_special=()) for t in texts]
        hf = library("tokenizers")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        # Without the names of special tokens, which may stand in a text.
        bare = {**self._data, "added_tokens": [], "post_processor": None, "truncation": None}
        try:
            encoding = hf.Tokenizer.from_str(json.dumps({**bare, "padding": None}))
        except Exception as error:  # the library has no class of its own for its errors
            raise _damaged(str(error)) from None
        return lambda texts: [
            np.array(found.ids, np.int64)
            for found in encoding.encode_batch_fast(texts, add_special_tokens=False)
        ]


def _tokens(data: dict[str, Any]) -> tuple[list[bytes], dict[str, int]]:
    """The bytes of each token, and the special tokens, which have none.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no byte-level tokenizer.
    """
    model = data["model"]
    words = data["pre_tokenizer"]
    bytewise = isinstance(words, dict) and "ByteLevel" in json.dumps(words)
    if model.get("type", "BPE") != "BPE" or not bytewise:
        raise ValueError("only byte-level BPE is read")
    vocab: dict[str, int] = model["vocab"]
    added = data.get("added_tokens") or []
    special = {token["content"]: token["id"] for token in added}
    ids = {**vocab, **special}
    if {*map(type, ids.values())} != {int} or sorted(ids.values()) != list(range(len(ids))):
        raise ValueError("its ids are not 0, 1, 2 …")
    tokens = [b""] * len(ids)
    for token, place in vocab.items():
        if token not in special:
            tokens[place] = token.translate(TO_LATIN_1).encode("latin-1")
    if len({token for token in tokens if len(token) == 1}) != len(UNICODE_TO_BYTE):
        raise ValueError("it lacks some of the 256 bytes")
    for pair in model["merges"]:
        left, right = _pair(pair)
        if left not in vocab or right not in vocab:
            raise ValueError("a pair is made of what is no token")
    return tokens, special


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Both forms that files have."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _compact(data: dict[str, Any]) -> dict[str, Any]:
    """With pairs as strings, a fifth of the size."""
    try:
        given = data["model"]["merges"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in given]
        return {**data, "model": {**data["model"], "merges": merges}}
    except (KeyError, TypeError) as error:
        raise _damaged(str(error)) from None


def added_token(place: int) -> dict[str, Any]:
    """The boundary, as files have it."""
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": place, "content": END_OF_TEXT, **no, "special": True}


def _without_long_words(texts: Iterable[str]) -> Iterator[str]:
    """Learning takes time as the square of a word's length: what goes on for long without white
    space, or with nothing else, is cut."""
    for text in texts:
        if LONG_WORDS.search(text) is None:
            yield text
        else:
            yield from (text[at : at + LONG_WORD] for at in range(0, len(text), LONG_WORD))


def _suiting(characters: int) -> int:
    return min(MOST, max(LEAST, characters // CHARACTERS))


def _damaged(why: str) -> MoreishError:
    return MoreishError(f"the tokenizer file is damaged or of another kind: {why[:100]}")


def library(name: str) -> Any:
    """The module of that name. Raises MoreishError when it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise MoreishError(
            f"this tokenizer needs a library ({name}): pip install 'moreish[bpe]'"
        ) from None
