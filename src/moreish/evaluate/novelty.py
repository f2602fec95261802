"""What stands in the data already, word for word."""

from collections.abc import Iterable
from dataclasses import dataclass

from moreish.errors import MoreishError

AROUND = 40
"""Bytes before and after a shared piece that are shown with it."""


class TrainingIndex:
    """The data that a run was made of, all splits of it; `text in known` asks if it holds a text.

    An item is known if it equals one; running text, if it stands anywhere in one piece. That there
    is nothing is known of any data. All texts are UTF-8: one text may be written in many tokens.
    """

    def __init__(self, texts: Iterable[bytes], *, items: bool) -> None:
        """`items`: each line of a text is one."""
        self._items: set[bytes] = set()
        self._texts: list[bytes] = []
        for text in texts:
            if items:
                self._items.update(text.split(b"\n"))
            else:
                self._texts.append(text)

    def __contains__(self, text: bytes) -> bool:
        return not text or text in self._items or any(text in known for known in self._texts)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The longest piece of a text that stands in the data, word for word."""

    text: str
    place: int
    """Of its first occurrence found, in bytes of the data."""


@dataclass(frozen=True, kw_only=True)
class TextNovelty:
    """What a text owes to the training data."""

    text: str
    known: bool
    """It stands there whole."""
    overlap: str
    """Its longest piece that stands there."""
    place: int
    """The line of the training data where that piece stands, from 1; 0 if there is none."""
    passage: str
    """That line, or as much of it as lies around the piece."""
    nearest: str | None
    """The item with the fewest edits to it, and how many those are."""
    distance: int | None


class OverlapIndex:
    """Finds what texts share with the data: a suffix array (Manber and Myers 1993) over the bytes
    of the data, built once in linear time, so that a look-up is a binary search."""

    def __init__(self, data: bytes) -> None:
        """Five bytes of memory for each byte of `data`.

        Raises:
            MoreishError: the library that sorts suffixes is not installed.
        """
        try:
            from pydivsufsort import divsufsort
        except ImportError:
            raise MoreishError(
                "finding overlaps needs a library: pip install 'moreish[analysis]'"
            ) from None
        self._data = data
        self._suffixes = divsufsort(data)

    def longest_overlap(self, text: str) -> Overlap:
        """The longest common piece of `text` and the data; empty if they share no character."""
        wanted = text.encode("utf-8", "surrogatepass")
        best, best_at, best_place = 0, 0, 0
        for at in range(len(wanted)):
            if len(wanted) - at <= best:
                break
            if _continues(wanted[at]) or not self._stands(wanted[at : at + best + 1]):
                continue
            length, place = self._match(wanted[at:])
            if length > best:
                best, best_at, best_place = length, at, place
        piece = wanted[best_at : best_at + best].decode("utf-8", "surrogatepass")
        return Overlap(text=piece, place=best_place)

    def locate(self, overlap: Overlap) -> tuple[int, str]:
        """The line of the data on which an overlap begins, from 1, and as much of that line as lies
        around it; 0 and nothing for an empty one."""
        if not overlap.text:
            return 0, ""
        data, at = self._data, overlap.place
        end = at + len(overlap.text.encode("utf-8", "surrogatepass"))
        after = data.find(b"\n", end)
        first = max(data.rfind(b"\n", 0, at) + 1, at - AROUND)
        last = min(len(data) if after < 0 else after, end + AROUND)
        return data.count(b"\n", 0, at) + 1, data[first:last].decode("utf-8", "replace")

    def _stands(self, piece: bytes) -> bool:
        """Whether it stands in the data."""
        low = self._before(piece)
        if low == len(self._suffixes):
            return False
        start = int(self._suffixes[low])
        return self._data[start : start + len(piece)] == piece

    def _before(self, wanted: bytes) -> int:
        """How many suffixes come before `wanted`, and before all that begin with it."""
        low, high = 0, len(self._suffixes)
        while low < high:
            middle = (low + high) // 2
            start = int(self._suffixes[middle])
            if self._data[start : start + len(wanted)] < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _match(self, wanted: bytes) -> tuple[int, int]:
        """Length and place of the longest prefix of `wanted` in the data."""
        low = self._before(wanted)
        best, place = 0, 0
        for neighbour in (low - 1, low):
            if 0 <= neighbour < len(self._suffixes):
                start = int(self._suffixes[neighbour])
                shared = _common(self._data[start : start + len(wanted)], wanted)
                while shared < len(wanted) and _continues(wanted[shared]):
                    shared -= 1  # half a character is none
                if shared > best:
                    best, place = shared, start
        return best, place


class NearestItemIndex:
    """Finds the nearest item of a list by edit distance (Levenshtein 1966)."""

    def __init__(self, items: Iterable[str]) -> None:
        """Raises MoreishError when the library that reckons distances is not installed."""
        try:
            from rapidfuzz.distance import Levenshtein
            from rapidfuzz.process import extractOne
        except ImportError:
            raise MoreishError(
                "finding the nearest item needs a library: pip install 'moreish[analysis]'"
            ) from None
        self._extract, self._distance = extractOne, Levenshtein.distance
        self._by_length: dict[int, list[str]] = {}
        for item in items:
            self._by_length.setdefault(len(item), []).append(item)

    def nearest(self, text: str) -> tuple[str, int]:
        """An item with the fewest insertions, deletions and replacements of a character to `text`,
        and how many those are.

        The likeliest lengths come first; one that differs by as much as the best distance so far
        holds nothing nearer.
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


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 stands inside a character."""
    return byte & 0b1100_0000 == 0b1000_0000


def _common(a: bytes, b: bytes) -> int:
    """How many bytes two strings begin with in common."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
