"""The tokens of a text, and the compression and speed of tokenizers."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moreish.data import Corpus, TokenBuffer
from moreish.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of a text."""

    id: int
    label: str
    """Readable form."""
    bytes: str
    """Its UTF-8 bytes, hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class TokenizerStats:
    """Compression and speed of one tokenizer on a corpus."""

    name: str
    vocabulary: int
    tokens: int
    bytes_per_token: float
    unknown: float
    """Share of unknown tokens."""
    megabytes_per_second: float


def tokenize_text(tokenizer: Tokenizer, text: str) -> list[Token]:
    """Return the tokens of `text`. Raises MoreishError if some of it is unknown."""
    ids = tokenizer.encode(text)
    return [
        Token(
            id=int(token),
            label=tokenizer.label(int(token)),
            bytes=tokenizer.decode_bytes(ids[place : place + 1], last).hex(" "),
        )
        for place, (last, token) in enumerate(zip([None, *ids[:-1].tolist()], ids, strict=True))
    ]


def measure_tokenizer(name: str, tokenizer: Tokenizer, corpus: Corpus) -> TokenizerStats:
    """Encode all of `corpus` and measure; reading is not timed."""
    seconds = 0.0
    with TokenBuffer(tokenizer) as buffer:
        for part in corpus.items() if corpus.kind == "lines" else _chunks(corpus):
            began = time.perf_counter()
            if isinstance(part, str):
                buffer.add_text(part)
            else:
                buffer.add(tokenizer.encode_items(part))
            seconds += time.perf_counter() - began
        ids_N = buffer.mapped()
    predicted_V = np.bincount(ids_N, minlength=tokenizer.vocab_size)
    count = len(ids_N)
    size = int(predicted_V @ tokenizer.byte_lengths()) - int(tokenizer.implied_spaces(ids_N).sum())
    unknown = 0 if tokenizer.unk_id is None else int(predicted_V[tokenizer.unk_id])
    if unknown:  # their length is unknown
        size = sum(len(piece.encode()) for piece in _chunks(corpus))
    return TokenizerStats(
        name=name,
        vocabulary=tokenizer.vocab_size,
        tokens=count,
        bytes_per_token=size / count,
        unknown=unknown / count,
        megabytes_per_second=size / 1e6 / max(seconds, 1e-9),
    )


def _chunks(corpus: Corpus) -> Iterator[str]:
    for text in corpus.texts:
        yield from text
