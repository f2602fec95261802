"""Prometheus metrics of requests."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram

from moreish.serve.batching import GenerationStream

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Upper bounds of the histograms' buckets, in seconds."""


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._responses = Counter(
            "moreish_requests", "HTTP responses by status.", ["status"], registry=self.registry
        )
        self._first_token, self._completion = (
            Histogram(
                f"moreish_{name}_seconds",
                f"Seconds from a generation request to its {event}.",
                ["model"],
                buckets=BUCKETS,
                registry=self.registry,
            )
            for name, event in (("first_token", "first token"), ("completion", "end"))
        )

    def count_response(self, status: int) -> None:
        """Count a response when it starts."""
        self._responses.labels(status).inc()

    def observe_generation(self, model: str, stream: GenerationStream) -> None:
        """Record the times of a generation request that is over."""
        if stream.time_to_first_token is not None:
            self._first_token.labels(model).observe(stream.time_to_first_token)
        seconds = time.monotonic() - stream.request.submitted_at
        self._completion.labels(model).observe(seconds)
