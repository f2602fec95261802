"""Model FLOPs utilisation: what a training reckons, over what the machine could (Chowdhery et al.
2022, "PaLM", appendix B).
"""

import math
import re
from contextlib import suppress

import torch
from torch import nn

from moreish.data import Batch
from moreish.errors import MoreishError, nearest
from moreish.models import Attention, LectureAttention

GPU_PEAKS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
    "4090": 165e12,
}
"""Dense operations a second in bfloat16, from the maker's data sheets (SXM where there are two)."""


def parse_peak_flops(name: str) -> float:
    """The peak that a user gives: the name of a GPU, or TFLOP/s.

    >>> peak_named("h100"), peak_named("250")
    (989000000000000.0, 250000000000000.0)

    Raises:
        MoreishError: it is neither; the nearest name is given.
    """
    if (peak := gpu_peak_flops(name.upper())) is not None:
        return peak
    with suppress(ValueError):
        if 0 < (given := float(name)) < math.inf:
            return given * 1e12
    hint = nearest(name.upper(), GPU_PEAKS)
    raise MoreishError(f"--gpu {name}: {hint} (or give its TFLOP/s in bfloat16)")


def gpu_peak_flops(name: str) -> float | None:
    """The peak of the GPU of this name, if it is a known one.

    >>> gpu_peak("NVIDIA A100-SXM4-80GB")
    312000000000000.0
    """
    return next((GPU_PEAKS[w] for w in re.findall(r"\w+", name) if w in GPU_PEAKS), None)


class FlopCounter:
    """Floating-point operations of training on a batch: two for each weight and position, and as
    many for each gradient, of weights and of inputs; and those of attention, all affinities
    counted. Embeddings are looked up, for nothing."""

    def __init__(self, model: nn.Module) -> None:
        weights = {
            id(weight): weight.numel()
            for module in model.modules()
            if not isinstance(module, nn.Embedding)
            for weight in module.parameters(recurse=False)
            if weight.ndim == 2
        }
        self.weights = sum(weights.values())
        self.widths = 0
        for module in model.modules():
            if isinstance(module, Attention):
                self.widths += module.heads[0] * module.head_width
            elif isinstance(module, LectureAttention):
                self.widths += module.value.out_features

    def per_batch(self, batch: Batch) -> float:
        return batch.tokens_BT.numel() * self.per_position(batch.tokens_BT.shape[1])

    def per_position(self, length: int) -> float:
        """Of one position among `length`."""
        return 6 * self.weights + 12 * self.widths * length


def device_peak_flops(device: torch.device) -> float | None:
    """Operations a second that `device` promises, where that is known."""
    return gpu_peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
