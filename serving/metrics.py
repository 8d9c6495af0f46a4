"""Prometheus metrics of the service."""

from __future__ import annotations

import re
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

__all__ = ["Metrics"]

_API = ("query", "matches", "image", "places", "info")
ROUTES = frozenset(
    ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", *(f"/v1/{name}" for name in _API)]
)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
REASON = re.compile(r"[a-z_]{1,40}")


class Metrics:
    """Counts of one ingress replica.

    Every series carries the label `replica`: several replicas behind one address are scraped in turn, and
    their counters must not be mixed. Clients cannot create label values: unknown routes and reasons count as
    `other`.

    Args:
        replica: Name of this replica.
    """

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self._replica = replica

        def labelled(*names: str) -> tuple[str, ...]:
            return ("replica", *names)

        registry = self._registry
        self._requests = Histogram(
            "placeray_request_seconds",
            "Time of a request in the service, by route and status; 499: the client left first.",
            labelled("route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "placeray_stage_seconds",
            "Time of each stage of the answered queries; total includes queueing and transport.",
            labelled("stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "placeray_batch_size",
            "Size of the batch that a query was processed in.",
            labelled("stage"),
            buckets=SIZES,
            registry=registry,
        )
        self._queues = Gauge(
            "placeray_queue_length",
            "Queued queries at the last observation.",
            labelled("stage"),
            registry=registry,
        )
        self._errors = Counter(
            "placeray_errors", "Requests that failed, by reason.", labelled("reason"), registry=registry
        )
        self._degraded = Counter(
            "placeray_degraded_answers",
            "Degraded answers: unreadable rows or features were left out.",
            labelled(),
            registry=registry,
        ).labels(replica)
        self._hits = Counter(
            "placeray_feature_cache_hits", "Features read from memory.", labelled(), registry=registry
        ).labels(replica)
        self._misses = Counter(
            "placeray_feature_cache_misses", "Features read from disk.", labelled(), registry=registry
        ).labels(replica)
        self._retries = Counter(
            "placeray_retries",
            "Calls repeated because a replica died.",
            labelled("stage"),
            registry=registry,
        )
        self._version = Gauge(
            "placeray_store_version", "Store version of the newest answer.", labelled(), registry=registry
        ).labels(replica)
        self._rows = Gauge(
            "placeray_index_rows", "Images in the index.", labelled(), registry=registry
        ).labels(replica)
        self._ready = Gauge(
            "placeray_ready", "1 while queries are answered.", labelled(), registry=registry
        ).labels(replica)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = route if route in ROUTES else "other"
        self._requests.labels(self._replica, known, str(status)).observe(seconds)

    def stages(self, ms: Mapping[str, float]) -> None:
        """Count the milliseconds of each stage of a query."""
        for stage, value in ms.items():
            self._stages.labels(self._replica, stage).observe(value / 1e3)

    def batch(self, stage: str, size: int) -> None:
        """Count the size of the batch that a query was processed in."""
        self._batches.labels(self._replica, stage).observe(size)

    def queue(self, stage: str, queued: int) -> None:
        """Set the number of queries queued for a stage."""
        self._queues.labels(self._replica, stage).set(queued)

    def error(self, reason: str, count: int = 1) -> None:
        """Count requests that were refused or failed."""
        self._errors.labels(self._replica, reason if REASON.fullmatch(reason) else "other").inc(count)

    def degraded(self) -> None:
        """Count a degraded answer."""
        self._degraded.inc()

    def cache(self, hits: int, misses: int) -> None:
        """Count features read from memory and from disk."""
        self._hits.inc(hits)
        self._misses.inc(misses)

    def retry(self, stage: str) -> None:
        """Count a repeated call."""
        self._retries.labels(self._replica, stage).inc()

    def store(self, version: int, rows: int, *, ready: bool) -> None:
        """Set the store version in use, its rows, and whether queries are answered."""
        self._version.set(version)
        self._rows.set(rows)
        self._ready.set(ready)

    def render(self) -> tuple[bytes, str]:
        """Return everything in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
