"""Tokens on disk and the pieces that models see of them.

B batch, T time (positions), N tokens of a split, S windows, I items, J items of a split, K some of
those.
"""

import hashlib
import io
import mmap
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from pathlib import Path
from tokenize import TokenError
from typing import Self
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreish.data.sharded_array import ShardedArray
from moreish.data.split import (
    SplitName,
    SplitRule,
    split_items,
    split_items_as_lecture,
    text_bounds,
)
from moreish.data.text import Corpus
from moreish.errors import MoreishError
from moreish.tokenizers import BOUNDARY_ID, Ids, Tokenizer
from moreish.utils.files import naming_errors, write_durable

IGNORE_INDEX = -1
"""The target of a position that is padding or only gives context."""


CHUNK_TOKENS = 1 << 20
"""Tokens that are handled at a time."""

LONGEST_WORD = 1 << 20
"""Characters without a place to cut that are encoded together."""

AnyIds = NDArray[np.integer]
"""Of any width: as they lie on disk, or as a tokenizer gives them."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs, and at each position the token that follows (or `IGNORE_INDEX`)."""

    tokens_BT: Tensor
    targets_BT: Tensor
    start_B: Ids | None = None
    """Where in the stream each row begins, where it comes from one."""
    counts_BT: Tensor | None = None
    """How often each of these predictions occurs, where they were counted."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`. A GPU fetches it while the processor goes on."""

        def there(tensor: Tensor) -> Tensor:
            if device.type == "cuda":  # which copies by itself from memory that stays where it is
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True)

        return Batch(
            tokens_BT=there(self.tokens_BT),
            targets_BT=there(self.targets_BT),
            start_B=self.start_B,
            counts_BT=None if self.counts_BT is None else there(self.counts_BT),
        )

    def split(self, count: int) -> "list[Batch]":
        """The rows in `count` parts of like size, or each row by itself where there are fewer."""
        rows = np.array_split(np.arange(len(self.tokens_BT)), min(count, len(self.tokens_BT)))
        return [self[part[0] : part[-1] + 1] for part in rows]

    def __getitem__(self, rows: slice) -> "Batch":
        """Some of the rows."""
        return Batch(
            tokens_BT=self.tokens_BT[rows],
            targets_BT=self.targets_BT[rows],
            start_B=None if self.start_B is None else self.start_B[rows],
            counts_BT=None if self.counts_BT is None else self.counts_BT[rows],
        )

    @cached_property
    def num_targets(self) -> int:
        """How many targets count."""
        if self.counts_BT is not None:
            return int(self.counts_BT.sum())
        return int((self.targets_BT != IGNORE_INDEX).sum())


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Pieces of a token stream. A piece of length n reads n tokens and predicts the n after each;
    its first `skip` predictions are not scored: they only give context to the others."""

    start_W: Ids
    length_W: Ids
    skip_W: Ids

    def __len__(self) -> int:
        return len(self.start_W)

    def __getitem__(self, chosen: Ids | slice) -> "Windows":
        return Windows(
            start_W=self.start_W[chosen],
            length_W=self.length_W[chosen],
            skip_W=self.skip_W[chosen],
        )


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """One split as a stream: items between boundaries (`· a n n · b o b ·`), or running text."""

    ids_N: NDArray[np.unsignedinteger] | ShardedArray
    items: bool
    """They are never joined."""
    boundary: int = BOUNDARY_ID
    """Of items."""

    @property
    def num_predictions(self) -> int:
        """How many tokens there are to predict: all but the first."""
        return len(self.ids_N) - 1

    @cached_property
    def boundaries(self) -> Ids:
        """Where the boundaries stand, in a list of items."""
        assert self.items
        return np.flatnonzero(self.ids_N == self.boundary)

    @cached_property
    def longest_item(self) -> int:
        """Length of the longest item in tokens, without its boundaries."""
        return int(np.diff(self.boundaries).max()) - 1

    def item(self, index: int) -> Ids:
        """The tokens of an item, without its boundaries."""
        first, last = self.boundaries[index], self.boundaries[index + 1]
        return self.ids_N[first + 1 : last].astype(np.int64)

    def segments(self) -> tuple[Ids, Ids]:
        """Start and length of every stretch that begins afresh: each item, or the whole text."""
        if not self.items:
            return np.array([0]), np.array([self.num_predictions])
        return self.boundaries[:-1], np.diff(self.boundaries)

    def windows(self, max_length: int, overlap: int = 0) -> Windows:
        """Consecutive pieces of at most `max_length` that score every prediction exactly once.

        Only sections longer than `max_length` are cut; each later piece of a section then begins
        with up to `overlap` tokens that an earlier piece has scored already.
        """
        step = max_length - overlap
        assert step > 0
        start_I, length_I = self.segments()
        # The first piece scores max_length, each further one `step` more.
        pieces_I = 1 + np.maximum(0, -((max_length - length_I) // step))
        which_S = np.repeat(np.arange(len(start_I)), pieces_I)
        order_S = np.arange(len(which_S)) - np.repeat(np.cumsum(pieces_I) - pieces_I, pieces_I)
        offset_S = order_S * step
        return Windows(
            start_W=start_I[which_S] + offset_S,
            length_W=np.minimum(max_length, length_I[which_S] - offset_S),
            skip_W=np.where(order_S > 0, overlap, 0),
        )

    def gather(self, windows: Windows) -> Batch:
        """The windows as rows, padded at the end to the longest."""
        length = int(windows.length_W.max())
        place_BT = windows.start_W[:, None] + np.arange(length)
        inside_BT = np.arange(length) < windows.length_W[:, None]
        scored_BT = inside_BT & (np.arange(length) >= windows.skip_W[:, None])
        place_BT = np.where(inside_BT, place_BT, 0)
        targets_BT = np.where(scored_BT, self.ids_N[place_BT + 1].astype(np.int64), IGNORE_INDEX)
        return Batch(
            tokens_BT=torch.from_numpy(self.ids_N[place_BT].astype(np.int64)),
            targets_BT=torch.from_numpy(targets_BT),
            start_B=windows.start_W,
        )


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, rule: SplitRule, seed: int
) -> dict[SplitName, TokenDataset]:
    """The corpus as tokens, split by item (lists) or by position (running text).

    Raises:
        MoreishError: it is too small to be split, or has changed since it was first read.
    """
    if corpus.kind == "lines":
        return _encode_items(corpus, tokenizer, rule, seed)
    edges = (len(corpus.texts) + 1) * corpus.has_boundary
    # In characters, so that the cuts are the same whatever the tokens are; a boundary is one too.
    length = corpus.stats.characters + edges
    bounds = text_bounds(length, rule)
    with ExitStack() as opened:
        spools = {name: opened.enter_context(TokenBuffer(tokenizer)) for name in bounds}
        at = 0
        for piece in _pieces_of_texts(corpus):
            size = 1 if piece is None else len(piece)
            for name, part in bounds.items():
                first, last = max(0, part.start - at), min(size, part.stop - at)
                if first < last and piece is None:
                    spools[name].add_boundary()
                elif piece is not None and first < last:
                    spools[name].add_text(piece[first:last])
            at += size
        if at != length:
            raise _changed(corpus)
        return {name: TokenDataset(spool.mapped(), items=False) for name, spool in spools.items()}


@dataclass(frozen=True)
class TrainingTexts:
    """What tokenizers may learn from: the training split, piece by piece, as often as wanted."""

    corpus: Corpus
    rule: SplitRule
    seed: int

    def __iter__(self) -> Iterator[str]:
        if self.corpus.kind == "text":
            yield from self._running()
        else:
            yield from self._items()

    def _running(self) -> Iterator[str]:
        edges = (len(self.corpus.texts) + 1) * self.corpus.has_boundary
        part, at = text_bounds(self.corpus.stats.characters + edges, self.rule)["train"], 0
        for piece in _pieces_of_texts(self.corpus):
            if piece is not None and part.start <= at < part.stop:
                yield piece[: part.stop - at]
            at += 1 if piece is None else len(piece)

    def _items(self) -> Iterator[str]:
        place_J = _places(self.corpus, self.rule, self.seed)["train"]
        chosen_I = np.zeros(self.corpus.stats.documents, dtype=bool)
        chosen_I[place_J] = True
        at = 0
        for items in self.corpus.items():
            chosen_K = chosen_I[at : at + len(items)]
            at += len(items)
            yield "\n".join([*compress(items, chosen_K), ""])


def _pieces_of_texts(corpus: Corpus) -> Iterator[str | None]:
    """All texts; None for the boundaries before, between and after them, if there are such."""
    for text in corpus.texts:
        if corpus.has_boundary:
            yield None
        yield from text
    if corpus.has_boundary:
        yield None


def _encode_items(
    corpus: Corpus, tokenizer: Tokenizer, rule: SplitRule, seed: int
) -> dict[SplitName, TokenDataset]:
    """Encode all items in the order of the source, then deal them out to the splits."""
    places = _places(corpus, rule, seed)
    splits, edges = {}, [np.zeros(1, dtype=np.int64)]
    boundary = tokenizer.boundary_id
    assert boundary is not None
    with TokenBuffer(tokenizer) as source:
        for items in corpus.items():
            ids_N = tokenizer.encode_items(items)
            edges.append(source.length + np.flatnonzero(ids_N == boundary) + 1)
            source.add(ids_N)
        edge_I = np.concatenate(edges)
        if len(edge_I) != corpus.stats.documents + 1:
            raise _changed(corpus)
        for name, place_J in places.items():
            with TokenBuffer(tokenizer) as spool:
                spool.add_boundary()
                for ids_K in _gathered(source.mapped(), edge_I, place_J):
                    spool.add(ids_K)
                splits[name] = TokenDataset(spool.mapped(), items=True, boundary=boundary)
    return splits


def _places(corpus: Corpus, rule: SplitRule, seed: int) -> dict[SplitName, Ids]:
    """Which items are in which split."""
    item_ids_I = corpus.stats.item_ids_I
    assert item_ids_I is not None
    if rule == "lecture":
        return split_items_as_lecture(len(item_ids_I))
    return split_items(item_ids_I, seed)


def _gathered(ids_N: AnyIds, edge_I: Ids, place_J: Ids) -> Iterator[AnyIds]:
    """The items at some places, one after another; item i lies from edge i to edge i + 1."""
    total_J = np.cumsum(edge_I[place_J + 1] - edge_I[place_J])
    for place_K in np.split(place_J, np.flatnonzero(np.diff(total_J // CHUNK_TOKENS)) + 1):
        start_K = edge_I[place_K]
        length_K = edge_I[place_K + 1] - start_K
        before_K = np.cumsum(length_K) - length_K
        yield ids_N[np.repeat(start_K - before_K, length_K) + np.arange(length_K.sum())]
        release(ids_N)


def _changed(corpus: Corpus) -> MoreishError:
    return MoreishError(f"{corpus.name} changed while it was read: try again")


class TokenBuffer:
    """Tokens on their way into a run: in a file without a name, so that they take no memory, and
    nothing is left of them however it ends."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.length = 0
        self._tokenizer, self._held = tokenizer, ""
        self._dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
        self._folder = Path(tempfile.gettempdir())
        with naming_errors(self._folder):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, ids_N: AnyIds) -> None:
        """Raises OSError when the disk is full."""
        with naming_errors(self._folder):
            self._file.write(ids_N.astype(self._dtype).data)
        self.length += len(ids_N)

    def add_text(self, text: str) -> None:
        """Some more of a text; its tokens are those of the whole, wherever it was cut."""
        self._held += text
        at = self._tokenizer.safe_cut(self._held)
        if at == 0 and len(self._held) > LONGEST_WORD:
            at = len(self._held)
        held, self._held = self._held[:at], self._held[at:]
        if held:
            self.add(self._tokenizer.encode(held))

    def add_boundary(self) -> None:
        """A text ends, or an item."""
        self._end_text()
        self.add(np.array([self._tokenizer.boundary_id]))

    def _end_text(self) -> None:
        if self._held:
            held, self._held = self._held, ""
            self.add(self._tokenizer.encode(held))

    def mapped(self) -> NDArray[np.unsignedinteger]:
        """All that was added; it lasts when the spool is closed. Raises OSError as `add` does."""
        self._end_text()
        with naming_errors(self._folder):
            self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=(self.length,))


