"""Prompts to streams of tokens, many at once.

B streams, T time, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from moreish.generate.constraints import Guide
from moreish.generate.sampling import Sampling, draw, probabilities, uniforms
from moreish.models.base import Model
from moreish.tokenizers.base import Ids


@torch.inference_mode()
def generate(
    model: Model,
    prompt: Ids,
    *,
    streams: range,
    max_tokens: int,
    sampling: Sampling,
    seed: int,
    stop: int | None = None,
    guide: Guide | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue `prompt` in every stream; yields (B,) tokens and (B,) whether each stream goes on.

    The token that ends a stream is yielded once, as its last; what comes after it is to be ignored.

    Args:
        prompt: at least one token; of more than the model's length only the last are read.
        streams: numbers of the streams. With the same `seed`, stream 7 is the same text alone or
            among others.
        stop: a token that ends a stream (the boundary).
        guide: says at each step what may be drawn.
    """
    assert len(prompt)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    read = prompt if model.max_length is None else prompt[-model.max_length :]
    tokens_BT = torch.as_tensor(read, device=device).long().expand(len(streams), -1)
    alive_B = torch.ones(len(streams), dtype=torch.bool)
    model.eval()
    state = None
    for position in range(max_tokens):
        logits_BTV, state = model(tokens_BT, state)
        logits_BV = logits_BTV[:, -1].cpu()
        shares_BV = probabilities(logits_BV, sampling)
        if guide is not None:
            plain_BV = logits_BV.double().softmax(dim=-1)
            shares_BV = guide.steer(shares_BV, plain_BV, greedy=sampling.temperature == 0)
        uniform_B = uniforms(seed, position, streams.stop)[streams.start :]
        token_B = draw(shares_BV, uniform_B)
        if guide is not None:
            guide.advance(token_B)
        if stop is not None:
            alive_B = alive_B & (token_B != stop)
        yield token_B, alive_B
        if not alive_B.any():
            return
        tokens_BT = token_B[:, None].to(device)
