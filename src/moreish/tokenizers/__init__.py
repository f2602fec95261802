"""Tokenizers: text to token ids and back.

A new tokenizer is one file and one line in `REGISTRY`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from moreish.errors import MoreishError, nearest, one_line
from moreish.tokenizers.base import (
    BOUNDARY_ID,
    NO_LIMITS,
    SURROGATE,
    Ids,
    Tokenizer,
    VocabularyLimits,
    cut_before_space,
)
from moreish.tokenizers.bpe import END_OF_TEXT, UNICODE_TO_BYTE, BPETokenizer
from moreish.tokenizers.byte import ByteTokenizer
from moreish.tokenizers.char import CharTokenizer, code_points
from moreish.tokenizers.examples import ExampleTokenizer, TargetForm, examples_from_json
from moreish.tokenizers.gpt2 import GPT2, GPT2_VOCAB_SIZE
from moreish.tokenizers.word import WordTokenizer
from moreish.utils.files import read_json, user_path


class TokenizerBuilder(Protocol):
    """Builds a tokenizer for a text."""

    needs_text: bool
    """Whether `build` reads the texts themselves; otherwise their distinct characters suffice."""

    def build(
        self, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = ...
    ) -> Tokenizer:
        """Build a tokenizer that covers all of `texts`.

        Args:
            texts: chunks of the text, which may be iterated more than once.
            boundary: whether the corpus needs a boundary token.
            limits: limits of a vocabulary that is trained.

        Raises:
            MoreishError: the limits leave no room, or a library or a file is missing.
        """


REGISTRY: dict[str, TokenizerBuilder] = {
    "char": CharTokenizer,
    "byte": ByteTokenizer,
    "word": WordTokenizer,
    "bpe": BPETokenizer,
    "gpt2": GPT2,
}


class TokenizerFile:
    """Reads the tokenizer.json of a run or of another project instead of building one."""

    needs_text = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def build(
        self, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Tokenizer:
        """Read the file. Its boundary token is kept even if unneeded, so that ids do not change."""
        try:
            data = read_json(self.path)
            has_boundary = isinstance(data, dict) and data.get("boundary") is True
            return tokenizer_from_json(data, boundary=boundary or has_boundary)
        except (OSError, ValueError) as error:
            raise MoreishError(f"{self.path} is not a tokenizer file: {error}") from None


def tokenizer_builder(name: str) -> TokenizerBuilder:
    """Return the builder registered as `name`, or one that reads the tokenizer.json at that path.

    Raises:
        MoreishError: there is neither; the message names the most similar tokenizer.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    if name.strip() and (path := user_path(name)).is_file():
        return TokenizerFile(path)
    hint = nearest(name, REGISTRY)
    raise MoreishError(f"unknown tokenizer '{name}': {hint} (or name a tokenizer.json)")


def check_vocab_size(name: str, limits: VocabularyLimits) -> None:
    """Raise MoreishError if there is no tokenizer `name`, or its vocabulary has a fixed size."""
    if not tokenizer_builder(name).needs_text and limits.vocab_size is not None:
        raise MoreishError(
            f"--vocab-size {limits.vocab_size}: the vocabulary of {name} has a fixed size; omit "
            "it, or use --tokenizer bpe or word, which train a vocabulary"
        )


def load_tokenizer(path: Path, *, boundary: bool, fingerprint: str, what: str) -> Tokenizer:
    """Read the tokenizer.json that belongs to something.

    Args:
        path: the file.
        boundary: as in `tokenizer_from_json`.
        fingerprint: that of the right tokenizer.
        what: what was done with the right one, for the error message.

    Raises:
        MoreishError: the file is damaged, or another tokenizer's.
    """
    try:
        tokenizer = tokenizer_from_json(read_json(path), boundary=boundary)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise MoreishError(
            f"{path} is damaged ({type(error).__name__}: {one_line(error)})"
        ) from None
    if tokenizer.fingerprint() != fingerprint:
        raise MoreishError(f"{path} is not the tokenizer that {what} with")
    return tokenizer


def tokenizer_from_json(data: Any, *, boundary: bool) -> Tokenizer:
    """Build a tokenizer from the output of `Tokenizer.to_json`, or from another project's file.

    Raises:
        MoreishError: `data` is damaged or of an unsupported kind.
    """
    damaged = "the tokenizer file is damaged"
    if not isinstance(data, dict) or data.keys().isdisjoint(("name", "model")):
        raise MoreishError(f"{damaged}: it does not say which tokenizer it is")
    name = data.get("name", "bpe")
    if name == ExampleTokenizer.name:
        text = data.get("text")
        if isinstance(text, dict) and text.get("name") == name:
            raise MoreishError(f"{damaged}: the tokenizer of its text is one of examples")
        return examples_from_json(data, tokenizer_from_json(text, boundary=True))
    classes = (CharTokenizer, ByteTokenizer, WordTokenizer, BPETokenizer)
    for tokenizer_class in classes:
        if tokenizer_class.name == name:
            if name != "bpe" and not isinstance(data.get("boundary"), bool):
                raise MoreishError(f"{damaged}: 'boundary' is not true or false")
            return tokenizer_class.from_json(data, boundary=boundary)
    raise MoreishError(f"{damaged}: there is no tokenizer {name!r}")
