"""Parts of Transformers: norms, rotary positions, feed-forwards.

B batch, T time, H heads, D head width, C model width.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["layer", "rms", "none"]
Activation = Literal["gelu", "relu", "relu2", "swiglu"]


def norm_layer(kind: Norm, width: int, bias: bool) -> nn.Module:
    """Layer norm (Ba et al. 2016), RMS norm (Zhang and Sennrich 2019), or nothing."""
    if kind == "none":
        return nn.Identity()
    return nn.RMSNorm(width) if kind == "rms" else nn.LayerNorm(width, bias=bias)


def rotate(
    x_BHTD: Float[Tensor, "B H T D"], places_T: Int[Tensor, " T"]
) -> Float[Tensor, "B H T D"]:
    """Turn each pair of components by an angle that grows with the position (Su et al. 2021).

    The product of a turned query and a turned key depends on their distance alone.
    """
    half = x_BHTD.shape[-1] // 2
    frequency_D = 10_000 ** (-torch.arange(half, device=x_BHTD.device) / half)
    angle_TD = places_T[:, None] * frequency_D
    cosine_TD, sine_TD = angle_TD.cos().to(x_BHTD), angle_TD.sin().to(x_BHTD)
    a, b = x_BHTD[..., :half], x_BHTD[..., half : 2 * half]
    turned = (a * cosine_TD - b * sine_TD, a * sine_TD + b * cosine_TD, x_BHTD[..., 2 * half :])
    return torch.cat(turned, dim=-1)


class FeedForward(nn.Module):
    """Each position by itself through one wider layer.

    Activations: GELU with tanh (Hendrycks and Gimpel 2016, as in GPT-2), ReLU, its square (So et
    al. 2021), and SwiGLU (Shazeer 2020), whose gate is paid for by two thirds of the width.
    """

    def __init__(self, width: int, ratio: float, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        gated = activation == "swiglu"
        inner = max(1, round(width * ratio * (2 / 3 if gated else 1)))
        self.up = nn.Linear(width, inner * (2 if gated else 1), bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        up = self.up(x_BTC)
        match self.activation:
            case "gelu":
                inner = F.gelu(up, approximate="tanh")
            case "relu":
                inner = F.relu(up)
            case "relu2":
                inner = F.relu(up).square()
            case "swiglu":
                gate, value = up.chunk(2, dim=-1)
                inner = F.silu(gate) * value
        return self.down(inner)
