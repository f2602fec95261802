"""The key/value cache: keys and values of the positions read so far, with room for more.

B batch, L layers, H heads of keys or values, T new positions, S positions seen, R capacity in
positions, D head width.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moreish.models.gpt.layers import apply_rope, rope_table

MIN_CAPACITY = 64
"""Positions. The capacity doubles whenever it is reached, so that copies are rare."""

Layers = Float[Tensor, "B L H R D"] | list[Float[Tensor, "B H R D"]]
"""Keys or values of all layers; one tensor where possible, so that one call slices all of them."""


class CacheView(NamedTuple):
    """One layer's part of the cache during one call: where the new positions' keys and values go,
    and those of all positions that they can see."""

    new_keys_BHTD: Tensor
    new_values_BHTD: Tensor
    keys_BHSD: Tensor
    values_BHSD: Tensor

    def update(self, keys_BHTD: Tensor, values_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions' keys and values; return all, each (B, H, S, D)."""
        self.new_keys_BHTD.copy_(keys_BHTD)
        self.new_values_BHTD.copy_(values_BHTD)
        return self.keys_BHSD, self.values_BHSD


class Cache(NamedTuple):
    """Keys and values of all layers, the first `end` positions of which are filled.

    Later caches share the tensors and fill what follows; `written`, which they share too, holds how
    many positions are taken.
    """

    keys: Layers
    values: Layers
    end: int
    written: list[int]

    @classmethod
    def of(cls, keys_values: list[tuple[Tensor, Tensor]]) -> "Cache":
        """Return a full cache of each layer's keys and values."""
        keys, values = map(list, zip(*keys_values, strict=True))
        end = keys[0].shape[2]
        return cls(keys, values, end, [end])

    def extend(self, new: int, context: int) -> "tuple[list[CacheView], Cache]":
        """Take `new` positions, for which `ensure_capacity` has made room.

        Returns:
            A view for each layer, and the cache as it is once every layer has updated its view.
        """
        begin, end = max(0, self.end + 1 - context), self.end + new
        parts = [
            _slice(layers, start, end)
            for start in (self.end, begin)
            for layers in (self.keys, self.values)
        ]
        self.written[0] = end
        return list(map(CacheView, *parts)), Cache(self.keys, self.values, end, self.written)


def ensure_capacity(
    cache: Cache, new: int, *, context: int, limit: int, rotary_base: float | None
) -> Cache:
    """Return a cache with room for `new` more positions: `cache` itself, or a copy.

    A copy is made when there is no room, when another text continues from the same cache, or when a
    gradient needs it unchanged. It keeps only what the new positions can see, rotated back to the
    first positions, so that positions, and with them rounding errors, do not grow without bound.

    Args:
        context: number of positions that each position can see, itself included.
        limit: maximum capacity in positions.
        rotary_base: base of the rotary embedding, if there is one.
    """
    keys, values, end, written = cache
    unshared = written[0] == end and torch.is_inference_mode_enabled()
    if unshared and isinstance(keys, Tensor) and end + new <= keys.shape[3]:
        return cache
    kept = min(end, context - 1)
    capacity = min(max(MIN_CAPACITY, 2 * (kept + new)), limit)
    seen_keys = _slice(keys, end - kept, end)
    if rotary_base is not None and kept < end:
        shift = torch.tensor([kept - end], device=seen_keys[0].device)
        rope = rope_table(shift, seen_keys[0].shape[-1], rotary_base)
        seen_keys = [apply_rope(keys_BHSD, rope) for keys_BHSD in seen_keys]
    seen_values = _slice(values, end - kept, end)
    return Cache(_pad(seen_keys, capacity), _pad(seen_values, capacity), kept, [kept])


def _slice(layers: Layers, begin: int, end: int) -> list[Tensor] | tuple[Tensor, ...]:
    """Return each layer's positions from `begin` to before `end`."""
    if isinstance(layers, Tensor):
        return layers.narrow(3, begin, end - begin).unbind(1)
    return [layer_BHRD.narrow(2, begin, end - begin) for layer_BHRD in layers]


def _pad(seen: list[Tensor] | tuple[Tensor, ...], capacity: int) -> Layers:
    """Copy each layer's (B, H, S, D) into tensors of `capacity` positions."""
    copies = [F.pad(seen_BHSD, (0, 0, 0, capacity - seen_BHSD.shape[2])) for seen_BHSD in seen]
    # With gradients no shared tensor: one layer's keys may be needed while the next one's are set.
    return torch.stack(copies, dim=1) if torch.is_inference_mode_enabled() else copies
