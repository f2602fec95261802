"""Decoding: from a prompt to streams of tokens, many at once.

B streams, R those of them that still run through the model, T positions, V vocabulary, N positions
of a block of random numbers.
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
    LogitsProcessor,
    RepetitionCounter,
    Sampling,
    logits_processors,
    sample_tokens,
    suppress,
    uniform_noise,
)
from moreish.models import Model, select_rows
from moreish.tokenizers import Ids

SMALL_STEP = 4_000_000
"""Multiplications per step below which threads spend more time waiting than computing."""


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
    """Continue `prompt` in every stream; yield (B,) tokens and (B,) whether each stream continues.

    The token that ends a stream is yielded once; what follows it in that stream has no meaning. It
    is never the first after itself: no data set has empty items or documents.

    Args:
        prompt: at least one token.
        streams: numbers of the streams. With the same `seed`, stream 7 is the same text alone or
            among others.
        eos_token: the token that ends a stream (the boundary).
        suppressed_token: a token that is never sampled (the unknown word).
        constraint: restricts the texts; applies `sampling` itself.
    """
    assert len(prompt)
    prompt_1S = torch.as_tensor(prompt, device=model.device).long()[None]
    tokens_RT, state = model.skip_to_end(prompt_1S)
    token_B = torch.zeros(len(streams), dtype=torch.long)
    alive_B = torch.ones(len(streams), dtype=torch.bool)
    running_R = torch.arange(len(streams))
    processors: list[LogitsProcessor] = []
    if suppressed_token is not None:
        processors.append(partial(suppress, token=suppressed_token))
    repetitions = None
    if sampling.has_penalties:
        text = prompt[prompt != eos_token]
        repetitions = RepetitionCounter(text, model.vocab_size, sampling, len(streams))
        processors.append(repetitions)
    processors += logits_processors(sampling) if constraint is None else [constraint]
    parameters = sum(p.numel() for p in model.parameters())
    model.eval()
    with fast_module_calls(model, small=parameters < SMALL_STEP):
        for position in range(max_tokens):
            small = tokens_RT.numel() * parameters < SMALL_STEP
            with limit_threads(1 if small else torch.get_num_threads()):
                logits_RTV, state = model(tokens_RT, state)
                logits_RV = logits_RTV[:, -1].cpu().double()
                if position == 0:  # the prompt was read once, for all streams
                    logits_RV, state = select_rows((logits_RV, state), torch.zeros_like(running_R))
                    if eos_token is not None and prompt[-1] == eos_token and constraint is None:
                        logits_RV = suppress(logits_RV, eos_token)
                for process in processors:
                    logits_RV = process(logits_RV)
                if position % NOISE_BLOCK == 0:
                    uniform_RN = uniform_noise(seed, position // NOISE_BLOCK, streams)[running_R]
                uniform_R = uniform_RN[:, position % NOISE_BLOCK]
                token_R = sample_tokens(logits_RV.softmax(-1), uniform_R)
                if constraint is not None:
                    constraint.accept_tokens(token_R)
                if repetitions is not None:
                    repetitions.add(token_R)
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
                    # Drop streams that have ended; a constraint keeps its state of all of them.
                    running_R, token_R, uniform_RN, state = select_rows(
                        (running_R, token_R, uniform_RN, state), alive_R
                    )
                    if repetitions is not None:
                        repetitions.counts_BV = repetitions.counts_BV[alive_R]
            tokens_RT = token_R[:, None].to(tokens_RT.device)


@contextmanager
def fast_module_calls(model: Model, *, small: bool) -> Iterator[None]:
    """Make parameters and submodules plain attributes, and modules without hooks plain functions.

    What `nn.Module` does on every attribute access and call takes a large part of the time that a
    small model needs for a token (docs/dev-log.md).
    """
    replaced = []
    for module in model.modules():
        calls = {name: _fast_call(part, small=small) for name, part in module._modules.items()}
        replaced.append((module.__dict__, {**module._parameters, **calls}))
    for attributes, parts in replaced:
        attributes.update(parts)
    try:
        yield
    finally:
        for attributes, parts in replaced:
            for name in parts:
                attributes.pop(name, None)


class _FastCall(partial[Any]):
    """A module's forward as a plain function, with the attributes of the module."""

    module: nn.Module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _fast_call(module: nn.Module | None, *, small: bool) -> Any:
    if module is None or isinstance(module, nn.ModuleList):
        return module
    if module._forward_hooks or module._forward_pre_hooks:
        return module
    if type(module) is nn.Linear:
        # A product with one vector is a tenth faster if the weights of each input are contiguous.
        # That takes a copy, which large models, bound by memory anyway, can do without.
        weight = module.weight.mT.contiguous().mT if small else module.weight
        call = _FastCall(F.linear, weight=weight, bias=module.bias)
    else:
        call = _FastCall(module.forward)
    call.module = module
    return call


@contextmanager
def limit_threads(number: int) -> Iterator[None]:
    """Let PyTorch use `number` threads; restore the previous number afterward."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
