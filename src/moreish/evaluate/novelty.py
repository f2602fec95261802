"""What stands in the data already, word for word."""

from collections.abc import Iterable

import numpy as np

from moreish.data.tokens import Tokens
from moreish.tokenizers.base import Ids


class Known:
    """The data that a run was made of, all splits of it; `ids in known` asks if it holds a text.

    An item is known if it equals one; running text, if it stands anywhere in one piece.
    """

    def __init__(self, splits: Iterable[Tokens]) -> None:
        self._items: set[bytes] = set()
        self._texts: list[bytes] = []
        for split in splits:
            if split.items:
                ids = split.ids_N.astype("<u4")
                edges = zip(split.boundaries[:-1] + 1, split.boundaries[1:], strict=True)
                self._items.update(ids[first:last].tobytes() for first, last in edges)
            else:
                self._texts.append(split.ids_N.astype("<u4").tobytes())

    def __contains__(self, ids: Ids) -> bool:
        wanted = np.asarray(ids).astype("<u4").tobytes()
        return wanted in self._items or any(_stands_in(wanted, text) for text in self._texts)


def _stands_in(wanted: bytes, text: bytes) -> bool:
    """Whether the tokens of `wanted` stand in `text`: four bytes each, so places are in fours."""
    at = text.find(wanted)
    while at % 4 and at >= 0:
        at = text.find(wanted, at + 1)
    return at >= 0
