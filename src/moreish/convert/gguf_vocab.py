"""Tokenizers as GGUF stores them.

llama.cpp's BPE is that of GPT-2, with the pre-tokenization of one of several models. Characters are
expressed as BPE too: merges join the bytes of each character, and nothing else.

llama.cpp stops at an end-of-text token even if the file names none (it then takes token 11). A
running text has no such token, so the file names one that never occurs: a byte that UTF-8 does not
use. A character vocabulary has no spare token; if it is ASCII, the vocabulary type of RWKV is used,
which needs no end-of-text token.
"""

from dataclasses import dataclass
from typing import Any

from moreish.errors import MoreishError
from moreish.settings import Tree
from moreish.tokenizers import (
    END_OF_TEXT,
    UNICODE_TO_BYTE,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
)

UNUSED_MERGE = "<| |>"
"""A merge that never applies: llama.cpp needs at least one."""

UNUSED_BYTE = 0xFF
"""A byte that does not occur in UTF-8."""

BYTE_CHARACTERS = {byte: character for character, byte in UNICODE_TO_BYTE.items()}

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{OTHERS}": "llama-bpe",
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{OTHERS}": "qwen2",
}
"""llama.cpp's names for the pre-tokenization of Llama 3 and of Qwen 2, which it has built in."""


@dataclass(frozen=True, kw_only=True)
class GGUFVocabulary:
    """The tokenizer fields of a GGUF file."""

    model: str
    pre_tokenizer: str
    tokens: list[str]
    special: frozenset[int]
    """Tokens that are not text."""
    merges: list[str]
    eos: int | None
    """The token that ends a text."""
    adds_bos: bool
    """Whether the same token also begins every text."""


def gguf_vocabulary(tokenizer: Tokenizer) -> GGUFVocabulary:
    """Converts a tokenizer.

    Raises:
        MoreishError: llama.cpp has no such tokenizer.
    """
    if isinstance(tokenizer, BPETokenizer):
        return _bpe_vocabulary(tokenizer)
    boundary = tokenizer.boundary_id
    if isinstance(tokenizer, ByteTokenizer):
        tokens, merges = [BYTE_CHARACTERS[byte] for byte in range(256)], [UNUSED_MERGE]
    elif isinstance(tokenizer, CharTokenizer):
        if boundary is None:
            return _rwkv_vocabulary(tokenizer.characters)
        tokens, merges = _merge_characters(tokenizer.characters)
    else:
        raise MoreishError(f"llama.cpp has no tokenizer like '{tokenizer.name}'")
    return GGUFVocabulary(
        model="gpt2",
        pre_tokenizer="gpt-2",
        tokens=tokens if boundary is None else [END_OF_TEXT, *tokens],
        special=frozenset(() if boundary is None else (boundary,)),
        merges=merges,
        eos=UNUSED_BYTE if boundary is None else boundary,
        adds_bos=boundary is not None,
    )


def _merge_characters(characters: str) -> tuple[list[str], list[str]]:
    """Returns the tokens, and the merges that join the bytes of each character."""
    tokens = ["".join(BYTE_CHARACTERS[byte] for byte in c.encode()) for c in characters]
    merges = [f"{token[:i]} {token[i]}" for token in tokens for i in range(1, len(token))]
    return tokens, list(dict.fromkeys(merges)) or [UNUSED_MERGE]


def _rwkv_vocabulary(characters: str) -> GGUFVocabulary:
    if not characters.isascii():
        # With an RWKV vocabulary, llama.cpp does not terminate on a character that is not in it if
        # another one begins with the same byte.
        raise MoreishError(
            "llama.cpp needs an end-of-text token, and a running text beyond ASCII has none to "
            "spare if its tokens are characters: train with --tokenizer byte or bpe"
        )
    tokens = [c if c.isprintable() and c != "\\" else f"\\x{ord(c):02x}" for c in characters]
    return GGUFVocabulary(
        model="rwkv",
        pre_tokenizer="default",
        tokens=tokens,
        special=frozenset(),
        merges=[],
        eos=None,
        adds_bos=False,
    )


def _bpe_vocabulary(tokenizer: BPETokenizer) -> GGUFVocabulary:
    data = tokenizer.to_json()
    model, pre_tokenizer = data["model"], _pre_tokenizer(data)
    for name in ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise MoreishError(f"llama.cpp has no tokenizer with {name}={model[name]}")
    if bool(model.get("ignore_merges")) != (pre_tokenizer == "llama-bpe"):
        raise MoreishError(f"llama.cpp's {pre_tokenizer} tokenizer has another ignore_merges")
    added = {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    ids = {**model["vocab"], **added}
    boundary = tokenizer.boundary_id
    return GGUFVocabulary(
        model="gpt2",
        pre_tokenizer=pre_tokenizer,
        tokens=sorted(ids, key=ids.__getitem__),
        special=frozenset(added.values()),
        merges=model["merges"] or [UNUSED_MERGE],
        eos=model["vocab"][BYTE_CHARACTERS[UNUSED_BYTE]] if boundary is None else boundary,
        adds_bos=boundary is not None,
    )


def _pre_tokenizer(data: Tree) -> str:
    """Returns llama.cpp's name for how the tokenizer splits a text before merging."""
    if data.get("normalizer") is not None:
        raise MoreishError("llama.cpp does not normalize text, as this tokenizer does")
    given: Any = data["pre_tokenizer"]
    parts = given["pretokenizers"] if given.get("type") == "Sequence" else [given]
    *before, last = parts
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not before and last.get("use_regex", True):
            return "gpt-2"
        if len(before) == 1 and before[0].get("type") == "Split" and not last.get("use_regex"):
            pattern = before[0].get("pattern", {}).get("Regex", "")
            isolated = before[0].get("behavior") == "Isolated" and not before[0].get("invert")
            if isolated and pattern in PRE_TOKENIZERS:
                return PRE_TOKENIZERS[pattern]
    raise MoreishError("llama.cpp does not have the pre_tokenizer of this tokenizer")
