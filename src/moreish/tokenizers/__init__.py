"""Text to token ids and back. A new tokenizer is one file and one line in `REGISTRY`."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from moreish.errors import MoreishError, nearest
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
from moreish.tokenizers.gpt2 import GPT2_VOCAB_SIZE
from moreish.utils.files import read_json

REGISTRY = {
    "char": "moreish.tokenizers.char:CharTokenizer",
    "byte": "moreish.tokenizers.byte:ByteTokenizer",
    "word": "moreish.tokenizers.word:WordTokenizer",
    "bpe": "moreish.tokenizers.bpe:BPETokenizer",
    "gpt2": "moreish.tokenizers.gpt2:GPT2",
}


class TokenizerBuilder(Protocol):
    """Makes a tokenizer for a text."""

    needs_text: bool
    """Whether `build` has to read the texts themselves; else the characters in them suffice."""

    def build(
        self, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = ...
    ) -> Tokenizer:
        """A tokenizer that covers all of `texts`.

        Args:
            texts: pieces of the text; they may be gone through more than once.
            boundary: whether it is to have a boundary token.

        Raises:
            MoreishError: the limits leave no room, or a library or a file is missing.
        """


class FromFile:
    """Takes the tokenizer.json of a run, or of another project."""

    needs_text = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def build(
        self, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Tokenizer:
        """One that has a boundary keeps it, needed or not: tokens stay what they were."""
        try:
            data = read_json(self.path)
            has_one = isinstance(data, dict) and data.get("boundary") is True
            return tokenizer_from_json(data, boundary=boundary or has_one)
        except (OSError, ValueError) as error:
            raise MoreishError(f"{self.path} is no tokenizer: {error}") from None


def tokenizer_builder(name: str) -> TokenizerBuilder:
    """What makes the tokenizers registered as `name`; or takes the one in the file of that name.

    Raises:
        MoreishError: there is none; the nearest is named.
    """
    if name in REGISTRY:
        return _imported(name)
    if not (path := Path(name).expanduser()).is_file():
        hint = nearest(name, REGISTRY)
        raise MoreishError(f"unknown tokenizer '{name}': {hint} (or name a tokenizer.json)")
    return FromFile(path)


def check_vocab_size(name: str, limits: VocabularyLimits) -> None:
    """Raises MoreishError where a size is asked of a vocabulary that is not learned, or there is no
    such tokenizer."""
    if not tokenizer_builder(name).needs_text and limits.vocab_size is not None:
        raise MoreishError(
            f"--vocab-size {limits.vocab_size}: {name} has a vocabulary of its own; leave it out, "
            "or take --tokenizer bpe or word, which learn one"
        )


def tokenizer_from_json(data: Any, *, boundary: bool) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_json` described, or that of another project.

    Raises:
        MoreishError: it is damaged, or of a kind that is not known here.
    """
    if not isinstance(data, dict) or data.keys().isdisjoint(("name", "model")):
        raise MoreishError("the tokenizer file is damaged: it does not say which tokenizer it is")
    name = data.get("name", "bpe")
    if name not in ("char", "byte", "word", "bpe"):
        raise MoreishError(f"the tokenizer file is damaged: there is no tokenizer {name!r}")
    found: Tokenizer = _imported(name).from_json(data, boundary=boundary)
    return found


def _imported(name: str) -> Any:
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(import_module(module), attribute)


__all__ = [
    "BOUNDARY_ID",
    "END_OF_TEXT",
    "GPT2_VOCAB_SIZE",
    "REGISTRY",
    "SURROGATE",
    "UNICODE_TO_BYTE",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Ids",
    "Tokenizer",
    "TokenizerBuilder",
    "VocabularyLimits",
    "check_vocab_size",
    "code_points",
    "cut_before_space",
    "tokenizer_builder",
    "tokenizer_from_json",
]
