"""From the body of a completion request to what the engine generates."""

import random
from typing import Any

import numpy as np

from moreish.errors import MoreishError
from moreish.serve.batching import SequenceRequest
from moreish.serve.http import Limits, bad_request
from moreish.serve.openai.schemas import BaseCompletionRequest, RememberParams
from moreish.serve.registry import ServedModel
from moreish.tokenizers import Ids
from moreish.utils.text import plural

DEFAULT_MAX_TOKENS = 16


def build_sequence_requests(
    body: BaseCompletionRequest, served: ServedModel, limits: Limits
) -> list[SequenceRequest]:
    """Return a request for each prompt.

    Raises:
        ApiError: a parameter is invalid, not supported, or exceeds a limit (400).
    """
    for name, neutral in (
        ("suffix", (None, "")),
        ("logit_bias", (None, {})),
        ("best_of", (None, 1, body.n)),
    ):
        if getattr(body, name) not in neutral:
            raise bad_request(name, f"{name} is not supported: leave it out")
    n = body.n or 1
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    for name, value, limit in (
        ("n", n, limits.n),
        ("max_tokens", max_tokens, limits.max_tokens),
        ("logprobs", body.logprobs or 0, limits.logprobs),
    ):
        if value > limit:
            raise bad_request(name, f"{name}: {value:,} exceeds the limit of {limit:,}")
    prompts = _encode_prompts(body, served, limits)
    scores_prompt = bool(body.echo) and body.logprobs is not None
    total = sum(max_tokens + (len(ids) if scores_prompt else 0) for ids in prompts) * n
    if total > limits.total_tokens:
        raise bad_request(
            "max_tokens",
            f"{plural(len(prompts), 'prompt')} with n={n} and max_tokens={max_tokens:,}"
            f"{' with echo' * scores_prompt} may need {total:,} tokens; the limit of a request is "
            f"{limits.total_tokens:,}",
        )
    if len(prompts) * n > (room := limits.queue + served.engine.slots):
        message = f"{plural(len(prompts), 'prompt')} with n={n} exceed the limit of {room} texts"
        raise bad_request("n", message)
    seed = random.getrandbits(63) if body.seed is None else body.seed % 2**63
    requests = []
    for ids in prompts:
        prefix = encode_remembered(body, served, limits, ids)
        max_length = served.run.model.max_length
        if scores_prompt and max_length is not None and len(prefix) + len(ids) > max_length:
            raise bad_request(
                "prompt",
                f"echo with logprobs: the prompt has {len(ids):,} tokens; the model reads at most "
                f"{max(0, max_length - len(prefix)):,}",
            )
        requests.append(
            SequenceRequest(
                prefix=prefix,
                prompt=ids,
                max_tokens=max_tokens,
                sampling=body.sampling,
                seed=seed,
                n=n,
                stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
                logprobs=body.logprobs,
                echo=bool(body.echo),
            )
        )
    return requests


def _encode_prompts(body: BaseCompletionRequest, served: ServedModel, limits: Limits) -> list[Ids]:
    """Return the token ids of each prompt."""
    prompt = "" if body.prompt is None else body.prompt
    is_single = isinstance(prompt, str) or (prompt and isinstance(prompt[0], int))
    prompts: list[Any] = [prompt] if is_single else list(prompt)
    if not prompts:
        raise bad_request("prompt", "prompt: the list is empty; give a text")
    if len(prompts) > limits.prompts:
        message = f"{len(prompts)} prompts exceed the limit of {limits.prompts}"
        raise bad_request("prompt", message)
    if (size := sum(map(len, prompts))) > (limit := limits.prompt_characters):
        raise bad_request("prompt", f"{size:,} characters exceed the limit of {limit:,}")
    return [encode_prompt(prompt, served) for prompt in prompts]


def encode_remembered(
    body: RememberParams, served: ServedModel, limits: Limits, prompt: Ids
) -> Ids:
    """Return the tokens that a model reads before a prompt.

    Raises:
        ApiError: the text to remember is too long or has unknown characters, or the model has no
            memory (400).
    """
    text = body.remember or ""
    if (size := len(text)) > (limit := limits.prompt_characters):
        message = f"remember: {size:,} characters exceed the limit of {limit:,}"
        raise bad_request("remember", message)
    try:
        return served.run.encode_remembered(text, body.remember_unknown, prompt)
    except MoreishError as error:
        message = str(error).replace("--unknown drop", "remember_unknown=drop")
        raise bad_request("remember", f"remember: {message}") from None


def encode_prompt(prompt: str | list[int], served: ServedModel, param: str = "prompt") -> Ids:
    """Return the token ids of a text, or check token ids.

    Args:
        prompt: a text or token ids.
        served: the model.
        param: the name of the parameter, for the error.

    Raises:
        ApiError: the model's vocabulary does not have all of it (400).
    """
    tokenizer = served.run.tokenizer
    if isinstance(prompt, str):
        if missing := tokenizer.find_unknown(prompt):
            shown = " ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
            raise bad_request(param, f"not in the model's vocabulary: {shown}")
        return tokenizer.encode(prompt)
    if invalid := [token for token in prompt if not 0 <= token < tokenizer.vocab_size]:
        message = f"{invalid[0]} is not a token id: there are {tokenizer.vocab_size:,}"
        raise bad_request(param, message)
    return np.array(prompt, dtype=np.int64)
