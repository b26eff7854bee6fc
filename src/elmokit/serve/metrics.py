"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = tuple(2**n for n in range(0, 15))


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (prometheus_client.ProcessCollector, prometheus_client.PlatformCollector):
            collector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        shared = {"registry": self.registry}
        self.requests = Counter("elmo_requests", "Requests, by route and status.", ["route", "status"], **shared)
        self.seconds = Histogram(
            "elmo_request_seconds", "From the first byte of a request to the last of its reply.", ["route"],
            buckets=_SECONDS, **shared,
        )  # fmt: skip
        self.tokens = Counter("elmo_tokens", "Tokens that were asked about.", ["model", "task"], **shared)
        self.batch_tokens = Histogram("elmo_batch_tokens", "Tokens computed together.", buckets=_COUNTS, **shared)
        self.batch_items = Histogram("elmo_batch_sentences", "Sentences computed together.", buckets=_COUNTS, **shared)
        self.batch_seconds = Histogram("elmo_batch_seconds", "Time to compute a batch.", buckets=_SECONDS, **shared)
        self.queue = Gauge("elmo_queue_tokens", "Tokens that are waiting or being computed.", **shared)
        self.in_flight = Gauge("elmo_requests_in_flight", "Requests that are not answered yet.", **shared)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Have the depth of the queue read when the metrics are."""
        self.queue.set_function(waiting)

    def computed(self, *, items: int, tokens: int, seconds: float) -> None:
        """Note a batch."""
        self.batch_items.observe(items)
        self.batch_tokens.observe(tokens)
        self.batch_seconds.observe(seconds)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Note a request and its reply."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)
