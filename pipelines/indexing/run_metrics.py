"""Metrics of an index run, which Ray exports to Prometheus from every node."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["METRICS", "NoMetrics", "RayMetrics", "RunMetrics"]

METRICS = {
    "placeray_index_rows_committed": "Images committed by this run.",
    "placeray_index_images_per_s": "Images finished per second, over the last ten seconds.",
    "placeray_index_waiting": "1 for what a stalled run waits for: room, decoder, extractor or writer.",
    "placeray_index_nodes_lost": "Nodes that the cluster lost during this run.",
}
STAGES = ("room", "decoder", "extractor", "writer")


class RunMetrics(Protocol):
    """What a run reports."""

    def committed(self, rows: int) -> None:
        """Count committed images."""

    def rate(self, images_per_s: float) -> None:
        """Report the current rate."""

    def waiting(self, stage: str) -> None:
        """Report the stage that is waited for; empty: none."""

    def node_lost(self) -> None:
        """Count a lost node."""


class NoMetrics:
    """Reports nothing."""

    def committed(self, rows: int) -> None:
        """Do nothing."""

    def rate(self, images_per_s: float) -> None:
        """Do nothing."""

    def waiting(self, stage: str) -> None:
        """Do nothing."""

    def node_lost(self) -> None:
        """Do nothing."""


class RayMetrics:
    """Reports through Ray, with the label `store`.

    Args:
        store: The store's folder.
    """

    def __init__(self, store: str) -> None:
        from ray.util.metrics import Counter, Gauge

        def named(name: str, *more: str) -> dict[str, Any]:
            return {"name": name, "description": METRICS[name], "tag_keys": ("store", *more)}

        self._committed = Counter(**named("placeray_index_rows_committed"))
        self._rate = Gauge(**named("placeray_index_images_per_s"))
        self._waiting = Gauge(**named("placeray_index_waiting", "stage"))
        self._nodes_lost = Counter(**named("placeray_index_nodes_lost"))
        for metric in (self._committed, self._rate, self._waiting, self._nodes_lost):
            metric.set_default_tags({"store": store})
        self.waiting("")

    def committed(self, rows: int) -> None:
        """Count committed images."""
        if rows:
            self._committed.inc(rows)

    def rate(self, images_per_s: float) -> None:
        """Report the current rate."""
        self._rate.set(images_per_s)

    def waiting(self, stage: str) -> None:
        """Report the stage that is waited for; empty: none."""
        for name in STAGES:
            self._waiting.set(float(name == stage), tags={"stage": name})

    def node_lost(self) -> None:
        """Count a lost node."""
        self._nodes_lost.inc()
