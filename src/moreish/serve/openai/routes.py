"""`/v1`: completions and models."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

from fastapi import APIRouter, Request
from starlette.responses import Response

from moreish.serve.batching import GenerationStream, SequenceDelta
from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    ApiError,
    EventStream,
    bad_request,
    cancel_on_disconnect,
)
from moreish.serve.openai import schemas
from moreish.serve.openai.requests import build_sequence_requests
from moreish.serve.registry import Registry, ServedModel


def router(registry: Registry) -> APIRouter:
    """Return the routes below /v1."""
    api = APIRouter(prefix="/v1", tags=["OpenAI-style"], responses=ERROR_RESPONSES)

    @api.get("/models")
    async def list_models() -> schemas.ModelList:
        """List the served models."""
        return schemas.ModelList(data=[_model_card(served) for served in registry])

    @api.get("/models/{model}")
    async def retrieve_model(model: str) -> schemas.ModelCard:
        """Describe a model."""
        return _model_card(registry.find(model))

    @api.post("/completions", response_model=schemas.Completion, responses=EVENT_STREAM_RESPONSE)
    async def create_completion(body: schemas.CompletionRequest, request: Request) -> Response:
        """Continue prompts; with `stream`, as server-sent events."""
        served = registry.find_writer(body.model)
        if body.stream_options is not None and not body.stream:
            raise bad_request("stream_options", "stream_options is only allowed with stream")
        sequences = build_sequence_requests(body, served, registry.limits)
        stream = served.engine.submit(sequences, registry.limits.seconds)
        if body.stream:
            return EventStream(_chunks(stream, body), stream.close)
        with closing(stream):
            content = await cancel_on_disconnect(_completion(stream, body), request)
        return Response(content, media_type="application/json")

    @api.post("/chat/completions", include_in_schema=False)
    async def create_chat_completion() -> None:
        message = "these models continue text and do not chat: use /v1/completions"
        raise ApiError(404, message)

    return api


def _model_card(served: ServedModel) -> schemas.ModelCard:
    return schemas.ModelCard(id=served.name, created=served.created)


async def _completion(stream: GenerationStream, body: schemas.CompletionRequest) -> str:
    """Wait for all sequences and return the response as JSON."""
    sequences: list[list[SequenceDelta]] = [[] for _ in range(stream.request.num_sequences)]
    async for index, delta in stream:
        sequences[index].append(delta)
    # With logprobs it may be megabytes, which would block the event loop.
    return await asyncio.to_thread(_to_json, stream, body, sequences)


def _to_json(
    stream: GenerationStream, body: schemas.CompletionRequest, sequences: list[list[SequenceDelta]]
) -> str:
    logprobs = body.logprobs is not None
    return schemas.Completion(
        model=body.model,
        choices=[
            schemas.Choice.from_deltas(index, deltas, logprobs=logprobs)
            for index, deltas in enumerate(sequences)
        ],
        usage=schemas.Usage.count(stream),
    ).model_dump_json()


async def _chunks(stream: GenerationStream, body: schemas.CompletionRequest) -> AsyncIterator[str]:
    """Yield the data of each event."""
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    excluded = None if include_usage else {"usage"}
    logprobs = body.logprobs is not None
    chunk = schemas.Completion(model=body.model, choices=[])
    async for index, delta in stream:
        choice = schemas.Choice.from_deltas(index, [delta], logprobs=logprobs)
        update = chunk.model_copy(update={"choices": [choice]})
        yield update.model_dump_json(exclude=excluded)
    if include_usage:
        yield chunk.model_copy(update={"usage": schemas.Usage.count(stream)}).model_dump_json()
    yield "[DONE]"
