"""Parts of Transformers: norms, rotary embedding, n-gram embeddings, feed-forward networks.

B batch, T new positions, S positions in all, H heads, D head width, C model width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.models.gpt.config import ROTARY_BASE, TransformerConfig

RopeTable = tuple[Tensor, Tensor]
"""Cosines and signed sines of each position, both (*T, D); see `rope_table`."""

HASH_MULTIPLIER = 2_654_435_761
"""2^32 over the golden ratio (Knuth's multiplicative hashing)."""


def norm_layer(config: TransformerConfig) -> nn.Module:
    """Return a layer norm (Ba et al. 2016) or an RMS norm (Zhang and Sennrich 2019)."""
    if config.norm == "rms":
        return nn.RMSNorm(config.width, config.norm_eps)
    eps = 1e-5 if config.norm_eps is None else config.norm_eps
    return nn.LayerNorm(config.width, eps, bias=config.bias)


def rope_table(
    position_T: Int[Tensor, "*T"], head_width: int, base: float = ROTARY_BASE
) -> RopeTable:
    """Compute the rotary embedding (RoPE, Su et al. 2021) of positions, for `apply_rope`.

    Each pair of components (d, d + half) rotates by an angle proportional to the position, so that
    the product of a query and a key depends on their distance alone. An odd last component stays.
    """
    half = head_width // 2
    frequency_D = base ** (-torch.arange(half, device=position_T.device) / half)
    angle_TD = position_T[..., None] * frequency_D
    cosine_TD, sine_TD = angle_TD.cos(), angle_TD.sin()
    rest_TD = cosine_TD.new_ones(*position_T.shape, head_width % 2)
    return (
        torch.cat([cosine_TD, cosine_TD, rest_TD], dim=-1),
        torch.cat([-sine_TD, sine_TD, 0 * rest_TD], dim=-1),
    )


def apply_rope(x_BHTD: Float[Tensor, "B H T D"], rope: RopeTable) -> Float[Tensor, "B H T D"]:
    """Rotate queries or keys by their positions' `rope_table`."""
    cosine_TD, sine_TD = rope
    half = x_BHTD.shape[-1] // 2
    a, b, rest = x_BHTD.split([half, half, x_BHTD.shape[-1] % 2], dim=-1)
    swapped_BHTD = torch.cat([b, a, rest], dim=-1)
    return torch.addcmul(x_BHTD * cosine_TD.to(x_BHTD), swapped_BHTD, sine_TD.to(x_BHTD))


class NgramEmbedding(nn.Module):
    """Embeddings of n-grams of one length, hashed into a table where they outnumber its rows
    (Pagnoni et al. 2024); zero where an n-gram would begin before the first token."""

    def __init__(self, length: int, vocab_size: int, config: TransformerConfig) -> None:
        super().__init__()
        rows = config.ngram_embedding_rows
        self.is_exact = vocab_size**length <= rows
        self.table = nn.Embedding(min(rows, vocab_size**length), config.width)
        self.length, self.vocab_size = length, vocab_size
        self.dropout = config.ngram_embedding_dropout

    def forward(
        self, seen_BS: Int[Tensor, "B S"], new: int | torch.SymInt
    ) -> Float[Tensor, "B T C"]:
        """Return the embeddings of the n-grams that end with each of the last `new` tokens.

        Args:
            seen_BS: tokens up to the newest; -1 marks positions before the first.
            new: a symbolic number while the model is exported.
        """
        before, seen = self.length - 1, seen_BS.shape[1]
        seen_BS = F.pad(seen_BS, (before, 0), value=-1)[:, -(before + new) :]
        row_BT = torch.zeros_like(seen_BS[:, before:])
        for i in range(self.length):
            token_BT = seen_BS[:, i : i + new].clamp(min=0)
            if self.is_exact:
                row_BT = row_BT * self.vocab_size + token_BT
            else:
                row_BT = (row_BT * HASH_MULTIPLIER + token_BT + 1) % 2**31
        if not self.is_exact:
            row_BT = (row_BT ^ (row_BT >> 15)) % self.table.num_embeddings
        x_BTC = self.table(row_BT) * (seen_BS[:, :new] >= 0)[..., None]
        if self.training and self.dropout:
            missing = int(min(new, max(0, before + new - seen)))
            kept_BT1 = torch.rand_like(x_BTC[:, missing:, :1]) >= self.dropout
            x_BTC = x_BTC * F.pad(kept_BT1, (0, 0, missing, 0)) / (1 - self.dropout)
        return x_BTC


class DigitEmbedding(nn.Module):
    """Embeddings of the place of each digit within its number, from 1; other tokens have place 0
    (McLeish et al. 2024, section 3.1). In training the places of a text are shifted by a random
    number, the same for all of its numbers, so that places beyond the longest number are trained
    too."""

    is_digit_V: Tensor

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_digits + 1, config.width)
        is_digit_V = torch.zeros(vocab_size, dtype=torch.bool)
        is_digit_V[config.digit_ids or []] = True
        self.register_buffer("is_digit_V", is_digit_V, persistent=False)

    def forward(self, seen_BS: Int[Tensor, "B S"], new: int) -> Float[Tensor, "B T C"]:
        """Return the embeddings of the last `new` tokens of all that were seen; -1 marks positions
        before the first."""
        is_digit_BS = self.is_digit_V[seen_BS.clamp(min=0)] & (seen_BS >= 0)
        position_S = torch.arange(seen_BS.shape[1], device=seen_BS.device)
        last_other_BS = torch.where(is_digit_BS, -1, position_S).cummax(dim=1).values
        place_BS = position_S - last_other_BS
        most = self.table.num_embeddings - 1
        if self.training:
            room_B1 = (most - place_BS.amax(1, keepdim=True)).clamp(min=0)
            shift_B1 = (torch.rand_like(room_B1, dtype=torch.float) * (room_B1 + 1)).long()
            place_BS = torch.where(is_digit_BS, place_BS + shift_B1, place_BS)
        return self.table(place_BS[:, -new:].clamp(max=most))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, applied to each position.

    Activations: GELU (Hendrycks and Gimpel 2016) with the tanh approximation of GPT-2, or exact;
    ReLU; squared ReLU (So et al. 2021); SwiGLU (Shazeer 2020), with two thirds of the inner width,
    which makes up for the weights of its gate.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = config.feedforward
        gated = config.feedforward == "swiglu"
        width = config.width * config.feedforward_ratio * (2 / 3 if gated else 1)
        inner = config.feedforward_width or max(1, round(width))
        self.up = nn.Linear(config.width, inner * (2 if gated else 1), bias=config.bias)
        self.down = nn.Linear(inner, config.width, bias=config.bias)

    def forward(self, x_BTC: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        up = self.up(x_BTC)
        match self.activation:
            case "gelu":
                inner = F.gelu(up, approximate="tanh")
            case "gelu-exact":
                inner = F.gelu(up)  # takes half the time of the tanh on a CPU
            case "relu":
                inner = F.relu(up)
            case "relu2":
                positive = F.relu(up)
                inner = positive * positive  # twice as fast as square() on a CPU
            case "swiglu":
                gate, value = up.chunk(2, dim=-1)
                inner = F.silu(gate) * value
        return self.down(inner)
