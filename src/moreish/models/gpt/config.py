"""The switches of the GPT."""

from typing import Literal

from pydantic import Field, model_validator

from moreish.models.base import ModelConfig
from moreish.models.gpt.layers import ROTARY_BASE, Activation, Norm


class GPTConfig(ModelConfig):
    name: Literal["gpt"] = "gpt"
    layers: int = Field(4, ge=1, le=1000)
    heads: int = Field(4, ge=1, le=1000)
    kv_heads: int | None = Field(None, ge=1)
    """Heads of keys and values, each shared by several of queries (Ainslie et al. 2023)."""
    width: int = Field(128, ge=1, le=1 << 20)
    context: int = Field(64, ge=1, le=1 << 24)
    """Positions that the model can see."""
    dropout: float = Field(0.0, ge=0, lt=1)
    tied: bool = False
    """Whether the output layer is the embedding table (Press and Wolf 2017)."""
    bias: bool = True
    positions: Literal["learned", "rotary"] = "learned"
    rotary_base: float = Field(ROTARY_BASE, gt=1, le=1e12)
    """Of rotary positions: the larger, the slower they turn."""
    grams: int = Field(1, ge=1, le=32)
    """The longest n-grams with embeddings of their own, added to that of the token that ends them
    (Pagnoni et al. 2024, "Byte Latent Transformer", section 3.2.1); 1: none."""
    gram_rows: int = Field(1 << 14, ge=1, le=1 << 26)
    """Rows for the n-grams of each length; where there are more, they share rows by chance."""
    gram_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the n-gram embeddings that are left out at each position in training."""
    norm: Norm = "layer"
    norm_eps: float | None = Field(None, gt=0, lt=1)
    """What norms add to the mean square; None: PyTorch's own."""
    norm_place: Literal["before", "after"] = "before"
    """Before each part, as in GPT-2, or after each sum, as in Vaswani et al. 2017."""
    qk_norm: bool = False
    """Queries and keys of unit size in every head (Henry et al. 2020)."""
    scaled: bool = True
    """Whether affinities are divided by the root of the head width."""
    projection: bool = True
    """A linear layer after the heads."""
    residual: bool = True
    """Whether each part adds to its input, or takes its place."""
    feedforward: Activation | Literal["none"] = "gelu"
    feedforward_ratio: float = Field(4.0, gt=0, le=1024)
    """Inner width of the feed-forward over the model's."""
    feedforward_width: int | None = Field(None, ge=1, le=1 << 24)
    """The inner width itself, where it is no such multiple."""
    init: Literal["scaled", "gpt2"] = "scaled"
    """Of the weights: so that every layer keeps the scale of its input and the first guess is
    uniform, which narrow models learn far faster from; or GPT-2's deviation of 0.02."""
    softcap: float = Field(0.0, ge=0)
    """Logits are squeezed between plus and minus this (Gemma 2, 2024); 0: not at all."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "GPTConfig":
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide by {self.heads} heads")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not divide by {self.kv_heads} kv_heads")
        return self

    def for_data(self, longest_item: int | None, vocab_size: int) -> "GPTConfig":
        """For items, a width of 64 and a context that just holds the longest, unless they are set.

        An item of n tokens is n + 1 predictions, the first of them from the boundary.
        """
        if longest_item is None:
            return self
        width = self.width if 64 % self.heads else 64
        fitting = {"width": width, "context": min(self.context, longest_item + 1)}
        unset = {k: v for k, v in fitting.items() if k not in self.model_fields_set}
        return type(self).model_validate(self.model_dump() | unset)
