"""Room for a flow on a cluster: asking for it, and noticing when there is much more."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from pipelines.indexing.cluster import THIS_JOB, Cluster
from pipelines.indexing.plan import MANY_IMAGES, Plan, Request, Worker

__all__ = ["Growth", "Reservation"]

GROW_EVERY_S = 20.0
GROW_FACTOR = 1.5
WORTH_S = 60.0


class Reservation:
    """Asks a cluster for room for all of some workers at once, by a placement group.

    Ray gives it all of the room or none, so that two jobs never wait for each other with half a flow each.
    An autoscaler starts nodes for it.

    Args:
        ray: The connected `ray` module.
        workers: What needs room.
    """

    def __init__(self, ray: Any, workers: Sequence[Worker]) -> None:
        self._ray = ray
        self._workers = workers
        self._group: Any = None

    @property
    def resources(self) -> list[dict[str, float]]:
        """What each worker takes."""
        return [dict(worker.resources) for worker in self._workers]

    def ask(self) -> None:
        """Ask for room, unless that was done."""
        if self._group is None:
            self._group = self._ray.util.placement_group(
                self.resources, bundle_label_selector=[dict(worker.labels) for worker in self._workers]
            )

    def release_if_ready(self) -> bool:
        """Give the room back for the workers to take, if it was granted; return whether it was."""
        if self._group is None or not self._group.wait(0):
            return False
        self._release()
        time.sleep(0.5)  # until what is free is known everywhere
        return True

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
            self._group = None


class Growth:
    """Notices that a cluster offers a running flow much more than it was planned for.

    Make it before the flow starts.

    Args:
        cluster: The cluster.
        plan: The flow's plan.
        images: Number of images of the flow.
    """

    def __init__(self, cluster: Cluster, plan: Plan, images: int) -> None:
        self._cluster = cluster
        self._extractors = plan.extractors
        self._images = images
        self._resource = "GPU" if plan.extractor_gpus else "CPU"
        self._planned = self._free()
        self._started = self._looked = time.monotonic()

    def possible(self, request: Request, written: int) -> bool:
        """Return whether a new flow would be worth its start; looks every 20 s.

        Args:
            request: What the user requested.
            written: Number of images that this flow has written.
        """
        now = time.monotonic()
        if now - self._looked < GROW_EVERY_S:
            return False
        self._looked = now
        limit = request.extractors if request.extractors is not None else math.inf
        if self._images < MANY_IMAGES or self._extractors >= limit or not written:
            return False
        left_s = (self._images - written) * (now - self._started) / written
        offered = self._free() + self._cluster.holders(self._resource).get(THIS_JOB, 0.0)
        limit = request.cpus if request.cpus and self._resource == "CPU" else math.inf
        return left_s > WORTH_S and min(offered, limit) >= GROW_FACTOR * self._planned

    def _free(self) -> float:
        return self._cluster.free_total(self._resource)
