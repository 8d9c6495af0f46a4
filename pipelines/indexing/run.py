"""The part of an index run that works on the cluster: flows, commits, and what is said meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
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

__all__ = ["Outcome", "run_flows", "total_of"]


@dataclass(frozen=True)
class Outcome:
    """What happened on the cluster.

    Attributes:
        seconds: From the start of the first stage to the last commit.
        nodes_lost, waited_s, flows, leftover_bytes_removed: See `pipelines.indexing.job.IndexReport`.
    """

    seconds: float
    nodes_lost: int
    waited_s: float
    flows: int
    leftover_bytes_removed: int


def total_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the sums over the parts of a run."""
    return Outcome(*(sum(values) for values in zip(*map(astuple, outcomes), strict=True)))


def run_flows(
    ray: Any,
    store: Store,
    work: pa.Table,
    request: Request,
    tally: Tally,
    bar: ProgressBar,
    *,
    commit_seconds: float,
    stall_timeout_s: float | None,
) -> Outcome:
    """Extract and commit all rows, and remove what stopped runs have left.

    Args:
        ray: The connected `ray` module, with `ray.data` imported.
        store: The store; the caller holds its lease.
        work: Listed rows with stored_sha256, stored_uri and amend.
        request: What the user requested.
        tally: Counts the rows.
        bar: Shows what is said.
        commit_seconds: Seconds between two commits, if anything has arrived.
        stall_timeout_s: Time without progress after which the run ends; None: never.

    Raises:
        PlacerayError: a failure that a worker reported.
        Stalled: nothing moved within `stall_timeout_s`.
    """
    watch = Watch(
        Cluster(ray),
        say=bar.say,
        metrics=RayMetrics(store.uri),
        total=work.num_rows,
        stall_timeout_s=stall_timeout_s,
    )
    rounds = Rounds(ray, store, request, watch, max_age_s=commit_seconds / 2)

    def committed(count: int) -> None:
        watch.committed(count)
        bar.status = f"{watch.rows_committed} committed"

    removed_bytes = store.remove_leftovers()
    started = time.perf_counter()
    committer = Committer(
        store,
        tally,
        commit_every=request.commit_every,
        commit_seconds=commit_seconds,
        trace=request.trace,
        on_commit=committed,
    )
    try:
        with contextlib.closing(rounds.rows(work)) as rows:  # ends the actors, also after an error
            committer.commit_all(rows)
    except BaseException:  # Ctrl-C and SIGTERM too
        with contextlib.suppress(PlacerayError):  # the first error is the one to report
            store.remove_leftovers(own=True)
        raise
    return Outcome(
        seconds=time.perf_counter() - started,
        nodes_lost=watch.nodes_lost,
        waited_s=round(watch.waited_s, 1),
        flows=rounds.started,
        leftover_bytes_removed=removed_bytes + store.remove_leftovers(own=True),
    )
