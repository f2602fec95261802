"""What is counted as requests come and go, for Prometheus."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram

from moreish.serve.batching import GenerationStream

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.collected = CollectorRegistry()
        self.requests = Counter(
            "moreish_requests", "Answers, by status.", ["status"], registry=self.collected
        )
        self.first_token = Histogram(
            "moreish_first_token_seconds",
            "From a request for a completion to its first token.",
            ["model"],
            buckets=SECONDS,
            registry=self.collected,
        )
        self.request = Histogram(
            "moreish_completion_seconds",
            "From a request for a completion to its end.",
            ["model"],
            buckets=SECONDS,
            registry=self.collected,
        )

    def answered(self, status: int) -> None:
        """A request has its answer, or the beginning of it."""
        self.requests.labels(status).inc()

    def completion(self, model: str, answer: GenerationStream) -> None:
        """A request for a completion is over."""
        if answer.first_token is not None:
            self.first_token.labels(model).observe(answer.first_token)
        self.request.labels(model).observe(time.monotonic() - answer.job.asked_at)
