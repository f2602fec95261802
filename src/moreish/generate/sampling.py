"""How the next token is drawn: pure functions from logits to logits, and the draw itself.

B batch, V vocabulary.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from moreish.settings import Settings

Logits = Float[Tensor, "B V"]

NOISE_BLOCK = 32
"""Positions for which random numbers are drawn together: to start a generator takes longer."""


class Sampling(Settings):
    """How to draw. Temperature 0 takes the likeliest token always."""

    temperature: float = Field(1.0, ge=0)
    top_k: int | None = Field(None, ge=1)
    """Draw from the k likeliest tokens only; more than there are changes nothing."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw from the fewest tokens that hold this share of the probability."""


def keep_top_k(logits_BV: Logits, k: int) -> Logits:
    """All but the `k` largest (there are more) become minus infinity; ties at the edge stay."""
    least_B1 = logits_BV.topk(k).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)


def keep_top_p(logits_BV: Logits, p: float) -> Logits:
    """Nucleus sampling (Holtzman et al. 2020): the smallest set that reaches `p` stays."""
    sorted_BV, order_BV = logits_BV.sort(descending=True)
    probs_BV = sorted_BV.softmax(-1)
    # A token goes if those before it already hold p: so the likeliest always stays.
    gone_BV = probs_BV.cumsum(-1) - probs_BV >= p
    return logits_BV.masked_fill(gone_BV.scatter(-1, order_BV, gone_BV), -torch.inf)


def sampling_probabilities(logits_BV: Logits, sampling: Sampling) -> Logits:
    """The distribution that `sampling` draws from: top-k, then the temperature, then top-p."""
    logits_BV = logits_BV.double()
    if sampling.temperature == 0:
        best_B = logits_BV.argmax(-1)
        return torch.nn.functional.one_hot(best_B, logits_BV.shape[-1]).double()
    if sampling.top_k is not None and sampling.top_k < logits_BV.shape[-1]:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.temperature != 1:
        # Less than this is as good as 0, and could be too small to divide by.
        logits_BV = logits_BV / max(sampling.temperature, 1e-200)
    if sampling.top_p is not None:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    return logits_BV.softmax(-1)


def sample_tokens(
    probabilities_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"]
) -> Int[Tensor, " B"]:
    """The token under each `uniform` in [0, 1): the inverse of the cumulative distribution."""
    cumulative_BV = probabilities_BV.cumsum(-1)
    # Scaled by the sum itself, so that rounding never draws past the last possible token.
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]


def uniform_noise(seed: int, block: int, streams: range) -> Tensor:
    """(streams, BLOCK) numbers in [0, 1): what each stream draws in a block of positions.

    They depend only on the seed, the block and the stream, so that a stream's text does not depend
    on its neighbours.
    """
    bits = np.random.PCG64((seed, block)).advance(streams.start * NOISE_BLOCK)
    return torch.from_numpy(np.random.Generator(bits).random((len(streams), NOISE_BLOCK)))
