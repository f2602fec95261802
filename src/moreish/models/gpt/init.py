"""Initial weights of a GPT."""

import math
from typing import Any

from torch import nn

from moreish.models.gpt.config import GPTConfig

SKIPPED_AT_FIRST = ("ngram_embeddings.", "feature_projection.")
"""Parts that start at zero, so that training begins as without them."""


def init_weights(model: Any, config: GPTConfig) -> None:
    """Initialize all weights of `model`, a GPT of these settings; biases start at zero.

    `init="gpt2"`: normal with standard deviation 0.02, and 0.02 / sqrt(2 · layers) for the layers
    that write to the residual stream (Radford et al. 2019, section 2.3).

    `init="scaled"`: normal with standard deviation 1 / sqrt(fan-in), so that every layer keeps the
    scale of its input, with the same factor 1 / sqrt(2 · layers); embeddings of size one; and an
    output layer that makes the first prediction uniform. Narrow models learn much faster so
    (docs/dev-log.md).
    """
    gpt2 = config.init == "gpt2"
    if gpt2 and config.tied:
        model.head.weight = model.embedding.weight
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or (not gpt2 and name.startswith(SKIPPED_AT_FIRST)):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            embeds = name in ("embedding.weight", "position.weight")
            fan_in = 1 if embeds else parameter.shape[1]
            depth = 2 * config.layers if name.endswith(("out.weight", "down.weight")) else 1
            std = 0.02 * depth**-0.5 if gpt2 else (fan_in * depth) ** -0.5
            nn.init.normal_(parameter, std=std)
    if gpt2:
        return
    if not config.tied:
        nn.init.zeros_(model.head.weight)
        return
    # The last token's own embedding is in the residual stream, so a tied model would begin by
    # repeating its input, the more surely the wider it is; a small scale keeps it uniform.
    if isinstance(model.norm, nn.Identity):
        nn.init.normal_(model.embedding.weight, std=0.02 / math.sqrt(config.width))
    for name, gain in model.norm.named_parameters():
        nn.init.constant_(gain, 0.0 if name == "bias" else 0.5 / config.width)
    model.head.weight = model.embedding.weight
