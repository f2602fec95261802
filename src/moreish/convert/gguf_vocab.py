"""Tokenizers as llama.cpp has them.

Its byte pairs are those of GPT-2, with words by one of several names. Tokens of one character are
byte pairs too: the bytes of each character are joined, and nothing else is.

llama.cpp ends a text at some token, the twelfth where a file names none. What has no boundary has
to name a token that never comes: a byte that UTF-8 lacks. Characters alone have none to spare; for
those of ASCII there is the one kind of vocabulary that needs no end (of RWKV).
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

NO_MERGE = "<| |>"
"""A pair that never comes together: llama.cpp wants at least one."""

NEVER = 0xFF
"""A byte that no UTF-8 has."""

AS_CHARACTER = {byte: character for character, byte in UNICODE_TO_BYTE.items()}

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = {
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}": "llama-bpe",
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}": "qwen2",
}
"""llama.cpp's names for the words of Llama 3 and of Qwen 2, which it has built in."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: str
    words: str
    """How a text is cut before pairs are joined."""
    tokens: list[str]
    special: frozenset[int]
    """Tokens that stand for no text."""
    merges: list[str]
    end: int | None
    """The token that ends a text."""
    begins: bool
    """Whether that one begins every text too."""


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Raises MoreishError when llama.cpp has no tokenizer like it."""
    if isinstance(tokenizer, BPETokenizer):
        return _of_pairs(tokenizer)
    boundary = tokenizer.boundary_id
    if isinstance(tokenizer, ByteTokenizer):
        tokens, merges = [AS_CHARACTER[byte] for byte in range(256)], [NO_MERGE]
        end = NEVER
    elif isinstance(tokenizer, CharTokenizer):
        if boundary is None:
            return _without_end(tokenizer.characters)
        tokens, merges = _characters(tokenizer.characters)
        end = boundary
    else:
        raise MoreishError(f"llama.cpp has no tokenizer like '{tokenizer.name}'")
    return Vocabulary(
        model="gpt2",
        words="gpt-2",
        tokens=tokens if boundary is None else [END_OF_TEXT, *tokens],
        special=frozenset(() if boundary is None else (boundary,)),
        merges=merges,
        end=end if boundary is None else boundary,
        begins=boundary is not None,
    )


def _characters(characters: str) -> tuple[list[str], list[str]]:
    """The tokens, and what joins the bytes of those that have several."""
    tokens = ["".join(AS_CHARACTER[byte] for byte in c.encode()) for c in characters]
    merges = [f"{t[:at]} {t[at]}" for t in tokens for at in range(1, len(t))]
    return tokens, list(dict.fromkeys(merges)) or [NO_MERGE]


def _without_end(characters: str) -> Vocabulary:
    if not characters.isascii():
        # The one kind of vocabulary without an end never ends reading a character that is not in
        # it, when another that begins with the same byte is.
        raise MoreishError(
            "llama.cpp has to end a text at some token, and of characters beyond ASCII in running "
            "text it would have to be one that the model writes: train with --tokenizer byte or bpe"
        )
    tokens = [c if c.isprintable() and c != "\\" else f"\\x{ord(c):02x}" for c in characters]
    return Vocabulary(
        model="rwkv",
        words="default",
        tokens=tokens,
        special=frozenset(),
        merges=[],
        end=None,
        begins=False,
    )


def _of_pairs(tokenizer: BPETokenizer) -> Vocabulary:
    data = tokenizer.to_json()
    model, words = data["model"], _words(data)
    for name in ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise MoreishError(f"llama.cpp has no tokenizer with {name}={model[name]}")
    if bool(model.get("ignore_merges")) != (words == "llama-bpe"):
        raise MoreishError(f"llama.cpp's tokenizer {words} has other merges (ignore_merges)")
    added = {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    places = sorted({**model["vocab"], **added}.items(), key=lambda entry: entry[1])
    boundary = tokenizer.boundary_id
    return Vocabulary(
        model="gpt2",
        words=words,
        tokens=[token for token, _ in places],
        special=frozenset(added.values()),
        merges=model["merges"] or [NO_MERGE],
        end=model["vocab"][AS_CHARACTER[NEVER]] if boundary is None else boundary,
        begins=boundary is not None,
    )


def _words(data: Tree) -> str:
    """llama.cpp's name for how a text is cut into words."""
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
            whole = before[0].get("behavior") == "Isolated" and not before[0].get("invert")
            if whole and pattern in WORDS:
                return WORDS[pattern]
    raise MoreishError("llama.cpp does not know the words of this tokenizer (its pre_tokenizer)")
