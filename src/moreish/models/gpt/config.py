"""Settings of the GPT."""

from typing import Literal

from pydantic import Field, model_validator

from moreish.models.base import ModelConfig
from moreish.tokenizers import Tokenizer

Norm = Literal["layer", "rms"]
Activation = Literal["gelu", "gelu-exact", "relu", "relu2", "swiglu"]

MAX_EXAMPLE_CONTEXT = 1024
"""Largest default context for examples; of longer inputs only the end is read."""

LONGER_NUMBERS = 4
"""How many times as long as in training numbers may be, by default, with `positions=digits`."""

DIGITS = {str(digit).encode() for digit in range(10)}

ROTARY_BASE = 10_000.0
"""The default of Su et al. 2021, section 3.2.2."""


class TransformerConfig(ModelConfig):
    """Settings that all Transformers share."""

    layers: int = Field(4, ge=1, le=1000)
    """Number of blocks."""
    heads: int = Field(4, ge=1, le=1000)
    """Number of attention heads."""
    kv_heads: int | None = Field(None, ge=1)
    """Number of heads of keys and values, each shared by several query heads (Ainslie et al.
    2023); by default as many as `heads`."""
    width: int = Field(128, ge=1, le=1 << 20)
    """Model width: the size of embeddings and of the residual stream."""
    context: int = Field(64, ge=1, le=1 << 24)
    """Number of positions that attention can see."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate of embeddings, attention and the output of each sublayer."""
    tied: bool = False
    """Whether the output layer shares the embedding table (Press and Wolf 2017)."""
    bias: bool = True
    """Whether linear layers and layer norms have biases."""
    positions: Literal["learned", "rotary", "none", "digits"] = "learned"
    """Position information: learned embeddings, rotary embedding (RoPE), none at all, or embeddings
    of the place of each digit within its number, for arithmetic (McLeish et al. 2024, "Transformers
    Can Do Arithmetic with the Right Embeddings"), which go on to numbers longer than any in
    training."""
    max_digits: int = Field(100, ge=1, le=1 << 16)
    """Largest place of a digit that has an embedding; in training, numbers begin at any."""
    digit_ids: list[int] | None = None
    """The tokens that are digits; by default those whose text is one."""
    rotary_base: float = Field(ROTARY_BASE, gt=1, le=1e12)
    """Base of the rotary embedding's wavelengths: the larger, the slower it rotates."""
    ngram_embedding: int = Field(1, ge=1, le=32)
    """Length of the longest n-grams with embeddings of their own, added to that of their last token
    (Pagnoni et al. 2024, "Byte Latent Transformer", section 3.2.1); 1: none."""
    ngram_embedding_rows: int = Field(1 << 14, ge=1, le=1 << 26)
    """Maximum rows of each n-gram embedding table; more n-grams than rows share rows by hashing."""
    ngram_embedding_dropout: float = Field(0.0, ge=0, lt=1)
    """Rate at which positions lose their n-gram embedding in training."""
    norm: Norm = "layer"
    """Layer norm (Ba et al. 2016) or RMS norm (Zhang and Sennrich 2019)."""
    norm_eps: float | None = Field(None, gt=0, lt=1)
    """Epsilon of the norms; by default PyTorch's."""
    norm_place: Literal["before", "after"] = "before"
    """Before each sublayer, as in GPT-2, or after each sum, as in Vaswani et al. 2017."""
    qk_norm: bool = False
    """Whether queries and keys are RMS-normalized in every head (Henry et al. 2020)."""
    feedforward: Activation = "gelu"
    """Activation of the feed-forward network."""
    feedforward_ratio: float = Field(4.0, gt=0, le=1024)
    """Inner width of the feed-forward network as a multiple of the model width."""
    feedforward_width: int | None = Field(None, ge=1, le=1 << 24)
    """Inner width itself, in place of `feedforward_ratio`."""
    init: Literal["scaled", "gpt2"] = "scaled"
    """Initialization: by fan-in with a uniform first prediction, from which narrow models learn
    much faster, or GPT-2's standard deviation of 0.02."""
    softcap: float = Field(0.0, ge=0)
    """Bound on the logits' magnitude, by a tanh (Gemma 2, 2024); 0: none."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "TransformerConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads are not divisible by {self.kv_heads} kv_heads")
        return self

    def for_examples(self, longest: int) -> ModelConfig:
        """Use a context that holds the longest example, within reason; several times as much where
        numbers may be longer than in training."""
        factor = LONGER_NUMBERS if self.positions == "digits" else 1
        return self.with_defaults(context=factor * min(MAX_EXAMPLE_CONTEXT, longest + 1))


class GPTConfig(TransformerConfig):
    name: Literal["gpt"] = "gpt"

    def for_tokenizer(self, tokenizer: Tokenizer) -> ModelConfig:
        if self.positions != "digits" or self.digit_ids is not None:
            return self
        digits = [i for i, token in enumerate(tokenizer.tokens) if token in DIGITS]
        return self.with_defaults(digit_ids=digits)

    def for_data(self, longest_item: int | None, vocab_size: int) -> ModelConfig:
        """For items, use width 64 and a context that just holds the longest, unless they are set.

        An item of n tokens is n + 1 predictions, the first of them from the boundary.
        """
        if longest_item is None:
            return self
        width = self.width if 64 % self.heads else 64
        return self.with_defaults(width=width, context=min(self.context, longest_item + 1))
