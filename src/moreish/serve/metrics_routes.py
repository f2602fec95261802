"""`/healthz`, and `/metrics` in Prometheus' form."""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from pydantic import BaseModel
from starlette.responses import Response

from moreish.serve.http import GUARD_ERROR_RESPONSES
from moreish.serve.registry import Registry


class Health(BaseModel):
    status: str = "ok"


class _Engines(Collector):
    """What the engines and the event loop say of themselves."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        def gauge(name: str, about: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"moreish_{name}", about, labels=["model"])

        slots = gauge("slots", "Texts that can be written at a time.")
        writing = gauge("texts_writing", "Texts that are being written.")
        waiting = gauge("texts_waiting", "Texts that wait for a slot.")
        requests = gauge("requests_open", "Requests that somebody listens to.")
        tokens = CounterMetricFamily("moreish_tokens", "Tokens drawn.", labels=["model"])
        for served in self._registry:
            engine, name = served.engine, [served.name]
            slots.add_metric(name, engine.slots)
            writing.add_metric(name, engine.writing)
            waiting.add_metric(name, engine.waiting)
            requests.add_metric(name, engine.open)
            tokens.add_metric(name, engine.drawn)
        yield from (slots, writing, waiting, requests, tokens)
        tasks = len(asyncio.all_tasks())
        yield GaugeMetricFamily("moreish_tasks", "Of the event loop, this one too.", value=tasks)


def router(registry: Registry) -> APIRouter:
    """Both routes."""
    api = APIRouter(tags=["monitoring"], responses=GUARD_ERROR_RESPONSES)
    collected = registry.measured.collected
    collected.register(_Engines(registry))

    @api.get("/healthz")
    async def healthz() -> Health:
        """Whether the server answers."""
        return Health()

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(collected), media_type=CONTENT_TYPE_LATEST)

    return api
