"""Prompts to streams of tokens, many at once.

B streams, R those of them that still run through the model, T time, V vocabulary, N positions of a
block.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.generate.constrained import ConstrainedDecoder
from moreish.generate.sampling import (
    NOISE_BLOCK,
    Sampling,
    sample_tokens,
    sampling_probabilities,
    uniform_noise,
)
from moreish.models import Model, select_rows
from moreish.tokenizers import Ids

SMALL = 4_000_000
"""Multiplications in a step, below which threads wait for each other longer than they work."""


@torch.inference_mode()
def generate(
    model: Model,
    prompt: Ids,
    *,
    streams: range,
    max_tokens: int,
    sampling: Sampling,
    seed: int,
    eos_token: int | None = None,
    suppressed_token: int | None = None,
    constraint: ConstrainedDecoder | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue `prompt` in every stream; yields (B,) tokens and (B,) whether each stream goes on.

    The token that ends a stream is yielded once, as its last; what comes after it is to be ignored.

    Args:
        prompt: at least one token; of more than the model's length only the last are read.
        streams: numbers of the streams. With the same `seed`, stream 7 is the same text alone or
            among others.
        stop: a token that ends a stream (the boundary).
        never: a token that is not drawn (the unknown word).
        guide: says at each step what may be drawn.
    """
    assert len(prompt)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    read = prompt if model.max_length is None else prompt[-model.max_length :]
    tokens_RT = torch.as_tensor(read, device=device).long()[None]
    token_B = torch.zeros(len(streams), dtype=torch.long)
    alive_B = torch.ones(len(streams), dtype=torch.bool)
    running_R = torch.arange(len(streams))
    parameters = sum(p.numel() for p in model.parameters())
    model.eval()
    state = None
    with _parts_at_hand(model, small=parameters < SMALL):
        for position in range(max_tokens):
            small = tokens_RT.numel() * parameters < SMALL
            with limit_threads(1 if small else torch.get_num_threads()):
                logits_RTV, state = model(tokens_RT, state)
                logits_RV = logits_RTV[:, -1].cpu()
                if suppressed_token is not None:
                    logits_RV = logits_RV.index_fill(
                        1, torch.tensor([suppressed_token]), -torch.inf
                    )
                if position == 0:  # the prompt was read once, for all
                    logits_RV, state = select_rows((logits_RV, state), torch.zeros_like(running_R))
                probs_RV = sampling_probabilities(logits_RV, sampling)
                if constraint is not None:
                    plain_RV = logits_RV.double().softmax(dim=-1)
                    greedy = sampling.temperature == 0
                    probs_RV = constraint.reweight(probs_RV, plain_RV, greedy=greedy)
                if position % NOISE_BLOCK == 0:
                    uniform_RN = uniform_noise(seed, position // NOISE_BLOCK, streams)[running_R]
                token_R = sample_tokens(probs_RV, uniform_RN[:, position % NOISE_BLOCK])
                if constraint is not None:
                    constraint.accept_token(token_R)
            if eos_token is None:
                yield token_R, alive_B
            else:
                token_B = token_B.index_copy(0, running_R, token_R)
                alive_B = alive_B & (token_B != eos_token)
                yield token_B, alive_B
                alive_R = alive_B[running_R]
                if not alive_R.any():
                    return
                if constraint is None and 2 * int(alive_R.sum()) <= len(running_R):
                    # Only those that go on stay; a guide keeps its own books of all.
                    running_R, token_R, uniform_RN, state = select_rows(
                        (running_R, token_R, uniform_RN, state), alive_R
                    )
            tokens_RT = token_R[:, None].to(device)


@contextmanager
def _parts_at_hand(model: Model, *, small: bool) -> Iterator[None]:
    """Parameters and modules as ordinary attributes, and modules without hooks as plain functions:
    what `nn.Module` does beside the work takes a third of the time that a small model needs for a
    token."""
    found = []
    for module in model.modules():
        called = {name: _called(part, small=small) for name, part in module._modules.items()}
        found.append((module.__dict__, {**module._parameters, **called}))
    for attributes, parts in found:
        attributes.update(parts)
    try:
        yield
    finally:
        for attributes, parts in found:
            for name in parts:
                attributes.pop(name, None)


class _Called(partial[Any]):
    """A function that has the attributes of the module it stands for."""

    module: nn.Module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _called(module: nn.Module | None, *, small: bool) -> Any:
    if module is None or isinstance(module, nn.ModuleList):
        return module
    if module._forward_hooks or module._forward_pre_hooks:
        return module
    if type(module) is nn.Linear:
        # A product with one vector is a tenth faster if what each input adds lies together. That
        # takes a copy, which large models, bound by memory anyway, can do without.
        weight = module.weight.mT.contiguous().mT if small else module.weight
        called = _Called(F.linear, weight=weight, bias=module.bias)
    else:
        called = _Called(module.forward)
    called.module = module
    return called


@contextmanager
def limit_threads(number: int) -> Iterator[None]:
    """So many threads; what the user had is back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
