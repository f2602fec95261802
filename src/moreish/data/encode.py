"""Encoding a corpus: text to the token streams of its splits.

I items, J items of a split, K some of those, N tokens.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate, chain, compress, pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moreish.data.sharded_array import release_pages
from moreish.data.split import (
    SPLITS,
    SplitName,
    SplitRule,
    split_items,
    split_items_as_lecture,
    text_bounds,
)
from moreish.data.text import Corpus, Text
from moreish.data.token_dataset import AnyIds, TokenDataset
from moreish.errors import MoreishError
from moreish.tokenizers import Ids, Tokenizer
from moreish.utils.files import attach_path

CHUNK_TOKENS = 1 << 20
"""Number of tokens that are copied into a split at a time."""

MAX_UNCUT_CHARACTERS = 1 << 20
"""Length of text that is encoded even if the tokenizer finds no place to cut it."""


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, rule: SplitRule, seed: int
) -> dict[SplitName, TokenDataset]:
    """Split a corpus and encode it, by item (lists) or by position (running text).

    Args:
        rule: "seeded" (80/10/10 of the items, 90/5/5 of running text), or "lecture".
        seed: random seed of the split of items.

    Raises:
        MoreishError: the corpus is too small to split, or has changed since it was first read.
        OSError: the disk is full.
    """
    if corpus.kind == "lines":
        return _encode_items(corpus, tokenizer, rule, seed)
    buffers: dict[SplitName, TokenBuffer] = {}
    with ExitStack() as stack:
        for name, piece in _split_text(corpus, rule):
            if name not in buffers:
                buffers[name] = stack.enter_context(TokenBuffer(tokenizer))
            if piece is None:
                buffers[name].add_boundary()
            else:
                buffers[name].add_text(piece)
        return {
            name: TokenDataset(buffer.mapped(), items=False) for name, buffer in buffers.items()
        }


@dataclass(frozen=True)
class TrainingTexts:
    """The training split as text, piece by piece; it can be iterated over repeatedly.

    Tokenizers are trained on it.
    """

    corpus: Corpus
    rule: SplitRule
    seed: int

    def __iter__(self) -> Iterator[str]:
        if self.corpus.kind == "text":
            for name, piece in _split_text(self.corpus, self.rule):
                if name == "train" and piece is not None:
                    yield piece
            return
        is_chosen_I = np.zeros(self.corpus.stats.documents, dtype=bool)
        is_chosen_I[_item_indices(self.corpus, self.rule, self.seed)["train"]] = True
        first = 0
        for items in self.corpus.items():
            is_chosen_K = is_chosen_I[first : first + len(items)]
            first += len(items)
            yield "\n".join([*compress(items, is_chosen_K), ""])


def _split_text(corpus: Corpus, rule: SplitRule) -> Iterator[tuple[SplitName, str | None]]:
    """Running text in pieces, each with its split; None is a boundary between documents.

    The splits are measured in characters (a boundary counts as one), so that they do not depend
    on the tokenizer.
    """
    boundary = [None] * corpus.has_boundary
    if corpus.texts_of_split:
        for name, texts in zip(SPLITS, _texts_of_splits(corpus), strict=False):
            for piece in chain(*((None, *text) for text in texts), [None]):
                yield name, piece
        return
    length = corpus.stats.characters + (len(corpus.texts) + 1) * len(boundary)
    bounds = text_bounds(length, rule)
    position = 0
    parts = (part for text in corpus.texts for part in (boundary, text))
    for piece in chain(chain.from_iterable(parts), boundary):
        size = 1 if piece is None else len(piece)
        for name, part in bounds.items():
            first, last = max(0, part.start - position), min(size, part.stop - position)
            if first < last:
                yield name, None if piece is None else piece[first:last]
        position += size
    if position != length:
        raise _corpus_changed(corpus)


def _encode_items(
    corpus: Corpus, tokenizer: Tokenizer, rule: SplitRule, seed: int
) -> dict[SplitName, TokenDataset]:
    """Encode all items in the order of the corpus, then copy them to their splits."""
    indices = _item_indices(corpus, rule, seed)
    splits, edges = {}, [np.zeros(1, dtype=np.int64)]
    boundary = tokenizer.boundary_id
    assert boundary is not None
    with TokenBuffer(tokenizer) as encoded:
        for items in corpus.items():
            ids_N = tokenizer.encode_items(items)
            edges.append(encoded.length + np.flatnonzero(ids_N == boundary) + 1)
            encoded.add(ids_N)
        edge_I = np.concatenate(edges)
        if len(edge_I) != corpus.stats.documents + 1:
            raise _corpus_changed(corpus)
        for name, index_J in indices.items():
            with TokenBuffer(tokenizer) as buffer:
                buffer.add_boundary()
                for ids_K in _select_items(encoded.mapped(), edge_I, index_J):
                    buffer.add(ids_K)
                splits[name] = TokenDataset(buffer.mapped(), items=True, boundary=boundary)
    return splits


def _texts_of_splits(corpus: Corpus) -> list[list[Text]]:
    """Return the texts of each split that has files of its own."""
    ends = list(accumulate(corpus.texts_of_split, initial=0))
    return [corpus.texts[first:last] for first, last in pairwise(ends)]


def _item_indices(corpus: Corpus, rule: SplitRule, seed: int) -> dict[SplitName, Ids]:
    """Return the indices of each split's items."""
    count = corpus.stats.documents
    if corpus.texts_of_split:
        parts = (replace(corpus, texts=texts) for texts in _texts_of_splits(corpus))
        counts = [sum(map(len, part.items())) for part in parts]
        indices = np.split(np.arange(count), np.cumsum(counts)[:-1])
        return dict(zip(SPLITS, indices, strict=False))
    return split_items_as_lecture(count) if rule == "lecture" else split_items(count, seed)


