"""What attention remembers: keys and values of what was read, with room for what comes.

B batch, L layers, H heads of keys or values, T new positions, S positions seen, R positions that
there is room for, D head width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moreish.models.gpt.layers import apply_rope, rope_table

LEAST_ROOM = 64
"""Positions. It doubles whenever it is full, so that hardly ever something is copied."""

Layers = Float[Tensor, "B L H R D"] | list[Float[Tensor, "B H R D"]]
"""Keys or values of all layers: one tensor where it can be, so that all are cut at once."""


class CacheView(NamedTuple):
    """What one layer needs of the cache for its new positions: where their keys and values go, and
    those of all that they can see, once they are there."""

    new_keys_BHTD: Tensor
    new_values_BHTD: Tensor
    keys_BHSD: Tensor
    values_BHSD: Tensor

    def filled(self, keys_BHTD: Tensor, values_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, once those of the new positions are there."""
        self.new_keys_BHTD.copy_(keys_BHTD)
        self.new_values_BHTD.copy_(values_BHTD)
        return self.keys_BHSD, self.values_BHSD


CacheViews = CacheView | Sequence[CacheView] | None
"""Of one layer: for all rows, for each row its own (they are of different lengths), or none, where
there is no past."""


class Cache(NamedTuple):
    """Keys and values of all layers, of which the first `end` positions are filled.

    Later caches share its tensors and fill what comes after; `written` says how far they are.
    """

    keys: Layers
    values: Layers
    end: int
    written: list[int]

    @classmethod
    def of(cls, read: list[tuple[Tensor, Tensor]]) -> "Cache":
        """Of what each layer has read first, without room for more."""
        keys, values = map(list, zip(*read, strict=True))
        end = keys[0].shape[2]
        return cls(keys, values, end, [end])

    def views(self, new: int, context: int) -> "tuple[list[CacheView], Cache]":
        """A view for each layer and `new` positions (call `ensure_capacity` first), and the cache
        as it is once every layer has filled its view."""
        begin, end = max(0, self.end + 1 - context), self.end + new
        parts = [
            _cut(of, start, end) for start in (self.end, begin) for of in (self.keys, self.values)
        ]
        self.written[0] = end
        return list(map(CacheView, *parts)), Cache(self.keys, self.values, end, self.written)


def ensure_capacity(cache: Cache, new: int, context: int, rotary_base: float | None) -> Cache:
    """The cache with room for `new` positions more.

    It stays where it is if it can: nobody has gone on from it yet, and no gradient needs it as it
    was. Else what the new positions can still see is copied, and turned back to the first places,
    so that places, and with them the errors of rounding, do not grow without bound.

    Args:
        context: positions that each position can see, itself included.
        rotary_base: of rotary positions; None: positions are learned, and do not slide.
    """
    keys, values, end, written = cache
    untouched = written[0] == end and torch.is_inference_mode_enabled()
    if untouched and isinstance(keys, Tensor) and end + new <= keys.shape[3]:
        return cache
    kept = min(end, context - 1)
    # Rotary positions slide through twice the context before they are copied; others never slide.
    room = min(max(LEAST_ROOM, 2 * (kept + new)), context if rotary_base is None else 2 * context)
    seen_keys = _cut(keys, end - kept, end)
    if rotary_base is not None and kept < end:
        back = rope_table(
            torch.tensor([kept - end], device=seen_keys[0].device),
            seen_keys[0].shape[-1],
            rotary_base,
        )
        seen_keys = [apply_rope(keys_BHSD, back) for keys_BHSD in seen_keys]
    seen_values = _cut(values, end - kept, end)
    return Cache(_roomy(seen_keys, room), _roomy(seen_values, room), kept, [kept])


def _cut(layers: Layers, begin: int, end: int) -> list[Tensor] | tuple[Tensor, ...]:
    """Of each layer the positions from `begin` to before `end`."""
    if isinstance(layers, Tensor):
        return layers.narrow(3, begin, end - begin).unbind(1)
    return [layer_BHRD.narrow(2, begin, end - begin) for layer_BHRD in layers]


def _roomy(seen: list[Tensor] | tuple[Tensor, ...], room: int) -> Layers:
    """A copy of what was seen, with room for so many positions in all."""
    copies = [F.pad(seen_BHSD, (0, 0, 0, room - seen_BHSD.shape[2])) for seen_BHSD in seen]
    # A gradient may need what one layer has read while the next one writes: no shared tensor then.
    return torch.stack(copies, dim=1) if torch.is_inference_mode_enabled() else copies
