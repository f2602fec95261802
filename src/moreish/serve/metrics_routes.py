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

ENGINE_METRICS = (
    (GaugeMetricFamily, "slots", "slots", "Maximum number of texts that are generated at a time."),
    (GaugeMetricFamily, "texts_writing", "num_running", "Texts that are being generated."),
    (GaugeMetricFamily, "texts_waiting", "num_waiting", "Texts that wait for a slot."),
    (GaugeMetricFamily, "requests_open", "num_requests", "Generation requests in progress."),
    (CounterMetricFamily, "tokens", "num_generated", "Generated tokens."),
)
"""The type, name, attribute of `Engine` and description of each metric."""


class Health(BaseModel):
    status: str = "ok"


class _EngineCollector(Collector):
    """Reads the current state of the engines and of the event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family, name, attribute, help_text in ENGINE_METRICS:
            metric = family(f"moreish_{name}", help_text, labels=["model"])
            for served in self._registry:
                metric.add_metric([served.name], getattr(served.engine, attribute))
            yield metric
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
