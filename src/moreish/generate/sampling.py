"""Logits processors, and sampling from the processed distribution.

B batch, V vocabulary.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from moreish.settings import Settings
from moreish.tokenizers import Ids

Logits = Float[Tensor, "B V"]

LogitsProcessor = Callable[[Logits], Logits]

NOISE_BLOCK = 32
"""Positions whose random numbers are drawn together, because creating a generator takes longer than
drawing them."""


class Sampling(Settings):
    """Sampling settings. Temperature 0 always takes the most likely token."""

    temperature: float = Field(1.0, ge=0)
    """Divisor of the logits: below 1 sharpens the distribution, above 1 flattens it."""
    top_k: int | None = Field(None, ge=1)
    """Sample from the k most likely tokens only."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Sample from the smallest set of most likely tokens whose probabilities add up to this."""
    min_p: float | None = Field(None, gt=0, le=1)
    """Sample from tokens that are at least this fraction as likely as the most likely one."""
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    """Above 1 makes tokens of the prompt and the text less likely, below 1 more likely."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logit of a token for each time that it was sampled."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logit of a token that was sampled."""

    @property
    def has_penalties(self) -> bool:
        """Whether a token's probability depends on the tokens before it by a penalty."""
        neutral = (1.0, 0.0, 0.0)
        penalties = (self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        return penalties != neutral


def suppress(logits_BV: Logits, token: int) -> Logits:
    """Give one token probability zero."""
    return logits_BV.index_fill(1, torch.tensor([token]), -torch.inf)


def keep_best(logits_BV: Logits) -> Logits:
    """Keep the most likely token, the first of equally likely ones (greedy decoding)."""
    best_B1 = logits_BV.argmax(-1, keepdim=True)
    return torch.full_like(logits_BV, -torch.inf).scatter(-1, best_B1, 0.0)


def keep_top_k(logits_BV: Logits, k: int) -> Logits:
    """Keep the `k` most likely tokens, and those as likely as the last of them."""
    kth_B1 = logits_BV.topk(min(k, logits_BV.shape[-1])).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)


def apply_temperature(logits_BV: Logits, temperature: float) -> Logits:
    """Divide the logits by a positive temperature."""
    return logits_BV / max(temperature, 1e-200)  # smaller ones would overflow


def keep_top_p(logits_BV: Logits, p: float) -> Logits:
    """Keep the smallest set of most likely tokens whose probabilities add up to `p` (nucleus
    sampling, Holtzman et al. 2020)."""
    sorted_BV, order_BV = logits_BV.sort(descending=True)
    probs_BV = sorted_BV.softmax(-1)
    # A token is dropped if those before it hold p already, so the most likely one always stays.
    dropped_BV = probs_BV.cumsum(-1) - probs_BV >= p
    return logits_BV.masked_fill(dropped_BV.scatter(-1, order_BV, dropped_BV), -torch.inf)


def keep_min_p(logits_BV: Logits, p: float) -> Logits:
    """Keep tokens that are at least `p` times as likely as the most likely one (min-p sampling,
    Nguyen et al. 2024)."""
    limit_B1 = logits_BV.amax(-1, keepdim=True) + math.log(p)
    return logits_BV.masked_fill(logits_BV < limit_B1, -torch.inf)


class RepetitionCounter:
    """Counts the tokens of a batch of streams, and penalizes them.

    The repetition penalty (CTRL, Keskar et al. 2019, section 4.1) applies to tokens of the prompt
    and of the text; frequency and presence penalty (OpenAI's API) to those of the text.
    """

    def __init__(self, prompt: Ids, vocab_size: int, sampling: Sampling, streams: int = 1) -> None:
        self.sampling = sampling
        self.in_prompt_V = torch.zeros(vocab_size, dtype=torch.bool)
        self.in_prompt_V[torch.as_tensor(prompt).long()] = True
        self.counts_BV = torch.zeros(streams, vocab_size)

    def add(self, token_B: Int[Tensor, " B"]) -> None:
        """Count a sampled token of each stream."""
        self.counts_BV.scatter_add_(1, token_B[:, None], torch.ones(len(token_B), 1))

    def __call__(self, logits_BV: Logits) -> Logits:
        """Return the penalized logits."""
        sampling, is_sampled_BV = self.sampling, self.counts_BV > 0
        factor = sampling.repetition_penalty
        scaled_BV = torch.where(logits_BV > 0, logits_BV / factor, logits_BV * factor)
        logits_BV = torch.where(is_sampled_BV | self.in_prompt_V, scaled_BV, logits_BV)
        logits_BV = logits_BV - sampling.frequency_penalty * self.counts_BV
        return logits_BV - sampling.presence_penalty * is_sampled_BV


def logits_processors(sampling: Sampling) -> list[LogitsProcessor]:
    """Return the processors for these settings: top-k, the temperature, top-p, then min-p."""
    if sampling.temperature == 0:
        return [keep_best]
    processors: list[LogitsProcessor] = []
    if sampling.top_k is not None:
        processors.append(partial(keep_top_k, k=sampling.top_k))
    if sampling.temperature != 1:
        processors.append(partial(apply_temperature, temperature=sampling.temperature))
    if sampling.top_p is not None:
        processors.append(partial(keep_top_p, p=sampling.top_p))
    if sampling.min_p is not None:
        processors.append(partial(keep_min_p, p=sampling.min_p))
    return processors


def sampling_probabilities(logits_BV: Logits, sampling: Sampling) -> Logits:
    """Return the distribution that is sampled from."""
    logits_BV = logits_BV.double()
    for process in logits_processors(sampling):
        logits_BV = process(logits_BV)
    return logits_BV.softmax(-1)


def sample_tokens(
    probs_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"]
) -> Int[Tensor, " B"]:
    """Sample by inverting the cumulative distribution at random numbers in [0, 1)."""
    cumulative_BV = probs_BV.cumsum(-1)
    # Scaled by the sum itself, so that rounding never selects beyond the last possible token.
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]


def uniform_noise(seed: int, block: int, streams: range) -> Tensor:
    """Return (streams, NOISE_BLOCK) random numbers in [0, 1) for one block of positions.

    They depend only on the seed, the block and the stream, so that the text of a stream does not
    depend on its neighbors.
    """
    bits = np.random.PCG64((seed, block)).advance(streams.start * NOISE_BLOCK)
    return torch.from_numpy(np.random.Generator(bits).random((len(streams), NOISE_BLOCK)))
