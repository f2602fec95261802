"""`/api`: what the page shows of models."""

import json
import math
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

import torch
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from moreish.serve.batching import GenerationStream, SequenceRequest, TokenLogprob
from moreish.serve.executor import BackgroundExecutor
from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    EventStream,
    cancel_on_disconnect,
    with_error_event,
)
from moreish.serve.native import inspect as looking
from moreish.serve.native import lists as listing
from moreish.serve.native import schemas as shapes
from moreish.serve.openai import Usage, build_sequence_requests
from moreish.serve.registry import Registry, ServedModel


def router(registry: Registry, side: BackgroundExecutor, *, training: bool = False) -> APIRouter:
    """The routes below /api, but for those of trainings; `training` says whether there are such."""
    api = APIRouter(prefix="/api", tags=["native"], responses=ERROR_RESPONSES)
    limits = registry.limits

    async def told(request: Request, work: Callable[..., BaseModel], *given: Any) -> Response:
        """What the work on the side comes to; where it still waits when the client goes, or the
        time is over, it is not begun."""
        found = await cancel_on_disconnect(
            side.run(_as_json, work, *given), request, limits.seconds
        )
        json_type = "application/json"
        return found if isinstance(found, Response) else Response(found, media_type=json_type)

    @api.get("/models")
    def models() -> shapes.ModelInfoList:
        """What is served, and what can be looked at in it."""
        found = [looking.describe_model(served) for served in registry]
        return shapes.ModelInfoList(models=found, training=training, version=version("moreish"))

    @api.post("/surprisal", response_model=shapes.SurprisalResponse)
    async def surprisal(asked: shapes.SurprisalRequest, request: Request) -> Response:
        """Every token of a text, and how little it was expected."""
        return await told(request, looking.surprisal, registry.find(asked.model), asked, limits)

    @api.post("/next", response_model=shapes.NextResponse)
    async def following(asked: shapes.NextRequest, request: Request) -> Response:
        """What may come after a prompt, as the model says and as it is drawn."""
        return await told(request, looking.predict_next, registry.find(asked.model), asked, limits)

    @api.post("/attention", response_model=shapes.AttentionResponse)
    async def attention(asked: shapes.AttentionRequest, request: Request) -> Response:
        """Where each token of a text looks, in one layer."""
        return await told(request, looking.attention, registry.find(asked.model), asked, limits)

    @api.get("/embedding", response_model=shapes.EmbeddingResponse)
    async def embedding(model: str, request: Request) -> Response:
        """The most frequent tokens, where the two widest axes of their vectors have them."""
        return await told(request, looking.embedding, registry.find(model))

    @api.get("/pairs", response_model=shapes.PairsResponse)
    async def pairs(model: str, request: Request) -> Response:
        """What followed what in the training data, and what the model expects."""
        return await told(request, looking.pairs, registry.find(model))

    @api.get("/history", response_model=shapes.HistoryResponse)
    async def history(model: str, request: Request) -> Response:
        """What the training logged."""
        return await told(request, looking.history, registry.find(model))

    @api.post("/list", response_model=shapes.ListResponse)
    async def listed(asked: shapes.ListRequest, request: Request) -> Any:
        """Items that match, and what each is nearest to."""
        served = registry.find(asked.model)
        return await cancel_on_disconnect(
            listing.list_items(served, asked, side, limits), request, limits.seconds
        )

    @api.post("/novelty", response_model=shapes.NoveltyResponse)
    async def novelty(asked: shapes.NoveltyRequest, request: Request) -> Any:
        """What texts owe to the training data."""
        served = registry.find(asked.model)
        return await cancel_on_disconnect(
            listing.novelty(served, asked, side, limits), request, limits.seconds
        )

    @api.post("/write", response_class=Response, responses=EVENT_STREAM_RESPONSE)
    async def write(asked: shapes.NativeWriteRequest) -> Response:
        """Continue prompts: an event for what a text gains by each token."""
        served = registry.find(asked.model)
        asks = build_sequence_requests(asked, served, limits)
        answer = served.engine.submit(asks, limits.seconds)
        events = with_error_event(_events(answer, served, asks), json.dumps)
        return EventStream(events, answer.close)

    return api


@torch.inference_mode()
def _as_json(work: Callable[..., BaseModel], *given: Any) -> str:
    """Large answers are written on the side too."""
    return work(*given).model_dump_json()


async def _events(
    answer: GenerationStream, served: ServedModel, asks: list[SequenceRequest]
) -> AsyncIterator[str]:
    drawn, boundary = 0, served.run.tokenizer.boundary_id
    async for some in answer:
        for place, piece in some:
            drawn += piece.drawn
            if not (piece.text or piece.tokens or piece.finish):
                continue
            yield shapes.WriteEvent(
                place=place,
                text=piece.text,
                tokens=[_written(served, token) for token in piece.tokens if token.id != boundary],
                finish=piece.finish,
            ).model_dump_json()
    usage = Usage.of(sum(len(ask.prompt) for ask in asks), drawn)
    yield shapes.WriteDone(usage=usage).model_dump_json()


def _written(served: ServedModel, drawn: TokenLogprob) -> shapes.GeneratedToken:
    tokenizer = served.run.tokenizer
    return shapes.GeneratedToken(
        **dict(looking.render_token(tokenizer, drawn.id)),
        p=None if drawn.logprob is None else math.exp(drawn.logprob),
        offset=drawn.offset,
        top=[
            shapes.TokenAlternative(**dict(looking.render_token(tokenizer, other)), p=math.exp(log))
            for other, _, log in drawn.top
        ],
    )
