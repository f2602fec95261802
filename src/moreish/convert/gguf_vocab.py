"""Tokenizers as GGUF stores them.

llama.cpp's BPE is that of GPT-2, with the pre-tokenization of one of several models. Characters are
expressed as BPE too: merges join the bytes of each character, and nothing else.

llama.cpp stops at an end-of-text token even if the file names none (it then takes token 11). A
running text has no such token, so the file names one that never occurs: a byte that UTF-8 does not
use. A character vocabulary has no spare token; if it is ASCII, the vocabulary type of RWKV is used,
which needs no end-of-text token.
"""

from dataclasses import dataclass

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
    special: frozenset[int] = frozenset()
    """Tokens that are not text."""
    merges: list[str] | None = None
    eos: int | None = None
    """The token that ends a text."""
    adds_bos: bool = False
    """Whether the same token also begins every text."""


def gguf_vocabulary(tokenizer: Tokenizer) -> GGUFVocabulary:
    """Convert a tokenizer.

    Raises:
        MoreishError: llama.cpp has no such tokenizer.
    """
    boundary, pre_tokenizer = tokenizer.boundary_id, "gpt-2"
    start = [] if boundary is None else [END_OF_TEXT]
    special = frozenset(range(len(start)))
    if isinstance(tokenizer, BPETokenizer):
        data = tokenizer.to_json()
        pre_tokenizer = _pre_tokenizer(data)
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or []}
        ids = {**data["model"]["vocab"], **added}
        tokens, special = sorted(ids, key=ids.__getitem__), frozenset(added.values())
        merges = data["model"]["merges"] or [UNUSED_MERGE]
    elif isinstance(tokenizer, ByteTokenizer):
        tokens, merges = [*start, *(BYTE_CHARACTERS[byte] for byte in range(256))], [UNUSED_MERGE]
    elif isinstance(tokenizer, CharTokenizer):
        if boundary is None:
            return _rwkv_vocabulary(tokenizer.characters)
        tokens, merges = _merge_characters(tokenizer.characters)
        tokens = start + tokens
    else:
        raise MoreishError(f"llama.cpp has no tokenizer like '{tokenizer.name}'")
    return GGUFVocabulary(
        model="gpt2",
        pre_tokenizer=pre_tokenizer,
        tokens=tokens,
        special=special,
        merges=merges,
        eos=tokens.index(BYTE_CHARACTERS[UNUSED_BYTE]) if boundary is None else boundary,
        adds_bos=boundary is not None,
    )


def _merge_characters(characters: str) -> tuple[list[str], list[str]]:
    """Return the tokens, and the merges that join the bytes of each character."""
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
    return GGUFVocabulary(model="rwkv", pre_tokenizer="default", tokens=tokens)


def _pre_tokenizer(data: Tree) -> str:
    """Return llama.cpp's name for how a BPE tokenizer splits a text before merging."""
    model, splitter = data["model"], data["pre_tokenizer"]
    if data.get("normalizer") is not None:
        raise MoreishError("llama.cpp does not normalize text, as this tokenizer does")
    *before, last = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
    name = None
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not before and last.get("use_regex", True):
            name = "gpt-2"
        elif len(before) == 1 and not last.get("use_regex"):
            (split,) = before
            if split.get("type") == "Split" and split.get("behavior") == "Isolated":
                pattern = split.get("pattern", {}).get("Regex", "")
                name = None if split.get("invert") else PRE_TOKENIZERS.get(pattern)
    if name is None:
        raise MoreishError("llama.cpp does not have the pre_tokenizer of this tokenizer")
    for option in ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise MoreishError(f"llama.cpp has no tokenizer with {option}={model[option]}")
    if bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise MoreishError(f"llama.cpp's {name} tokenizer has another ignore_merges")
    return name
