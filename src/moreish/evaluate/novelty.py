"""Novelty: which part of a text is in the training data, and which item is nearest to it."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moreish.utils.extras import import_extra

CONTEXT_BYTES = 40
"""Bytes shown before and after an overlap."""


class TrainingIndex:
    """The data of a run, all splits; `text in index` says whether a text is in it.

    An item must equal one of the data; running text must be a substring. An empty text always is
    in the data. Texts are compared as UTF-8, since one text may have several tokenizations.
    """

    def __init__(self, texts: Iterable[bytes], *, items: bool) -> None:
        """`items`: whether each line of a text is an item."""
        self._items: set[bytes] = set()
        self._texts: list[bytes] = []
        for text in texts:
            if items:
                self._items.update(text.split(b"\n"))
            else:
                self._texts.append(text)

    def __contains__(self, text: bytes) -> bool:
        return not text or text in self._items or any(text in data for data in self._texts)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The longest part of a text that is in the data."""

    text: str
    place: int
    """Offset of one occurrence in the data, in bytes."""


@dataclass(frozen=True, kw_only=True)
class TextNovelty:
    """How much of a text is in the training data."""

    text: str
    known: bool
    """Whether all of it is in the data."""
    overlap: str
    """Its longest part that is in the data."""
    place: int
    """The line of the data where that part begins, from 1; 0 if there is none."""
    passage: str
    """That line, cut around the overlap."""
    nearest: str | None
    """The item with the smallest edit distance."""
    distance: int | None
    """That distance."""


class OverlapIndex:
    """Finds the longest overlaps of texts with the data, by binary search in a suffix array of its
    bytes (Manber and Myers 1993), which is built in linear time."""

    def __init__(self, data: bytes) -> None:
        """Takes five bytes of memory for each byte of `data`.

        Raises:
            MoreishError: the library that sorts suffixes is not installed.
        """
        library = import_extra("pydivsufsort", "analysis", "finding overlaps")
        self._data, self._suffixes = data, library.divsufsort(data)

    def longest_overlap(self, text: str) -> Overlap:
        """Return the longest common substring of `text` and the data; empty if there is none."""
        target = text.encode("utf-8", "surrogatepass")
        best, best_at, best_place = 0, 0, 0
        for at in range(len(target)):
            if len(target) - at <= best:
                break
            if _is_continuation(target[at]) or not self._contains(target[at : at + best + 1]):
                continue
            length, place = self._match(target[at:])
            if length > best:
                best, best_at, best_place = length, at, place
        piece = target[best_at : best_at + best].decode("utf-8", "surrogatepass")
        return Overlap(text=piece, place=best_place)

    def locate(self, overlap: Overlap) -> tuple[int, str]:
        """Return the number of the line where an overlap begins, from 1, and that line, cut around
        the overlap; 0 and an empty text for an empty overlap."""
        if not overlap.text:
            return 0, ""
        data, at = self._data, overlap.place
        end = at + len(overlap.text.encode("utf-8", "surrogatepass"))
        after = data.find(b"\n", end)
        first = max(data.rfind(b"\n", 0, at) + 1, at - CONTEXT_BYTES)
        last = min(len(data) if after < 0 else after, end + CONTEXT_BYTES)
        return data.count(b"\n", 0, at) + 1, data[first:last].decode("utf-8", "replace")

    def _contains(self, piece: bytes) -> bool:
        """Return whether the data contain `piece`."""
        return piece in (self._suffix(i, len(piece)) for i in self._neighbors(piece))

    def _match(self, target: bytes) -> tuple[int, int]:
        """Return the length and the place of the longest prefix of `target` in the data."""
        best, place = 0, 0
        for neighbor in self._neighbors(target):
            suffix = self._suffix(neighbor, len(target))
            shared = next((i for i, b in enumerate(suffix) if b != target[i]), len(suffix))
            while shared < len(target) and _is_continuation(target[shared]):
                shared -= 1  # whole characters only
            if shared > best:
                best, place = shared, int(self._suffixes[neighbor])
        return best, place

    def _neighbors(self, target: bytes) -> Iterator[int]:
        """Yield the indices of the suffixes that sort just before and after `target`."""
        after = bisect_left(
            range(len(self._suffixes)), target, key=lambda i: self._suffix(i, len(target))
        )
        yield from (i for i in (after - 1, after) if 0 <= i < len(self._suffixes))

    def _suffix(self, index: int, length: int) -> bytes:
        start = int(self._suffixes[index])
        return self._data[start : start + length]


class NearestItemIndex:
    """Finds the nearest item of a list by edit distance (Levenshtein 1966)."""

    def __init__(self, items: Iterable[str]) -> None:
        """Raises MoreishError when the library that computes distances is not installed."""
        extra, what = "analysis", "finding the nearest item"
        self._extract = import_extra("rapidfuzz.process", extra, what).extractOne
        self._distance = import_extra("rapidfuzz.distance", extra, what).Levenshtein.distance
        self._by_length: dict[int, list[str]] = {}
        for item in items:
            self._by_length.setdefault(len(item), []).append(item)

    def nearest(self, text: str) -> tuple[str, int]:
        """Return an item with the smallest edit distance to `text`, and that distance.

        Items of similar length are searched first; the search stops at lengths that differ by as
        much as the best distance so far.
        """
        nearest, best = "", len(text) + max(self._by_length) + 1
        for length in sorted(self._by_length, key=lambda n: (abs(n - len(text)), n)):
            if abs(length - len(text)) >= best:
                break
            items = self._by_length[length]
            found = self._extract(text, items, scorer=self._distance, score_cutoff=best - 1)
            if found is not None:
                nearest, best, _ = found
        return nearest, best


def _is_continuation(byte: int) -> bool:
    """Return whether a UTF-8 byte is not the first of a character."""
    return byte & 0b1100_0000 == 0b1000_0000
