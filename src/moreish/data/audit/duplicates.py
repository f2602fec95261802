"""Duplicate lines, near duplicates, and lines of running text that leak from training into
validation.

Array suffixes: L lines, or keys that stand for several lines; F fields of a row.
"""

import math
import re
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moreish.data.audit.checks import Check, Finding, LineBlock, LocatedFinding, percent
from moreish.data.split import TEXT_SHARES
from moreish.data.text import MIN_UNIQUE_LINE, Corpus, normalize

MAX_KEYS = 1 << 19
"""Number of distinct lines that are remembered for exact duplicates, and again for near ones. If a
text has more, an even sample of them represents all."""

FREQUENT = 10
"""Duplicates of a line, in units of the sampling rate, from which the line is always kept: whether
a very frequent line is counted must not depend on chance."""

KEY, VARIANT, SAMPLING_HASH, WEIGHT, FIRST_LINE, NEXT_LINE, DUPLICATES, HELD_OUT, HELD_OUT_LINE = (
    range(9)
)
"""The fields of a row, which describes all lines with one key: the key itself; what distinguishes
lines with equal keys; a hash that decides whether the key is sampled; the number of keys that this
one represents; the number of its first line and of its next one (`NO_LINE` if there is none); the
number of duplicates of the first line; and how many lines are held out for validation and test, and
the number of the first of them."""

NUM_FIELDS = 9

NO_LINE = np.iinfo(np.int64).max


class LineSample:
    """A bounded table of lines, with one row for each key.

    When there are too many keys, only those are kept whose `SAMPLING_HASH` is divisible by `rate`,
    and very frequent ones. A kept key counts for all the keys that were dropped in its stead.
    """

    def __init__(self) -> None:
        self.chunks = [np.zeros((0, NUM_FIELDS), np.int64)]
        self.num_rows = 0
        self.rate = 1
        """One key out of `rate` is sampled."""
        self.frequent_keys = np.zeros(0, np.int64)
        """Sorted keys that are kept although they are not sampled."""

    def add(self, rows_LF: NDArray[np.int64]) -> None:
        """Add one row for each line."""
        is_kept_L = rows_LF[:, SAMPLING_HASH] % self.rate == 0
        if len(self.frequent_keys):
            at = np.searchsorted(self.frequent_keys, rows_LF[:, KEY])
            at = at.clip(max=len(self.frequent_keys) - 1)
            is_kept_L |= self.frequent_keys[at] == rows_LF[:, KEY]
        rows_LF = rows_LF[is_kept_L]
        rows_LF[:, WEIGHT] = self.rate
        self.chunks.append(rows_LF)
        self.num_rows += len(rows_LF)
        if self.num_rows > 2 * MAX_KEYS:
            self._shrink()

    def _shrink(self) -> None:
        """Merge rows with equal keys, then halve the sample until it is small enough."""
        rows_LF = self.merged()
        while len(rows_LF) > MAX_KEYS:
            self.rate *= 2
            is_frequent_L = rows_LF[:, DUPLICATES] >= FREQUENT * self.rate
            rows_LF[~is_frequent_L, WEIGHT] = self.rate
            rows_LF = rows_LF[is_frequent_L | (rows_LF[:, SAMPLING_HASH] % self.rate == 0)]
        self.chunks, self.num_rows = [rows_LF], len(rows_LF)
        is_unsampled_L = rows_LF[:, SAMPLING_HASH] % self.rate > 0
        self.frequent_keys = np.sort(rows_LF[is_unsampled_L, KEY])

    def merged(self) -> NDArray[np.int64]:
        """Return one row for each key."""
        rows_LF = np.concatenate(self.chunks)
        if not len(rows_LF):
            return rows_LF
        rows_LF = rows_LF[np.lexsort((rows_LF[:, FIRST_LINE], rows_LF[:, KEY]))]
        first = np.flatnonzero(np.append(True, rows_LF[1:, KEY] != rows_LF[:-1, KEY]))
        merged_LF = rows_LF[first]
        rows_per_key = np.diff(first, append=len(rows_LF))
        is_other_L = rows_LF[:, VARIANT] != np.repeat(merged_LF[:, VARIANT], rows_per_key)
        merged_LF[:, DUPLICATES] = np.add.reduceat(rows_LF[:, DUPLICATES] + is_other_L, first)
        merged_LF[:, HELD_OUT] = np.add.reduceat(rows_LF[:, HELD_OUT], first)
        merged_LF[:, HELD_OUT_LINE] = np.minimum.reduceat(rows_LF[:, HELD_OUT_LINE], first)
        next_L = np.where(is_other_L, rows_LF[:, FIRST_LINE], rows_LF[:, NEXT_LINE])
        merged_LF[:, NEXT_LINE] = np.minimum.reduceat(next_L, first)
        return merged_LF


