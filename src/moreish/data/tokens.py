"""Tokens on disk and the pieces that models see of them.

B batch, T time (positions), N tokens of a split, S spans.
"""

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreish.data.split import Rule, SplitName, split_corpus, text_bounds
from moreish.data.text import Corpus
from moreish.files import named
from moreish.tokenizers.base import BOUNDARY, Ids, Tokenizer

UNSCORED = -1
"""The target of a position that is padding or only gives context."""


EVERYTHING = slice(0, sys.maxsize)

PIECE = 1 << 24
"""Characters that are encoded at a time."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs, and at each position the token that follows (or `UNSCORED`)."""

    tokens_BT: Tensor
    targets_BT: Tensor
    start_B: Ids | None = None
    """Where in the stream each row begins, where it comes from one."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`. A GPU fetches it while the processor goes on."""
        tensors = [self.tokens_BT, self.targets_BT]
        if device.type == "cuda":  # which copies by itself from memory that stays where it is
            tensors = [tensor.pin_memory() for tensor in tensors]
        tokens, targets = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Batch(tokens_BT=tokens, targets_BT=targets, start_B=self.start_B)

    def parts(self, count: int) -> "list[Batch]":
        """The rows in `count` parts of like size, or each row by itself where there are fewer."""
        rows_N = torch.arange(len(self.tokens_BT)).tensor_split(min(count, len(self.tokens_BT)))
        return [
            Batch(
                tokens_BT=self.tokens_BT[rows[0] : rows[-1] + 1],
                targets_BT=self.targets_BT[rows[0] : rows[-1] + 1],
                start_B=None if self.start_B is None else self.start_B[rows[0] : rows[-1] + 1],
            )
            for rows in rows_N
        ]

    @cached_property
    def scored(self) -> int:
        """How many targets count."""
        return int((self.targets_BT != UNSCORED).sum())


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Pieces of a token stream. A piece of length n reads n tokens and predicts the n after each;
    its first `skip` predictions are not scored: they only give context to the others."""

    start_S: Ids
    length_S: Ids
    skip_S: Ids

    def __len__(self) -> int:
        return len(self.start_S)

    def __getitem__(self, chosen: Ids | slice) -> "Spans":
        return Spans(
            start_S=self.start_S[chosen],
            length_S=self.length_S[chosen],
            skip_S=self.skip_S[chosen],
        )


@dataclass(frozen=True, eq=False)
class Tokens:
    """One split as a stream: items between boundaries (`· a n n · b o b ·`), or running text."""

    ids_N: NDArray[np.unsignedinteger]
    items: bool

    @property
    def predictions(self) -> int:
        """How many tokens there are to predict: all but the first."""
        return len(self.ids_N) - 1

    @cached_property
    def boundaries(self) -> Ids:
        """Where the boundaries stand, in a list of items."""
        assert self.items
        return np.flatnonzero(self.ids_N == BOUNDARY)

    @cached_property
    def longest_item(self) -> int:
        """Length of the longest item in tokens, without its boundaries."""
        return int(np.diff(self.boundaries).max()) - 1

    def item(self, index: int) -> Ids:
        """The tokens of an item, without its boundaries."""
        first, last = self.boundaries[index], self.boundaries[index + 1]
        return self.ids_N[first + 1 : last].astype(np.int64)

    def sections(self) -> tuple[Ids, Ids]:
        """Start and length of every stretch that begins afresh: each item, or the whole text."""
        if not self.items:
            return np.array([0]), np.array([self.predictions])
        return self.boundaries[:-1], np.diff(self.boundaries)

    def spans(self, max_length: int, overlap: int = 0) -> Spans:
        """Consecutive pieces of at most `max_length` that score every prediction exactly once.

        Only sections longer than `max_length` are cut; each later piece of a section then begins
        with up to `overlap` tokens that an earlier piece has scored already.
        """
        step = max_length - overlap
        assert step > 0
        start_I, length_I = self.sections()
        # The first piece scores max_length, each further one `step` more.
        pieces_I = 1 + np.maximum(0, -((max_length - length_I) // step))
        which_S = np.repeat(np.arange(len(start_I)), pieces_I)
        order_S = np.arange(len(which_S)) - np.repeat(np.cumsum(pieces_I) - pieces_I, pieces_I)
        offset_S = order_S * step
        return Spans(
            start_S=start_I[which_S] + offset_S,
            length_S=np.minimum(max_length, length_I[which_S] - offset_S),
            skip_S=np.where(order_S > 0, overlap, 0),
        )

    def gather(self, spans: Spans) -> Batch:
        """The spans as rows, padded at the end to the longest."""
        length = int(spans.length_S.max())
        place_BT = spans.start_S[:, None] + np.arange(length)
        inside_BT = np.arange(length) < spans.length_S[:, None]
        scored_BT = inside_BT & (np.arange(length) >= spans.skip_S[:, None])
        place_BT = np.where(inside_BT, place_BT, 0)
        targets_BT = np.where(scored_BT, self.ids_N[place_BT + 1].astype(np.int64), UNSCORED)
        return Batch(
            tokens_BT=torch.from_numpy(self.ids_N[place_BT].astype(np.int64)),
            targets_BT=torch.from_numpy(targets_BT),
            start_B=spans.start_S,
        )


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, rule: Rule, seed: int
) -> dict[SplitName, Tokens]:
    """The corpus as tokens, split by item (lists) or by position (running text)."""
    smallest = np.min_scalar_type(tokenizer.vocab_size - 1)
    if corpus.kind == "lines":
        parts = split_corpus(corpus, rule, seed)
        return {
            name: Tokens(_stretch(items, EVERYTHING, tokenizer, smallest), items=True)
            for name, items in parts.items()
        }
    edges = int(tokenizer.has_boundary)
    # In characters, so that the cuts are the same whatever the tokens are.
    length = sum(len(text) + edges for text in corpus.documents) + edges
    return {
        name: Tokens(_stretch(corpus.documents, part, tokenizer, smallest), items=False)
        for name, part in text_bounds(length, rule).items()
    }


def _stretch(
    documents: list[str], part: slice, tokenizer: Tokenizer, dtype: np.dtype
) -> NDArray[np.unsignedinteger]:
    """The tokens of a part of all documents, with a boundary before, between and after them if
    there is one; it counts as a character."""
    boundary = np.array([BOUNDARY], dtype)
    edges = int(tokenizer.has_boundary)
    pieces = [boundary] if edges and part.start == 0 else []
    at = edges
    for document in documents:
        first, last = max(0, part.start - at), max(0, part.stop - at)
        pieces.append(_encoded(document[first:last], tokenizer, dtype))
        at += len(document)
        if edges and part.start <= at < part.stop:
            pieces.append(boundary)
        at += edges
    return np.concatenate(pieces)


def _encoded(text: str, tokenizer: Tokenizer, dtype: np.dtype) -> NDArray[np.unsignedinteger]:
    """Piece by piece: a gigabyte of text takes a gigabyte in the end, but eight on its way."""
    starts = range(0, len(text), PIECE)
    pieces = [tokenizer.encode(text[i : i + PIECE]).astype(dtype) for i in starts]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype)


def save_tokens(path: Path, tokens: Tokens) -> None:
    """Write the stream as a NumPy file, which says its own type and can be memory-mapped."""
    ids = np.ascontiguousarray(tokens.ids_N)
    with named(path), path.open("wb") as file:
        # np.save writes past Python's file, and so hides why a write failed.
        np.lib.format.write_array_header_2_0(file, np.lib.format.header_data_from_array_1_0(ids))
        file.write(ids.data)


def load_tokens(path: Path, *, items: bool) -> Tokens:
    """The stream, memory-mapped. Raises OSError or ValueError when the file is no such array."""
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (
        EOFError,
        SyntaxError,
        TokenError,
        BadZipFile,
    ) as error:  # NumPy's ways to reject a header
        raise ValueError(str(error)) from None
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind != "u" or len(ids) < 2:
        raise ValueError(f"{path} does not hold tokens")
    return Tokens(ids, items=items)


def fingerprint(tokens: Tokens) -> str:
    """sha256 over the ids, whatever their width on disk."""
    digest = hashlib.sha256()
    for first in range(0, len(tokens.ids_N), 1 << 20):
        digest.update(tokens.ids_N[first : first + (1 << 20)].astype("<u4").tobytes())
    return digest.hexdigest()
