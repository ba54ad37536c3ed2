"""Prometheus metrics: what the API counts itself, and what it reads from the daemon when it is scraped.

Rules: one registry per daemon, none of it global, so that several daemons fit one process. Every label takes
its values from a set that the code fixes (statuses, states, routes of the table); no worker, model or peer is
ever a label, so the size of the page does not grow with the fleet. Reading happens at the scrape: counting
costs nothing while nobody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# The time of a series' first sample doubles the page and tells nobody anything here.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client types it no further

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATUSES = ("pending", "ready", "not_ready", "failed", "draining")
ORIGINS = ("local", "mesh")
STATES = ("alive", "suspect", "down", "left")
SOURCES = ("override", "worker_reported", "mixed", "legacy_fallback")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class RequestMetrics:
    """Counts requests by route of the table, method and status; times them by route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "meshd_api_requests",
            "Requests answered, by route, method and status (0: the client left before its answer).",
            ("route", "method", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "meshd_api_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._streams = Gauge("meshd_api_streams", "Open event streams.", registry=registry)
        self.open_streams = 0

    def observe(self, route: str, method: str, status: int, seconds: float, *, streamed: bool) -> None:
        """Count one request; a stream's length says nothing about speed and is not timed."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        if not streamed:
            self._seconds.labels(route).observe(seconds)

    def stream(self, change: int) -> None:
        """Count a stream that opens (+1) or ends (-1)."""
        self.open_streams += change
        self._streams.set(self.open_streams)


class DaemonCollector(Collector):
    """Reads the daemon at each scrape. `read` yields the metric families; see `state.ApiState`."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield what the daemon shows now."""
        yield from self._read()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are checked when they are scraped."""
        return ()


def new_registry() -> CollectorRegistry:
    """Make the daemon's own registry, with the figures of its process."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry


def gauge(name: str, doc: str, value: float) -> GaugeMetricFamily:
    """Make a gauge without labels."""
    return GaugeMetricFamily(name, doc, value=value)


def counter(name: str, doc: str, value: float) -> CounterMetricFamily:
    """Make a counter without labels; `name` has no `_total`, which is added."""
    return CounterMetricFamily(name, doc, value=value)


def by_label(name: str, doc: str, label: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    """Make a gauge with one label."""
    family = GaugeMetricFamily(name, doc, labels=[label])
    for word, value in values:
        family.add_metric([word], value)
    return family


def page(registry: CollectorRegistry) -> bytes:
    """Return the text that Prometheus reads."""
    return generate_latest(registry)