class DuplicateCheck(Check):
    """Looks for duplicate lines, near duplicates, and leakage between the splits."""

    def __init__(self, corpus: Corpus, *, is_complete: bool) -> None:
        self.kind = corpus.kind
        self.exact, self.near = LineSample(), LineSample()
        # Leakage is only known for a complete text. In a list, copies of an item belong to what is
        # predicted: splits are made item by item.
        self.held_out_from = math.inf
        if is_complete and corpus.kind == "text":
            self.held_out_from = TEXT_SHARES[0] * corpus.stats.characters

    def update(self, block: LineBlock) -> None:
        min_length = 1 if self.kind == "lines" else MIN_UNIQUE_LINE
        numbers, stripped, held_out = [], [], []
        offset, last = block.offset, len(block.lines) - 1
        for index, line in enumerate(block.lines):
            is_part = (block.starts_inside and index == 0) or (block.ends_inside and index == last)
            text = line.strip()
            if not is_part and len(text) >= min_length:
                numbers.append(block.first + index)
                stripped.append(text)
                held_out.append(offset >= self.held_out_from)
            offset += len(line) + 1
        rows_LF = np.zeros((len(numbers), NUM_FIELDS), np.int64)
        rows_LF[:, FIRST_LINE] = numbers
        rows_LF[:, NEXT_LINE] = NO_LINE
        rows_LF[:, HELD_OUT] = held_out
        rows_LF[:, HELD_OUT_LINE] = np.where(held_out, rows_LF[:, FIRST_LINE], NO_LINE)
        _set_keys(rows_LF, stripped)
        exact_keys_L = rows_LF[:, KEY].copy()
        rows_LF[:, VARIANT] = rows_LF[:, FIRST_LINE]  # every equal line is a duplicate
        self.exact.add(rows_LF)
        # A line without letters is compared as it is.
        _set_keys(rows_LF, [_simplify(text) or text for text in stripped])
        rows_LF[:, VARIANT] = exact_keys_L
        self.near.add(rows_LF)

    def findings(self) -> Iterator[LocatedFinding]:
        is_text = self.kind == "text"
        lines = f"lines of {MIN_UNIQUE_LINE} characters or more" if is_text else "lines"
        rows_LF, near_LF = self.exact.merged(), self.near.merged()
        weight_L, duplicates_L, held_out_L = (rows_LF[:, c] for c in (WEIGHT, DUPLICATES, HELD_OUT))
        if count := int(weight_L @ duplicates_L):
            total = int(weight_L @ (duplicates_L + 1))
            is_frequent = count > total / 10
            finding = Finding(
                name="duplicates",
                description=f"{lines} that duplicate an earlier line",
                count=count,
                is_estimate=self.exact.rate > 1,
                fix="--dedup",
                loss=""
                if is_text or not is_frequent
                else f"leaves {total - count:,} of {total:,} items",
                severity="warning" if is_text and is_frequent else "note",
            )
            yield finding, int(rows_LF[:, NEXT_LINE].min())
        if count := int(near_LF[:, WEIGHT] @ near_LF[:, DUPLICATES]):
            finding = Finding(
                name="near duplicates",
                description=f"{lines} that differ from an earlier line only in case, accents, "
                "digits, spaces or punctuation",
                count=count,
                is_estimate=self.near.rate > 1,
            )
            yield finding, int(near_LF[:, NEXT_LINE].min())
        is_leaked_L = (held_out_L > 0) & (held_out_L <= duplicates_L)
        if count := int(weight_L[is_leaked_L] @ held_out_L[is_leaked_L]):
            share = count / int(weight_L @ held_out_L)
            finding = Finding(
                name="leakage",
                description=f"{lines} in the last 10% of the text, which is held out, that also "
                f"occur in training ({percent(share)} of the held-out lines)",
                count=count,
                is_estimate=self.exact.rate > 1,
                fix="--dedup",
                severity="warning" if share > 0.05 else "note",
            )
            yield finding, int(rows_LF[is_leaked_L, HELD_OUT_LINE].min())


def _set_keys(rows_LF: NDArray[np.int64], texts: list[str]) -> None:
    rows_LF[:, KEY] = np.fromiter(map(hash, texts), np.int64, len(texts))
    # Python's string hashes differ between processes; the sample must not.
    rows_LF[:, SAMPLING_HASH] = [zlib.crc32(text.encode("utf-8", "replace")) for text in texts]


def _simplify(line: str) -> str:
    """Remove what near duplicates may differ in: case, accents, digits, punctuation, whitespace."""
    folded = line.casefold()
    if not folded.isascii():
        folded = normalize("NFD", folded)
    return NO_LETTER.sub("", folded)


NO_LETTER = re.compile(r"[\s\d_!-/:-@\[-`{-~\u00a0-\u00bf\u0300-\u036f\u2000-\u206f\u3000-\u303f]+")
"""Combining marks of other scripts are vowels, which do distinguish words."""
