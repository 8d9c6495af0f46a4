"""Watches an index run: tells the user of lost nodes and of what is waited for, and ends it at a timeout."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from pipelines.indexing.cluster import Cluster
from pipelines.indexing.run_metrics import RunMetrics
from storage.errors import PlacerayError

__all__ = ["LOOK_S", "Stalled", "Watch"]

LOOK_S = 1.0
HEARTBEAT_S = 30.0


class Stalled(PlacerayError):
    """No image was finished for longer than `--stall-timeout` allows; everything committed stays."""

    reason = "stalled"
    exit_code: ClassVar[int] = 8


class Watch:
    """The eyes of an index run.

    Args:
        cluster: The cluster that it runs on.
        say: Shows one line to the user.
        metrics: The metrics of the run.
        total: Number of images.
        stall_timeout_s: Time without a finished image after which the run ends; None: never.
        clock: Seconds.

    Attributes:
        nodes_lost: Number of nodes that were lost so far.
        rows_committed: Number of images committed so far.
        waited_s: Time in which nothing could run, since the cluster had no room.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        say: Callable[[str], None],
        metrics: RunMetrics,
        total: int,
        stall_timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = cluster
        self.say = say
        self.metrics = metrics
        self.nodes_lost = 0
        self.waited_s = 0.0
        self._clock = clock
        self._stall_timeout_s = stall_timeout_s
        self._total = total
        self._done = self.rows_committed = 0
        self._looked = self._progressed = self._said = clock()
        self._counted = (self._progressed, 0)

    @property
    def stalled_s(self) -> float:
        """Time since anything moved: images were extracted or written, or a flow started."""
        return self._clock() - self._progressed

    def expect(self, total: int) -> None:
        """Take note of the number of images, which grows while a large source is listed."""
        self._total = total

    def moved(self) -> None:
        """Images were extracted, or a flow has started."""
        self._progressed = self._said = self._clock()

    def finished(self, rows: int) -> None:
        """Count written images."""
        self._done += rows
        self.moved()

    def committed(self, rows: int) -> None:
        """Count committed images."""
        self.rows_committed += rows
        self.metrics.committed(rows)

    def look(self, waiting: Callable[[], tuple[str, str]]) -> bool:
        """Look at the cluster, once a second at most; return whether nodes were lost since the last look.

        Args:
            waiting: Returns the stage that is waited for and a text that says for what; called when it is
                told.

        Raises:
            Stalled: nothing moved for too long.
        """
        now = self._clock()
        if now - self._looked < LOOK_S:
            return False
        self._looked = now
        lost = self.cluster.lost_nodes()
        for name in lost:
            self._tell_loss(name)
        stalled = now - self._progressed
        timeout = self._stall_timeout_s
        if timeout is not None and stalled >= timeout:
            raise Stalled(
                f"nothing moved for {stalled:.0f} s: {waiting()[1]}; {self.rows_committed} images are "
                "committed and stay: free what is waited for, then run the same command again"
            )
        if now - self._said >= HEARTBEAT_S:
            self._said = now
            stage, text = waiting()
            self.metrics.waiting(stage)
            self.say(f"nothing moved for {stalled:.0f} s: {text}; {self._state()}")
        elif stalled < HEARTBEAT_S:
            self.metrics.waiting("")
        since, before = self._counted
        if now - since >= HEARTBEAT_S / 3:
            self.metrics.rate((self._done - before) / (now - since))
            self._counted = (now, self._done)
        return bool(lost)

    def _tell_loss(self, name: str) -> None:
        self.nodes_lost += 1
        self.metrics.node_lost()
        alive = self.cluster.alive
        rest = f"{alive} node{' is' if alive == 1 else 's are'} left"
        self.say(f"lost node {name}; {rest}; {self._state()}; what it was working on is done again")

    def _state(self) -> str:
        return f"{self._done} of {self._total} images done, {self.rows_committed} committed"
