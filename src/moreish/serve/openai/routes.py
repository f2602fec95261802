"""`/v1`: completions and models, as OpenAI's clients ask for them."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from moreish.serve.batching import GenerationStream, SequenceDelta, SequenceRequest
from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    ApiError,
    EventStream,
    Limits,
    bad_request,
    cancel_on_disconnect,
    with_error_event,
)
from moreish.serve.openai.schemas import (
    BaseCompletionRequest,
    Completion,
    CompletionRequest,
    ModelCard,
    ModelList,
    Usage,
    make_choice,
)
from moreish.serve.registry import Registry, ServedModel
from moreish.tokenizers import Ids

DEFAULT_TOKENS = 16


def router(registry: Registry) -> APIRouter:
    """The routes below /v1."""
    api = APIRouter(prefix="/v1", tags=["OpenAI-style"], responses=ERROR_RESPONSES)

    @api.get("/models")
    async def list_models() -> ModelList:
        """What is served."""
        return ModelList(data=[_card(served) for served in registry])

    @api.get("/models/{model}")
    async def retrieve_model(model: str) -> ModelCard:
        """One of them."""
        return _card(registry.find(model))

    @api.post("/completions", response_model=Completion, responses=EVENT_STREAM_RESPONSE)
    async def create_completion(asked: CompletionRequest, request: Request) -> Any:
        """Continue prompts; with `stream`, as server-sent events."""
        served = registry.find(asked.model)
        if asked.stream_options is not None and not asked.stream:
            raise bad_request("stream_options", "stream_options: only with stream")
        asks = build_sequence_requests(asked, served, registry.limits)
        answer = served.engine.submit(asks, registry.limits.seconds)
        if asked.stream:
            events = with_error_event(_events(answer, asked, asks), json.dumps)
            return EventStream(events, answer.close)
        with closing(answer):
            return await cancel_on_disconnect(_whole(answer, asked, asks), request)

    @api.post("/chat/completions", include_in_schema=False)
    async def no_chat() -> None:
        raise ApiError(404, "the models here complete texts: use /v1/completions")

    return api


def _card(served: ServedModel) -> ModelCard:
    return ModelCard(id=served.name, created=served.since)


def build_sequence_requests(
    asked: BaseCompletionRequest, served: ServedModel, limits: Limits
) -> list[SequenceRequest]:
    """What the engine is to do. Raises ApiError (400) where it cannot or must not."""
    for name, plain in (
        ("suffix", (None, "")),
        ("frequency_penalty", (None, 0)),
        ("presence_penalty", (None, 0)),
        ("logit_bias", (None, {})),
        ("best_of", (None, 1, asked.n)),
    ):
        if getattr(asked, name) not in plain:
            raise bad_request(name, f"{name} is not supported: leave it out")
    n = asked.n or 1
    most = DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens
    for name, value, limit in (
        ("n", n, limits.n),
        ("max_tokens", most, limits.max_tokens),
        ("logprobs", asked.logprobs or 0, limits.logprobs),
    ):
        if value > limit:
            raise bad_request(name, f"{name}: {value:,} is more than {limit:,}, the most here")
    prompts = _prompts(asked, served, limits)
    told = bool(asked.echo) and asked.logprobs is not None
    if sum(most + (len(ids) if told else 0) for ids in prompts) * n > limits.total_tokens:
        raise bad_request(
            "max_tokens",
            f"{len(prompts)} prompt(s), n={n} and max_tokens={most:,}{' with echo' * told} make "
            f"more than {limits.total_tokens:,} tokens, the most of a request",
        )
    if len(prompts) * n > (room := limits.queue + served.engine.slots):
        raise bad_request("n", f"{len(prompts)} prompt(s) and n={n} make more than {room} texts")
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    seed = random.getrandbits(63) if asked.seed is None else asked.seed % 2**63
    asks = []
    for ids in prompts:
        lead = served.run.lead(ids)
        reach = served.run.model.max_length
        if told and reach is not None and len(lead) + len(ids) > reach:
            raise bad_request(
                "prompt",
                f"echo with logprobs: the prompt has {len(ids):,} tokens, and the model reads "
                f"{reach - len(lead):,} at a time",
            )
        asks.append(
            SequenceRequest(
                lead=lead,
                prompt=ids,
                max_tokens=most,
                sampling=asked.sampling,
                seed=seed,
                n=n,
                stop=tuple(stop),
                logprobs=asked.logprobs,
                echo=bool(asked.echo),
            )
        )
    return asks


def _prompts(asked: BaseCompletionRequest, served: ServedModel, limits: Limits) -> list[Ids]:
    """The ids of each prompt."""
    given = "" if asked.prompt is None else asked.prompt
    if isinstance(given, str):
        prompts: list[Any] = [given]
    elif given and isinstance(given[0], int):
        prompts = [given]
    else:
        prompts = list(given)
    if not prompts:
        raise bad_request("prompt", "prompt: an empty list; give a text")
    if len(prompts) > limits.prompts:
        raise bad_request("prompt", f"{len(prompts)} prompts are more than {limits.prompts}")
    if (size := sum(map(len, prompts))) > limits.prompt_characters:
        raise bad_request(
            "prompt", f"{size:,} characters are more than {limits.prompt_characters:,}"
        )
    return [encode_prompt(prompt, served) for prompt in prompts]


def encode_prompt(prompt: str | list[int], served: ServedModel, param: str = "prompt") -> Ids:
    """Raises ApiError (400), about this parameter, when the model never saw some of it."""
    tokenizer = served.run.tokenizer
    if isinstance(prompt, str):
        if missing := tokenizer.find_unknown(prompt):
            shown = " ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
            raise bad_request(param, f"the model never saw {shown}")
        return tokenizer.encode(prompt)
    if wrong := [token for token in prompt if not 0 <= token < tokenizer.vocab_size]:
        raise bad_request(param, f"{wrong[0]} is no token: there are {tokenizer.vocab_size:,}")
    return np.array(prompt, dtype=np.int64)


async def _whole(
    answer: GenerationStream, asked: CompletionRequest, asks: list[SequenceRequest]
) -> Response:
    pieces: list[list[SequenceDelta]] = [[] for _ in range(answer.job.texts)]
    async for some in answer:
        for place, piece in some:
            pieces[place].append(piece)
    # With many tokens told it is megabytes, for which others must not wait.
    json = await asyncio.to_thread(_as_json, asked, asks, pieces)
    return Response(json, media_type="application/json")


def _as_json(
    asked: CompletionRequest, asks: list[SequenceRequest], pieces: list[list[SequenceDelta]]
) -> str:
    logprobs = asked.logprobs is not None
    return Completion(
        model=asked.model,
        choices=[make_choice(i, of, logprobs=logprobs) for i, of in enumerate(pieces)],
        usage=_usage(asks, pieces),
    ).model_dump_json()


def _usage(asks: list[SequenceRequest], pieces: list[list[SequenceDelta]]) -> Usage:
    drawn = sum(piece.drawn for of in pieces for piece in of)
    return Usage.of(sum(len(ask.prompt) for ask in asks), drawn)


async def _events(
    answer: GenerationStream, asked: CompletionRequest, asks: list[SequenceRequest]
) -> AsyncIterator[str]:
    options = asked.stream_options
    with_usage = options is not None and options.include_usage
    logprobs = asked.logprobs is not None
    head = Completion(model=asked.model, choices=[])
    left_out = None if with_usage else {"usage"}
    drawn = 0
    async for some in answer:
        for place, piece in some:
            drawn += piece.drawn
            if not (piece.text or piece.tokens or piece.finish):
                continue
            choice = make_choice(place, [piece], logprobs=logprobs)
            yield head.model_copy(update={"choices": [choice]}).model_dump_json(exclude=left_out)
    if with_usage:
        usage = Usage.of(sum(len(ask.prompt) for ask in asks), drawn)
        yield head.model_copy(update={"usage": usage}).model_dump_json()
    yield "[DONE]"
