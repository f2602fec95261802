"""`/healthz`, and `/metrics` for Prometheus."""

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


class _EngineCollector(Collector):
    """Reads the current state of the engines and of the event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        def gauge(name: str, help_text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"moreish_{name}", help_text, labels=["model"])

        slots = gauge("slots", "Maximum number of texts that are generated at a time.")
        running = gauge("texts_writing", "Texts that are being generated.")
        waiting = gauge("texts_waiting", "Texts that wait for a slot.")
        requests = gauge("requests_open", "Generation requests in progress.")
        tokens = CounterMetricFamily("moreish_tokens", "Generated tokens.", labels=["model"])
        for served in self._registry:
            engine, name = served.engine, [served.name]
            slots.add_metric(name, engine.slots)
            running.add_metric(name, engine.num_running)
            waiting.add_metric(name, engine.num_waiting)
            requests.add_metric(name, engine.num_requests)
            tokens.add_metric(name, engine.num_generated)
        yield from (slots, running, waiting, requests, tokens)
        tasks = len(asyncio.all_tasks())
        yield GaugeMetricFamily("moreish_tasks", "Tasks of the event loop.", value=tasks)


def router(registry: Registry) -> APIRouter:
    """Return the monitoring routes."""
    api = APIRouter(tags=["monitoring"], responses=GUARD_ERROR_RESPONSES)
    collectors = registry.metrics.registry
    collectors.register(_EngineCollector(registry))

    @api.get("/healthz")
    async def healthz() -> Health:
        """Return that the server is up."""
        return Health()

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return metrics in Prometheus' text format."""
        return Response(generate_latest(collectors), media_type=CONTENT_TYPE_LATEST)

    return api
