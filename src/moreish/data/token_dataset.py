"""Token streams, the windows that models read of them, and their files.

B batch, T time (positions), N tokens of a stream, W windows, I items or segments, V vocabulary.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreish.data.sharded_array import ShardedArray, release_pages
from moreish.tokenizers import BOUNDARY_ID, Ids
from moreish.utils.files import write_durable

IGNORE_INDEX = -1
"""Target of a position that has no loss: padding, or context only."""

CHUNK_TOKENS = 1 << 20
"""Number of tokens that are processed at a time."""

AnyIds = NDArray[np.integer]
"""Token ids of any integer type."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Input tokens, and for each position the next token as target (or `IGNORE_INDEX`)."""

    tokens_BT: Tensor
    targets_BT: Tensor
    start_B: Ids | None = None
    """Position in the stream at which each row starts, for rows of a stream."""
    counts_BT: Tensor | None = None
    """Number of times that each prediction occurs in the text, if that was counted."""

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device; the copy to a GPU is asynchronous."""

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if device.type == "cuda":  # an asynchronous copy needs pinned memory
                value = value.pin_memory()
            return value.to(device, non_blocking=True)

        return self._map(move)

    def split(self, count: int) -> "list[Batch]":
        """Split the rows into `count` micro-batches of similar size (at least one row each)."""
        rows = np.array_split(np.arange(len(self.tokens_BT)), min(count, len(self.tokens_BT)))
        return [self[part[0] : part[-1] + 1] for part in rows]

    def __getitem__(self, rows: slice) -> "Batch":
        """Return the batch of some of the rows."""
        return self._map(lambda value: None if value is None else value[rows])

    def _map(self, change: Callable[[Any], Any]) -> "Batch":
        return Batch(**{each.name: change(getattr(self, each.name)) for each in fields(self)})

    @cached_property
    def num_targets(self) -> int:
        """Number of predictions that the loss is averaged over."""
        if self.counts_BT is not None:
            return int(self.counts_BT.sum())
        return int((self.targets_BT != IGNORE_INDEX).sum())


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of a token stream.

    A window of length n reads n tokens and predicts the token after each of them. Its first `skip`
    predictions have no loss: they only provide context for the others.
    """

    start_W: Ids
    length_W: Ids
    skip_W: Ids

    def __len__(self) -> int:
        return len(self.start_W)

    def __getitem__(self, chosen: Ids | slice) -> "Windows":
        return Windows(
            start_W=self.start_W[chosen], length_W=self.length_W[chosen], skip_W=self.skip_W[chosen]
        )


