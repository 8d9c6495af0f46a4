"""The part of an index run that works on the cluster: flows, commits, and what is said meanwhile."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.indexing.cluster import Cluster
from pipelines.indexing.commits import Committer
from pipelines.indexing.plan import Request
from pipelines.indexing.rounds import Rounds
from pipelines.indexing.run_metrics import RayMetrics
from pipelines.indexing.tally import Tally
from pipelines.indexing.watch import Watch
from pipelines.progress import ProgressBar
from storage.errors import PlacerayError
from storage.store import Store

__all__ = ["ClusterRun", "Outcome", "watch_of"]


@dataclass(frozen=True)
class Outcome:
    """What happened on the cluster.

    Attributes:
        seconds: From the start of the first stage to the last commit, without what was done between parts.
        nodes_lost, waited_s, flows, leftover_bytes_removed: See `pipelines.indexing.report.IndexReport`.
    """

    seconds: float
    nodes_lost: int
    waited_s: float
    flows: int
    leftover_bytes_removed: int


class ClusterRun:
    """Extracts and commits rows, in one part or several, and removes what killed runs have left.

    Args:
        ray: The connected `ray` module, with `ray.data` imported.
        store: The store; the caller holds its lease.
        request: What the user requested.
        tally: Counts the rows.
        bar: Shows what is said.
        total: Number of rows of all parts.
        commit_seconds: Seconds between two commits, if anything has arrived.
        stall_timeout_s: Time without progress after which the run ends; None: never.
    """

    def __init__(
        self,
        ray: Any,
        store: Store,
        request: Request,
        tally: Tally,
        bar: ProgressBar,
        *,
        total: int,
        commit_seconds: float,
        stall_timeout_s: float | None,
    ) -> None:
        self._store, self._request, self._tally, self._bar = store, request, tally, bar
        self._commit_seconds = commit_seconds
        self._watch = watch_of(ray, store.uri, bar, total=total, stall_timeout_s=stall_timeout_s)
        self._rounds = Rounds(ray, store, request, self._watch, max_age_s=commit_seconds / 2)
        self._seconds = 0.0
        self._removed_bytes = store.remove_leftovers()

    def extract(self, work: pa.Table, *, total: int) -> None:
        """Extract and commit a part of the rows.

        Args:
            work: Listed rows with stored_sha256, stored_uri and amend.
            total: Number of rows of all parts, as far as it is known.

        Raises:
            PlacerayError: a failure that a worker reported.
            Stalled: nothing moved within `stall_timeout_s`.
        """
        started = time.perf_counter()
        self._watch.expect(total)
        committer = Committer(
            self._store,
            self._tally,
            commit_every=self._request.commit_every,
            commit_seconds=self._commit_seconds,
            trace=self._request.trace,
            on_commit=self._committed,
        )
        try:
            with contextlib.closing(self._rounds.rows(work)) as rows:  # ends the actors, also after an error
                committer.commit_all(rows)
        except BaseException:  # Ctrl-C and SIGTERM too
            with contextlib.suppress(PlacerayError):  # the first error is the one to report
                self._store.remove_leftovers(own=True)
            raise
        self._seconds += time.perf_counter() - started
        self._removed_bytes += self._store.remove_leftovers(own=True)

    @property
    def outcome(self) -> Outcome:
        """What happened so far."""
        return Outcome(
            seconds=self._seconds,
            nodes_lost=self._watch.nodes_lost,
            waited_s=round(self._watch.waited_s, 1),
            flows=self._rounds.started,
            leftover_bytes_removed=self._removed_bytes,
        )

    def _committed(self, rows: int) -> None:
        self._watch.committed(rows)
        self._bar.status = f"{self._watch.rows_committed} committed"


def watch_of(
    ray: Any, store_uri: str, bar: ProgressBar, *, total: int, stall_timeout_s: float | None
) -> Watch:
    """Return the eyes of a run over so many images."""
    metrics = RayMetrics(store_uri)
    return Watch(Cluster(ray), say=bar.say, metrics=metrics, total=total, stall_timeout_s=stall_timeout_s)
