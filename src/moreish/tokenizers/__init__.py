"""Text to token ids and back. A new tokenizer is one file and one line in `REGISTRY`."""

from importlib import import_module
from typing import Any

from moreish.errors import MoreishError, nearest
from moreish.tokenizers.base import Tokenizer

REGISTRY = {
    "char": "moreish.tokenizers.char:CharTokenizer",
    "byte": "moreish.tokenizers.byte:ByteTokenizer",
}


def tokenizer_class(name: str) -> type[Tokenizer]:
    """The class registered as `name`. Raises MoreishError, naming the nearest."""
    if name not in REGISTRY:
        raise MoreishError(f"unknown tokenizer '{name}': {nearest(name, REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    found: type[Tokenizer] = getattr(import_module(module), attribute)
    return found


def tokenizer_from_json(data: Any) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_json` described. Raises MoreishError when it is damaged."""
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise MoreishError("the tokenizer file is damaged: it does not say which tokenizer it is")
    return tokenizer_class(data["name"]).from_json(data)


__all__ = ["REGISTRY", "Tokenizer", "tokenizer_class", "tokenizer_from_json"]
