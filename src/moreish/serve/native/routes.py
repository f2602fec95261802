"""`/api`: the views of the page, except for training."""

import math
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

import torch
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from moreish.serve.batching import GenerationStream, TokenLogprob
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    EventStream,
    cancel_on_disconnect,
)
from moreish.serve.native import beginnings, inspect, lists, predict, schemas
from moreish.serve.openai import Usage, build_sequence_requests
from moreish.serve.registry import Registry, ServedModel
from moreish.tokenizers import Tokenizer


def router(
    registry: Registry, executor: BackgroundExecutor, *, training: bool = False
) -> APIRouter:
    """Return the routes below /api, except for those of `jobs`.

    Args:
        registry: the served models.
        executor: runs the computations.
        training: whether the server has the training routes.
    """
    api = APIRouter(prefix="/api", tags=["native"], responses=ERROR_RESPONSES)
    limits = registry.limits

    async def respond(
        request: Request,
        compute: Callable[..., BaseModel],
        model: str,
        *args: Any,
        find: Callable[[str], ServedModel] = registry.find_writer,
    ) -> Response:
        """Respond with the result of a computation in the background. It does not start if the
        client disconnects, or the deadline passes, while it waits."""
        work = executor.run(_compute_json, compute, find(model), *args)
        content = await cancel_on_disconnect(work, request, limits.seconds)
        return Response(content, media_type="application/json")

    @api.get("/models")
    def models() -> schemas.ModelInfoList:
        """Describe the served models and the views that each of them has."""
        found = [inspect.describe_model(served, limits) for served in registry]
        return schemas.ModelInfoList(
            models=found,
            loading=registry.num_loading,
            training=training,
            version=version("moreish"),
        )

    @api.post("/surprisal", response_model=schemas.SurprisalResponse)
    async def surprisal(body: schemas.SurprisalRequest, request: Request) -> Response:
        """Score every token of a text."""
        return await respond(request, inspect.compute_surprisal, body.model, body, limits)

    @api.post("/next", response_model=schemas.NextResponse)
    async def next_token(body: schemas.NextRequest, request: Request) -> Response:
        """Return the probabilities of the next token, before and after the sampling settings."""
        return await respond(request, inspect.predict_next, body.model, body, limits)

    @api.post("/attention", response_model=schemas.AttentionResponse)
    async def attention(body: schemas.AttentionRequest, request: Request) -> Response:
        """Return the attention weights of one layer for a text."""
        return await respond(request, inspect.compute_attention, body.model, body, limits)

    @api.get("/embedding", response_model=schemas.EmbeddingResponse)
    async def embedding(model: str, request: Request) -> Response:
        """Return two principal components of the most frequent tokens' embeddings."""
        return await respond(request, inspect.project_embedding, model)

    @api.get("/beginnings", response_model=schemas.BeginningsResponse)
    async def list_beginnings(model: str, request: Request) -> Response:
        """Return how lines of the training data begin, as suggestions for a prompt."""
        return await respond(request, beginnings.find_beginnings, model)

    @api.get("/pairs", response_model=schemas.PairsResponse)
    async def pairs(model: str, request: Request) -> Response:
        """Return which token follows which in the training data and according to the model."""
        return await respond(request, inspect.count_pairs, model)

    @api.get("/history", response_model=schemas.HistoryResponse)
    async def history(model: str, request: Request) -> Response:
        """Return what the run logged."""
        return await respond(request, inspect.served_history, model, find=registry.find)

    @api.post("/predict", response_model=schemas.PredictResponse)
    async def predict_targets(body: schemas.PredictRequest, request: Request) -> Response:
        """Predict the targets of inputs, for models of examples."""
        return await respond(request, predict.predict, body.model, body, limits, find=registry.find)

    @api.get("/mistakes", response_model=schemas.MistakesResponse)
    async def mistakes(model: str, request: Request) -> Response:
        """Return the worst mistakes of a model of examples on its validation split."""
        return await respond(request, predict.find_mistakes, model, find=registry.find)

    @api.post("/list")
    async def list_items(body: schemas.ListRequest, request: Request) -> schemas.ListResponse:
        """Generate items that match, each with the item of the data nearest to it."""
        work = lists.list_items(registry.find_writer(body.model), body, executor, limits)
        return await cancel_on_disconnect(work, request, limits.seconds)

    @api.post("/novelty")
    async def novelty(body: schemas.NoveltyRequest, request: Request) -> schemas.NoveltyResponse:
        """Compare texts with the training data."""
        work = lists.measure_novelty(registry.find_writer(body.model), body, executor, limits)
        return await cancel_on_disconnect(work, request, limits.seconds)

    @api.post("/write", response_class=Response, responses=EVENT_STREAM_RESPONSE)
    async def write(body: schemas.NativeWriteRequest) -> Response:
        """Continue prompts, with a server-sent event for each token."""
        served = registry.find_writer(body.model)
        sequences = build_sequence_requests(body, served, limits)
        stream = served.engine.submit(sequences, limits.seconds)
        return EventStream(_write_events(stream, served), stream.close)

    return api


@torch.inference_mode()
def _compute_json(compute: Callable[..., BaseModel], *args: Any) -> str:
    """Serialize in the background too, since results may be large."""
    return compute(*args).model_dump_json()


async def _write_events(stream: GenerationStream, served: ServedModel) -> AsyncIterator[str]:
    """Yield the data of each event."""
    tokenizer = served.run.tokenizer
    async for index, delta in stream:
        tokens = [
            _generated_token(tokenizer, token)
            for token in delta.tokens
            if token.id != tokenizer.boundary_id
        ]
        yield schemas.WriteEvent(
            place=index, text=delta.text, tokens=tokens, finish=delta.finish_reason
        ).model_dump_json()
    yield schemas.WriteDone(usage=Usage.count(stream)).model_dump_json()


def _generated_token(tokenizer: Tokenizer, token: TokenLogprob) -> schemas.GeneratedToken:
    return schemas.GeneratedToken(
        **dict(inspect.render_token(tokenizer, token.id, token.previous)),
        p=None if token.logprob is None else math.exp(token.logprob),
        offset=token.offset,
        top=[
            schemas.TokenAlternative(
                **dict(inspect.render_token(tokenizer, one, token.previous)), p=math.exp(log)
            )
            for one, _, log in token.top
        ],
    )
