"""What attention remembers: keys and values of what was read, with room for what comes.

B batch, H heads, T new positions, S positions seen, R positions that there is room for, D head
width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from moreish.models.layers import rotate, rotation

LEAST_ROOM = 64
"""Positions. It doubles whenever it is full, so that hardly ever something is copied."""


class Cache(NamedTuple):
    """Keys and values of one layer, each (B, H, R, D): the first `end` positions are filled.

    Later caches share its tensors and fill what comes after; `written` says how far they are.
    """

    keys_BHRD: Tensor
    values_BHRD: Tensor
    end: int
    written: list[int]

    @classmethod
    def of(cls, keys_BHTD: Tensor, values_BHTD: Tensor) -> "Cache":
        """Without room for more."""
        end = keys_BHTD.shape[2]
        return cls(keys_BHTD, values_BHTD, end, [end])

    def add(self, keys_BHTD: Tensor, values_BHTD: Tensor) -> "Cache":
        """With new positions, for which `with_room` has made room."""
        new = keys_BHTD.shape[2]
        self.keys_BHRD.narrow(2, self.end, new).copy_(keys_BHTD)
        self.values_BHRD.narrow(2, self.end, new).copy_(values_BHTD)
        self.written[0] = self.end + new
        return Cache(self.keys_BHRD, self.values_BHRD, self.end + new, self.written)

    def since(self, begin: int) -> tuple[Tensor, Tensor]:
        """Keys and values from a position on, each (B, H, S, D)."""
        seen = self.end - begin
        return self.keys_BHRD.narrow(2, begin, seen), self.values_BHRD.narrow(2, begin, seen)


class GPTState(NamedTuple):
    """The last tokens that may be needed again, and keys and values layer by layer."""

    tokens_BS: Tensor
    caches: list[Cache]


def with_room(caches: list[Cache], new: int, context: int, *, rotary: bool) -> list[Cache]:
    """The caches of all layers with room for `new` positions more.

    They stay where they are if they can: nobody has gone on from them yet, and no gradient needs
    them as they were. Else what the new positions can still see is copied, and turned back to the
    first places, so that places, and with them the errors of rounding, do not grow without bound.

    Args:
        context: positions that each position can see, itself included.
    """
    keys_BHRD, _, end, written = caches[0]
    untouched = written[0] == end and torch.is_inference_mode_enabled()
    if untouched and end + new <= keys_BHRD.shape[2]:
        return caches
    kept = min(end, context - 1)
    # Rotary positions slide through twice the context before they are copied; others never slide.
    room = min(max(LEAST_ROOM, 2 * (kept + new)), 2 * context if rotary else context)
    back = rotation(torch.tensor([kept - end], device=keys_BHRD.device), keys_BHRD.shape[-1])
    copies = []
    for cache in caches:
        keys_BHSD, values_BHSD = cache.since(end - kept)
        if rotary and kept < end:
            keys_BHSD = rotate(keys_BHSD, back)
        copied = Cache(_empty(keys_BHSD, room), _empty(values_BHSD, room), 0, [0])
        copies.append(copied.add(keys_BHSD, values_BHSD))
    return copies


def _empty(like_BHSD: Tensor, room: int) -> Tensor:
    batch, heads, _, width = like_BHSD.shape
    return like_BHSD.new_empty(batch, heads, room, width)