def _select_items(ids_N: AnyIds, edge_I: Ids, index_J: Ids) -> Iterator[AnyIds]:
    """Yield the tokens of some items, in chunks; item i lies from edge i to edge i + 1."""
    total_J = np.cumsum(edge_I[index_J + 1] - edge_I[index_J])
    for index_K in np.split(index_J, np.flatnonzero(np.diff(total_J // CHUNK_TOKENS)) + 1):
        start_K = edge_I[index_K]
        length_K = edge_I[index_K + 1] - start_K
        before_K = np.cumsum(length_K) - length_K
        yield ids_N[np.repeat(start_K - before_K, length_K) + np.arange(length_K.sum())]
        release_pages(ids_N)


def _corpus_changed(corpus: Corpus) -> MoreishError:
    return MoreishError(f"{corpus.name} changed while it was read: try again")


class TokenBuffer:
    """Encoded tokens in a temporary file, which uses no memory and is deleted in any case.

    Use it as a context manager; the array that `mapped` returns stays valid afterward.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.length = 0
        self._tokenizer, self._pending_text, self._previous = tokenizer, "", ""
        self._dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
        self._folder = Path(tempfile.gettempdir())
        with attach_path(self._folder):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, ids_N: AnyIds) -> None:
        """Append tokens.

        Raises:
            OSError: the disk is full.
        """
        with attach_path(self._folder):
            self._file.write(ids_N.astype(self._dtype).data)
        self.length += len(ids_N)

    def add_text(self, text: str) -> None:
        """Append text; the tokens do not depend on how it is divided between calls."""
        self._pending_text += text
        cut = self._tokenizer.safe_cut(self._pending_text)
        if cut == 0 and len(self._pending_text) > MAX_UNCUT_CHARACTERS:
            cut = len(self._pending_text)
        self._encode_pending(cut)

    def add_boundary(self) -> None:
        """End the current document or item."""
        self._encode_pending(len(self._pending_text))
        self._previous = ""
        self.add(np.array([self._tokenizer.boundary_id]))

    def _encode_pending(self, length: int) -> None:
        text, self._pending_text = self._pending_text[:length], self._pending_text[length:]
        if text:
            self.add(self._tokenizer.encode(text, self._previous))
            self._previous = text[-1]

    def mapped(self) -> NDArray[np.unsignedinteger]:
        """Everything that was added, as a memory-mapped array.

        Raises:
            OSError: the disk is full.
        """
        self._encode_pending(len(self._pending_text))
        with attach_path(self._folder):
            self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=(self.length,))
