"""What a GPT's weights are before it learns."""

import math
from typing import Any

from torch import nn

from moreish.models.gpt.config import GPTConfig


def init_weights(model: Any, config: GPTConfig) -> None:
    """Every layer keeps the scale of its input, those that end on the residual path add less of
    it the more there are (Radford et al. 2019, section 2.3), and the first guess is uniform.

    GPT-2's own deviation of 0.02 suits its width; the narrow models of a laptop learn far
    faster from embeddings of size one (docs/dev-log.md).
    """
    if config.init == "gpt2":
        _as_gpt2(model, config)
        return
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.startswith(("ngram_embeddings.", "feature_projection.")):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            embeds = name in ("embedding.weight", "position.weight")
            joins = config.residual and name.endswith(("out.weight", "down.weight"))
            inputs = 1 if embeds else parameter.shape[1]
            nn.init.normal_(parameter, std=(inputs * (2 * config.layers if joins else 1)) ** -0.5)
    if not config.tied:
        nn.init.zeros_(model.head.weight)
        return
    # The last position's own embedding is in the stream, so a tied model would start by
    # repeating its input, the surer the wider it is; a small scale keeps it uniform.
    if isinstance(model.norm, nn.Identity):
        nn.init.normal_(model.embedding.weight, std=0.02 / math.sqrt(config.width))
    for name, gain in model.norm.named_parameters():
        nn.init.constant_(gain, 0.0 if name == "bias" else 0.5 / config.width)
    model.head.weight = model.embedding.weight


def _as_gpt2(model: Any, config: GPTConfig) -> None:
    """Radford et al. 2019, section 2.3, and their code: 0.02, of projections onto the residual
    path over the root of how many there are."""
    if config.tied:
        model.head.weight = model.embedding.weight
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            joins = name.endswith(("out.weight", "down.weight"))
            nn.init.normal_(parameter, std=0.02 * (2 * config.layers if joins else 1) ** -0.5)