def release(ids_N: AnyIds | ShardedArray) -> None:
    """Let go of what was read of a mapped file: it counts as memory, and can be read again."""
    if isinstance(ids_N, ShardedArray):
        for shard in ids_N.shards:
            release(shard)
    elif sys.platform != "win32" and isinstance(ids_N.base, mmap.mmap):
        ids_N.base.madvise(mmap.MADV_DONTNEED)


def pieces(ids_N: AnyIds | ShardedArray) -> Iterator[AnyIds]:
    """Ids a few at a time, so that a mapped file never is in memory whole."""
    for first in range(0, len(ids_N), CHUNK_TOKENS):
        yield ids_N[first : first + CHUNK_TOKENS]
        release(ids_N)


def count_tokens(ids_N: AnyIds | ShardedArray, vocab_size: int) -> Ids:
    """(V,) how often each token occurs."""
    counts_V = np.zeros(vocab_size, np.int64)
    for ids in pieces(ids_N):
        counts_V += np.bincount(ids, minlength=vocab_size)
    return counts_V


def save_tokens(path: Path, tokens: TokenDataset) -> None:
    """Write the stream as a NumPy file, which says its own type and can be memory-mapped."""
    header, ids_N = io.BytesIO(), tokens.ids_N
    kind = np.lib.format.dtype_to_descr(ids_N.dtype)
    facts = {"descr": kind, "fortran_order": False, "shape": (len(ids_N),)}
    np.lib.format.write_array_header_2_0(header, facts)
    ids = (np.ascontiguousarray(part).data for part in pieces(ids_N))
    write_durable(path, chain([header.getvalue()], ids))


def load_tokens(
    path: Path, *, items: bool, boundary: int = BOUNDARY_ID, least: int = 2
) -> TokenDataset:
    """The stream of `least` tokens or more, memory-mapped. Raises OSError or ValueError when the
    file is no such array."""
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (
        EOFError,
        SyntaxError,
        TokenError,
        BadZipFile,
    ) as error:  # NumPy's ways to reject a header
        raise ValueError(str(error)) from None
    if (
        not isinstance(ids, np.ndarray)
        or ids.ndim != 1
        or ids.dtype.kind != "u"
        or len(ids) < least
    ):
        raise ValueError(f"{path} does not hold tokens")
    return TokenDataset(ids, items=items, boundary=boundary)


def fingerprint(tokens: TokenDataset) -> str:
    """sha256 over the ids, whatever their width on disk."""
    digest = hashlib.sha256()
    for ids in pieces(tokens.ids_N):
        digest.update(ids.astype("<u4").data)
    return digest.hexdigest()