class TokenStream(Protocol):
    """Training examples without end."""

    def tokens(self, seed: int, first: int, number: int) -> "TokenDataset":
        """Return `number` examples, from the one with the number `first` on; they depend on nothing
        else."""


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """One split as a token stream: items between boundaries (`· a n n · b o b ·`), or running
    text."""

    ids_N: NDArray[np.unsignedinteger] | ShardedArray
    items: bool
    """Whether the stream is a list of items, which are modeled independently of each other."""
    boundary: int = BOUNDARY_ID
    """Token between items."""
    separator: int | None = None
    """Token between the input and the target of an item, where items are examples: only what
    follows it is predicted."""
    predicts_end: bool = True
    """Whether the boundary after the target of an example is predicted; a label has no end."""
    masks_inputs: bool = True
    """Whether the inputs of examples have no loss."""
    stream: TokenStream | None = None
    """Where training examples are drawn from, if these here are only a sample of them."""

    @property
    def num_predictions(self) -> int:
        """Number of tokens to predict: all but the first."""
        return len(self.ids_N) - 1

    @cached_property
    def boundaries(self) -> Ids:
        """Positions of the boundary tokens; item i lies between boundaries i and i + 1."""
        assert self.items
        return np.flatnonzero(self.ids_N == self.boundary)

    @cached_property
    def longest_item(self) -> int:
        """Length of the longest item in tokens, without its boundaries."""
        return int(np.diff(self.boundaries).max()) - 1

    @cached_property
    def separators(self) -> Ids:
        """Positions of the separators, one for each example."""
        return np.flatnonzero(self.ids_N == self.separator)

    @cached_property
    def longest_target(self) -> int:
        """Predictions of the longest target, with its end."""
        return int((self.boundaries[1:] - self.separators).max()) - (not self.predicts_end)

    @cached_property
    def target_mask(self) -> NDArray[np.bool_]:
        """Whether each token but the first is predicted, (predictions,), where items are
        examples."""
        change_N = np.zeros(self.num_predictions + 1, dtype=np.int8)
        change_N[self.separators] = 1
        change_N[self.boundaries[1:] - (not self.predicts_end)] -= 1
        return np.cumsum(change_N[:-1], dtype=np.int8) > 0

    @property
    def num_targets(self) -> int:
        """Number of tokens that are predicted: all but the first, or those of targets."""
        return self.num_predictions if self.separator is None else int(self.target_mask.sum())

    def item(self, index: int) -> Ids:
        """Return the tokens of an item, without its boundaries."""
        first, last = self.boundaries[index], self.boundaries[index + 1]
        return self.ids_N[first + 1 : last].astype(np.int64)

    def segments(self) -> tuple[Ids, Ids]:
        """Return the start and number of predictions of each segment: an item, or all text."""
        if not self.items:
            return np.array([0]), np.array([self.num_predictions])
        return self.boundaries[:-1], np.diff(self.boundaries)

    def sample(self, max_predictions: int, block: int) -> "TokenDataset":
        """Return items, or blocks of running text, that are spread evenly over a larger split and
        together have about `max_predictions` predictions; the split itself if it has no more.

        Args:
            max_predictions: number of predictions.
            block: length of a block of running text in tokens. Where two blocks meet, a token has
                the context of another place.
        """
        share = max_predictions / self.num_predictions
        if share >= 1:
            return self
        if self.items:
            start_I, length_I = self.segments()
            start_I = start_I + 1  # the boundary before an item is that of the item before
        else:
            start_I = np.arange(0, len(self.ids_N) - block + 1, block)
            length_I = np.full(len(start_I), block)
        count = max(1, round(share * len(start_I)))
        chosen = np.linspace(0, len(start_I) - 1, count).round().astype(np.int64)
        parts = [
            self.ids_N[start : start + length]
            for start, length in zip(start_I[chosen], length_I[chosen], strict=True)
        ]
        if self.items:
            parts.insert(0, self.ids_N[:1])
        return replace(self, ids_N=np.concatenate(parts))

    def item_hashes(self) -> NDArray[np.uint64]:
        """Return (I,) a hash of each item of a list."""
        start_I, length_I = self.segments()
        factors = np.random.default_rng(0).integers(
            2**63, size=int(length_I.max()), dtype=np.uint64
        )
        hash_I = np.empty(len(start_I), np.uint64)
        chunks = np.arange(0, self.num_predictions, CHUNK_TOKENS)
        edges = np.searchsorted(start_I, chunks).tolist()
        for first, last in pairwise([*edges, len(start_I)]):
            start_K, length_K = start_I[first:last], length_I[first:last]
            if not len(start_K):  # the chunk lies within one long item
                continue
            begin, end = int(start_K[0]), int(start_K[-1] + length_K[-1])
            offset_P = np.arange(begin, end) - np.repeat(start_K, length_K)
            # Products wrap around, which mixes the high bits.
            mixed_P = self.ids_N[begin + 1 : end + 1].astype(np.uint64) + np.uint64(1)
            sums_K = np.add.reduceat(mixed_P * factors[offset_P], start_K - begin)
            hash_I[first:last] = sums_K >> np.uint64(32)
        return hash_I

    def windows(self, max_length: int, overlap: int = 0) -> Windows:
        """Cut the stream into windows that together predict every token exactly once.

        A window never crosses a segment. Segments longer than `max_length` are cut; every window
        of a segment but the first then starts with up to `overlap` tokens that only give context.

        Args:
            max_length: largest length of a window in tokens.
            overlap: tokens that a window shares with the one before it, fewer than `max_length`.
        """
        if self.separator is not None:
            return self._example_windows(overlap or max(0, max_length - self.longest_target))
        step = max_length - overlap
        assert step > 0
        start_I, length_I = self.segments()
        # The first window of a segment predicts max_length tokens, each further one `step` more.
        windows_I = 1 + np.maximum(0, -((max_length - length_I) // step))
        segment_W = np.repeat(np.arange(len(start_I)), windows_I)
        number_W = np.arange(len(segment_W)) - np.repeat(
            np.cumsum(windows_I) - windows_I, windows_I
        )
        offset_W = number_W * step
        return Windows(
            start_W=start_I[segment_W] + offset_W,
            length_W=np.minimum(max_length, length_I[segment_W] - offset_W),
            skip_W=np.where(number_W > 0, overlap, 0),
        )

    def _example_windows(self, max_input: int) -> Windows:
        """Return one window for each example, with no loss on its input, of which the beginning is
        left out where there are more than `max_input` tokens before the separator."""
        first_I, separator_I = self.boundaries[:-1], self.separators
        start_I = np.maximum(first_I, separator_I - max_input)
        end_I = self.boundaries[1:] - (not self.predicts_end)
        skip_I = separator_I - start_I if self.masks_inputs else np.zeros_like(start_I)
        return Windows(start_W=start_I, length_W=end_I - start_I, skip_W=skip_I)

    def gather(self, windows: Windows) -> Batch:
        """Read windows as the rows of a batch, padded at the end to the longest."""
        length = int(windows.length_W.max())
        position_BT = windows.start_W[:, None] + np.arange(length)
        inside_BT = np.arange(length) < windows.length_W[:, None]
        scored_BT = inside_BT & (np.arange(length) >= windows.skip_W[:, None])
        position_BT = np.where(inside_BT, position_BT, 0)
        next_BT = self.ids_N[position_BT + 1].astype(np.int64)
        return Batch(
            tokens_BT=torch.from_numpy(self.ids_N[position_BT].astype(np.int64)),
            targets_BT=torch.from_numpy(np.where(scored_BT, next_BT, IGNORE_INDEX)),
            start_B=windows.start_W,
        )


def iter_chunks(ids_N: AnyIds | ShardedArray) -> Iterator[AnyIds]:
    """Iterate over token ids in chunks, so that a memory-mapped file is never fully in memory."""
    for first in range(0, len(ids_N), CHUNK_TOKENS):
        yield ids_N[first : first + CHUNK_TOKENS]
        release_pages(ids_N)


def count_tokens(ids_N: AnyIds | ShardedArray, vocab_size: int) -> Ids:
    """Return how often each token occurs, (V,)."""
    counts_V = np.zeros(vocab_size, np.int64)
    for ids in iter_chunks(ids_N):
        counts_V += np.bincount(ids, minlength=vocab_size)
    return counts_V


def fingerprint(tokens: TokenDataset) -> str:
    """Return the sha256 of the token ids as 32-bit integers, whatever their type."""
    digest = hashlib.sha256()
    for ids in iter_chunks(tokens.ids_N):
        digest.update(ids.astype("<u4").data)
    return digest.hexdigest()


def npy_header(dtype: np.dtype, length: int) -> bytes:
    """Return the header of a one-dimensional NumPy file; its size does not depend on the length."""
    layout: dict[str, Any] = {"fortran_order": False, "shape": (length,)}
    layout["descr"] = np.lib.format.dtype_to_descr(dtype)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, layout)
    return buffer.getvalue()


def save_tokens(path: Path, tokens: TokenDataset) -> None:
    """Write a token stream as a NumPy file, which can be memory-mapped.

    Raises:
        OSError: the disk is full, or the like.
    """
    header = npy_header(tokens.ids_N.dtype, len(tokens.ids_N))
    ids = (np.ascontiguousarray(part).data for part in iter_chunks(tokens.ids_N))
    write_durable(path, chain([header], ids))


def load_tokens(
    path: Path, *, items: bool, boundary: int = BOUNDARY_ID, min_tokens: int = 2
) -> TokenDataset:
    """Memory-map a file that `save_tokens` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a NumPy file of at least `min_tokens` unsigned integers.
    """
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, SyntaxError, TokenError, BadZipFile) as error:  # of a damaged header
        raise ValueError(str(error)) from None
    is_array = isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind == "u"
    if not is_array or len(ids) < min_tokens:
        raise ValueError(f"{path} does not hold tokens")
    return TokenDataset(ids, items=items, boundary=boundary)
