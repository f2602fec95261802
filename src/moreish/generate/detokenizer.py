"""Incremental detokenization: from the bytes of tokens to text that can be sent to a client."""

import codecs
from collections.abc import Sequence

MAX_UTF8_BYTES = 4
"""Length of the longest UTF-8 character."""


class StreamDetokenizer:
    """Decodes bytes as they arrive and holds back text that is not final yet.

    An incomplete character is held back, and so is text that may become a stop string.

    >>> text = StreamDetokenizer(["the end"])
    >>> [text.add(raw) for raw in (b"and th", b"e", b"n the", b" end of it")]
    ['and ', '', 'then ', '']
    >>> text.stopped
    True
    """

    def __init__(self, stop_strings: Sequence[str] = (), *, after: bytes = b"") -> None:
        """
        Args:
            stop_strings: the text ends before the first of these; empty ones are ignored.
            after: bytes before the text; a character that begins in them is returned complete.
        """
        self.stop_strings = [stop for stop in stop_strings if stop]
        self.stopped = False
        """Whether a stop string was found."""
        self.num_released = 0
        """Characters that were returned so far."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder.decode(after[-MAX_UTF8_BYTES:])
        self._held = ""

    @property
    def num_decoded(self) -> int:
        """Complete characters so far, returned or held back."""
        return self.num_released + len(self._held)

    def add(self, raw: bytes) -> str:
        """Decode the next bytes and return the text that is final now."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(raw)
        found = [at for stop in self.stop_strings if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._possible_stop_length())

    def finish(self) -> str:
        """Return the text that was held back; an incomplete character at the end is dropped."""
        return "" if self.stopped else self._release(len(self._held))

    def _possible_stop_length(self) -> int:
        """Return the number of characters at the end with which a stop string may begin."""
        longest = max(map(len, self.stop_strings), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stop_strings):
                return size
        return 0

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self.num_released += count
        return text
