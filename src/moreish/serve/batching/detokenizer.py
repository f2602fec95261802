"""The bytes of tokens to text that may be shown."""

import codecs
from collections.abc import Sequence

LONGEST = 4
"""Bytes of a character."""


def decode_complete(raw: bytes) -> str:
    """The text of some bytes, without half a character at their end."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(raw)


class StreamDetokenizer:
    """Text as far as it is sure: no half character, and nothing that may yet become a stop string.

    >>> text = Unfolding(["the end"])
    >>> [text.add(piece) for piece in (b"and th", b"e", b"n the", b" end of it")]
    ['and ', '', 'then ', '']
    >>> text.stopped
    True
    """

    def __init__(self, stops: Sequence[str] = (), *, after: bytes = b"") -> None:
        """`after`: what stood before; a character that began there is shown whole."""
        self.stops = [stop for stop in stops if stop]
        self.stopped = False
        """Whether a stop string was found; what was shown ends before it."""
        self.shown = 0
        """Characters."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder.decode(after[-LONGEST:])
        self._held = ""

    @property
    def length(self) -> int:
        """Characters that are whole, shown or held back."""
        return self.shown + len(self._held)

    def add(self, raw: bytes) -> str:
        """What can be shown now that `raw` has come."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(raw)
        found = [at for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._perhaps_a_stop())

    def end(self) -> str:
        """What was held back, now that nothing more comes; half a character is left out."""
        return "" if self.stopped else self._release(len(self._held))

    def _perhaps_a_stop(self) -> int:
        """Characters at the end with which a stop string may begin."""
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stops):
                return size
        return 0

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self.shown += count
        return text
