"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = tuple(2**n for n in range(15))


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (
            prometheus_client.ProcessCollector, prometheus_client.PlatformCollector, prometheus_client.GCCollector
        ):  # fmt: skip
            collector(registry=self.registry)
        counted, timed, sized = self._counter, self._seconds, self._counts
        self.requests = counted("requests", "Requests, by route and status.", "route", "status")
        self.seconds = timed("request_seconds", "From the first byte of a request to the last of its reply.", "route")
        self.tokens = counted("tokens", "Tokens that were asked about.", "model", "task")
        self.batch_tokens = sized("batch_tokens", "Tokens computed together.")
        self.batch_items = sized("batch_sentences", "Sentences computed together.")
        self.batch_seconds = timed("batch_seconds", "Time to compute a batch.")
        self.queue = Gauge("elmo_queue_tokens", "Tokens that are waiting or being computed.", registry=self.registry)
        self.in_flight = Gauge("elmo_requests_in_flight", "Requests under way.", registry=self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"elmo_{name}", what, labels, registry=self.registry)

    def _seconds(self, name: str, what: str, *labels: str) -> Histogram:
        return Histogram(f"elmo_{name}", what, labels, buckets=_SECONDS, registry=self.registry)

    def _counts(self, name: str, what: str) -> Histogram:
        return Histogram(f"elmo_{name}", what, buckets=_COUNTS, registry=self.registry)

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
