"""Parts of Transformers: norms, rotary positions, feed-forwards.

B batch, T time (new positions), S positions in all, H heads, D head width, C model width.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["layer", "rms", "none"]
Activation = Literal["gelu", "gelu-exact", "relu", "relu2", "swiglu"]

RopeTable = tuple[Tensor, Tensor]
"""Cosines and signed sines of each place, each (T, D): see `rope_table`."""


ROTARY_BASE = 10_000.0
"""Of the angles that positions turn by (Su et al. 2021, section 3.2.2)."""

MIXER = 2_654_435_761
"""Two to the 32nd over the golden ratio: multiplying by it spreads n-grams over rows (Knuth)."""


def norm_layer(kind: Norm, width: int, bias: bool, eps: float | None = None) -> nn.Module:
    """Layer norm (Ba et al. 2016), RMS norm (Zhang and Sennrich 2019), or nothing.

    Args:
        eps: added to the mean square; None: what PyTorch adds.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "rms":
        return nn.RMSNorm(width, eps)
    return nn.LayerNorm(width, 1e-5 if eps is None else eps, bias=bias)


def rope_table(
    places_T: Int[Tensor, " T"], head_width: int, base: float = ROTARY_BASE
) -> RopeTable:
    """What `apply_rope` turns each place by: cosines, and sines with their signs.

    Each pair of components (d, d + half) turns by an angle that grows with the position (Su et al.
    2021), so that the product of a turned query and a turned key depends on their distance alone.
    An odd component stays as it is.
    """
    half = head_width // 2
    frequency_D = base ** (-torch.arange(half, device=places_T.device) / half)
    angle_TD = places_T[:, None] * frequency_D
    cosine_TD, sine_TD = angle_TD.cos(), angle_TD.sin()
    rest_TD = cosine_TD.new_ones(places_T.shape[0], head_width % 2)
    return (
        torch.cat([cosine_TD, cosine_TD, rest_TD], dim=-1),
        torch.cat([-sine_TD, sine_TD, 0 * rest_TD], dim=-1),
    )


def apply_rope(
    x_BHTD: Float[Tensor, "B H T D"],
    rope: RopeTable,
) -> Float[Tensor, "B H T D"]:
    """Turn queries or keys by what `rope_table` gave for their places."""
    cosine_TD, sine_TD = rope
    half = x_BHTD.shape[-1] // 2
    a, b, rest = x_BHTD.split([half, half, x_BHTD.shape[-1] % 2], dim=-1)
    other_BHTD = torch.cat([b, a, rest], dim=-1)
    return torch.addcmul(x_BHTD * cosine_TD.to(x_BHTD), other_BHTD, sine_TD.to(x_BHTD))


class NgramEmbedding(nn.Module):
    """A vector for each n-gram, zero where it would reach back beyond what was seen."""

    def __init__(self, length: int, vocab_size: int, rows: int, width: int, dropout: float) -> None:
        """`length` of the n-grams; `rows` that they have at the most."""
        super().__init__()
        self.exact = vocab_size**length <= rows
        self.table = nn.Embedding(min(rows, vocab_size**length), width)
        self.length, self.vocab_size, self.dropout = length, vocab_size, dropout

    def forward(self, seen_BS: Int[Tensor, "B S"], new: int) -> Float[Tensor, "B T C"]:
        """Of the n-grams that end with each of the last `new` tokens."""
        whole = min(new, max(0, seen_BS.shape[1] - self.length + 1))
        lasts = range(seen_BS.shape[1] - self.length + 1, seen_BS.shape[1] + 1)
        x_BTC = self.table(self.rows([seen_BS[:, last - whole : last] for last in lasts]))
        if self.training and self.dropout:
            kept_BT1 = torch.rand_like(x_BTC[..., :1]) >= self.dropout
            x_BTC = x_BTC * kept_BT1 / (1 - self.dropout)
        return F.pad(x_BTC, (0, 0, new - whole, 0))

    def rows(self, tokens: list[Int[Tensor, "B T"]]) -> Int[Tensor, "B T"]:
        """Of the n-grams whose tokens these are, the oldest first."""
        row_BT = torch.zeros_like(tokens[0])
        for token_BT in tokens:
            if self.exact:
                row_BT = row_BT * self.vocab_size + token_BT
            else:
                row_BT = (row_BT * MIXER + token_BT + 1) % 2**31
        if not self.exact:
            row_BT = (row_BT ^ (row_BT >> 15)) % self.table.num_embeddings
        return row_BT


class FeedForward(nn.Module):
    """Each position by itself through one wider layer.

    Activations: GELU (Hendrycks and Gimpel 2016), with tanh as in GPT-2 or exact; ReLU, its square
    (So et al. 2021), and SwiGLU (Shazeer 2020), whose gate is paid for by two thirds of the width.
    """

    def __init__(
        self,
        width: int,
        ratio: float,
        activation: Activation,
        *,
        bias: bool,
        inner: int | None = None,
    ) -> None:
        """`inner`: its width, where that is no `ratio`."""
        super().__init__()
        self.activation = activation
        gated = activation == "swiglu"
        inner = inner or max(1, round(width * ratio * (2 / 3 if gated else 1)))
        self.up = nn.Linear(width, inner * (2 if gated else 1), bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        up = self.up(x_BTC)
        match self.activation:
            case "gelu":
                inner = F.gelu(up, approximate="tanh")
            case "gelu-exact":
                inner = F.gelu(up)  # half the time of tanh on a CPU
            case "relu":
                inner = F.relu(up)
            case "relu2":
                some = F.relu(up)
                inner = some * some  # twice as fast as its square() on a CPU
            case "swiglu":
                gate, value = up.chunk(2, dim=-1)
                inner = F.silu(gate) * value
        return self.down(inner)
