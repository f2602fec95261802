"""FLOPs of training, for the model FLOPs utilization: achieved over peak FLOP/s (Chowdhery et al.
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
"""Peak dense bfloat16 FLOP/s, from NVIDIA's data sheets (of the SXM version if there are two)."""


def parse_peak_flops(name: str) -> float:
    """Return the peak FLOP/s for the name of a GPU or a number of TFLOP/s.

    >>> parse_peak_flops("h100"), parse_peak_flops("250")
    (989000000000000.0, 250000000000000.0)

    Raises:
        MoreishError: `name` is neither.
    """
    if (peak := gpu_peak_flops(name.upper())) is not None:
        return peak
    with suppress(ValueError):
        if 0 < (teraflops := float(name)) < math.inf:
            return teraflops * 1e12
    hint = nearest(name.upper(), GPU_PEAKS)
    raise MoreishError(f"--gpu {name}: {hint} (or give its TFLOP/s in bfloat16)")


def gpu_peak_flops(name: str) -> float | None:
    """Return the peak FLOP/s of a GPU; None if it is unknown.

    >>> gpu_peak_flops("NVIDIA A100-SXM4-80GB")
    312000000000000.0
    """
    return next((GPU_PEAKS[w] for w in re.findall(r"\w+", name) if w in GPU_PEAKS), None)


def device_peak_flops(device: torch.device) -> float | None:
    """Return the peak FLOP/s of a device; None if it is unknown."""
    return gpu_peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


class FlopCounter:
    """Counts the FLOPs of training: six per position for each weight of a matrix, and those of
    attention without its causal savings. Embedding lookups count as free."""

    def __init__(self, model: nn.Module) -> None:
        weights = {
            id(weight): weight.numel()
            for module in model.modules()
            if not isinstance(module, nn.Embedding)
            for weight in module.parameters(recurse=False)
            if weight.ndim == 2
        }
        self.weights = sum(weights.values())
        self.attention_width = 0
        for module in model.modules():
            if isinstance(module, Attention):
                self.attention_width += module.num_heads * module.head_width
            elif isinstance(module, LectureAttention):
                self.attention_width += module.value.out_features

    def per_batch(self, batch: Batch) -> float:
        return batch.tokens_BT.numel() * self.per_position(batch.tokens_BT.shape[1])

    def per_position(self, length: int) -> float:
        """Return the FLOPs for one position of a sequence of `length` positions."""
        return 6 * self.weights + 12 * self.attention_width * length
