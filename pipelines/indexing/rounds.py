"""Runs an index job as a series of flows: each fits what is free, and continues where the last one stopped.

A Ray Data flow cannot give up what it has planned: its actors wait for room as long as it takes, and with
them the batches that they hold. Ray restarts what it has room for; for anything else the job keeps a list of
the rows that were written and looks at the cluster once a second. When a flow cannot go on, the job writes
what was extracted, closes the flow, plans again from what is free, and starts a flow over the other rows.
Until the smallest flow fits, a placement group of its size asks the cluster and its autoscaler for room.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.indexing.cluster import OTHERS, SERVE, THIS_JOB
from pipelines.indexing.extract import Extract
from pipelines.indexing.flow import Flow, FlowEnded, Target
from pipelines.indexing.losses import is_loss
from pipelines.indexing.plan import DECODE_CPUS, Plan, Request, make_plan, minimum
from pipelines.indexing.room import Growth, Reservation
from pipelines.indexing.shards import ShardWriters, Sink
from pipelines.indexing.watch import LOOK_S, Watch
from pipelines.progress import counted

__all__ = ["Rounds"]

POLL_S, ROOM_POLL_S, CHECK_S = 0.1, 0.5, 2.0
# A worker that has no place after this time gets none: Ray restarts an actor within seconds.
PATIENCE_S, MAX_PATIENCE_S = 15.0, 240.0
LOST_PATIENCE_S = 45.0
SETTLE_S, STEADY_S, SALVAGE_S, VERDICT_S = 10.0, 1.0, 30.0, 60.0
MAX_LOSSES = 5  # without a finished image in between


class Rounds:
    """The flows of one job.

    Args:
        ray: The connected `ray` module, with `ray.data` imported.
        store: The store; the caller holds its lease.
        request: What the user requested.
        watch: Looks at the cluster and tells the user.
        max_age_s: How long extracted rows may wait for the rest of their shard.
        extract: Class of the extractor actors.
        sink: Makes what takes the extracted rows of a flow; default: writers of shards.

    Attributes:
        started: Number of flows so far.
    """

    def __init__(
        self,
        ray: Any,
        store: Target,
        request: Request,
        watch: Watch,
        *,
        max_age_s: float,
        extract: type[Extract] = Extract,
        sink: Callable[[Plan], Sink] | None = None,
    ) -> None:
        self._ray, self._store = ray, store
        self._request, self._watch, self._extract = request, watch, extract
        self._sink = sink or (lambda plan: ShardWriters(ray, store, plan, max_age_s=max_age_s))
        self._patience_s = PATIENCE_S
        self._longest_wait_s = 0.0
        self._losses = 0
        self.started = 0

    def rows(self, work: pa.Table) -> Generator[pa.Table | None, None, None]:
        """Yield the finished rows without pixels and features; None while there are none. Close it after use.

        Args:
            work: Listed rows with stored_sha256, stored_uri and amend.

        Raises:
            Stalled: see `Watch.look`.
        """
        work = work.append_column("number", pa.array(np.arange(work.num_rows)))
        missing = np.ones(work.num_rows, bool)
        while missing.any():
            left = work.filter(pa.array(missing))
            plan = yield from self._wait_for_plan(left.num_rows)
            growth = Growth(self._watch.cluster, plan, left.num_rows)
            self._announce(plan, left.num_rows)
            with (
                Flow(self._ray, left, self._store, plan, extract=self._extract) as flow,
                self._sink(plan) as writers,
            ):
                for rows in self._run(flow, writers, growth):
                    if rows is not None:
                        missing[rows["number"].to_numpy()] = False
                        self._watch.finished(rows.num_rows)
                    yield rows
            if int(missing.sum()) < left.num_rows:
                self._losses, self._patience_s = 0, PATIENCE_S
            else:
                self._patience_s = min(MAX_PATIENCE_S, 2 * self._patience_s)

    def _run(self, flow: Flow, writers: Sink, growth: Growth) -> Iterator[pa.Table | None]:
        """Run one flow to its end, or until it cannot go on; what it extracted is written."""
        try:
            yield from self._pump(flow, writers, growth)
        except Exception as error:
            self._losses += 1
            if not is_loss(error) or self._losses > MAX_LOSSES:
                raise
            self._watch.say(f"workers were lost ({type(error).__name__}): continuing with the rest")
        yield from writers.salvage(SALVAGE_S)

    def _pump(self, flow: Flow, writers: Sink, growth: Growth) -> Iterator[pa.Table | None]:
        """Move blocks from the flow to the writers until all are written, or the flow cannot go on."""
        ended = lost = False
        written = blocks = 0
        check_at = 0.0
        while not (ended and not writers.pending):
            idle = ended or writers.full
            try:
                block = None if idle else flow.next(POLL_S)
            except FlowEnded:
                ended, block = True, None
            if block is not None:
                self._longest_wait_s = max(self._longest_wait_s, self._watch.stalled_s if blocks else 0.0)
                blocks += 1
                self._watch.moved()
                writers.add(block)
            for rows in writers.advance(flush=ended, timeout_s=POLL_S if idle else 0.0):
                written += rows.num_rows
                yield rows
            lost |= self._watch.look(lambda: self._waiting(flow, writers))
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + CHECK_S
                if self._cannot_go_on(flow, writers, lost=lost):
                    self._watch.say(f"{self._waiting(flow, writers)[1]}: starting again with what is free")
                    return
            if growth.possible(self._request, written):
                self._watch.say("there is much more room: spreading the rest anew")
                return
            yield None

    def _cannot_go_on(self, flow: Flow, writers: Sink, *, lost: bool) -> bool:
        """Return whether the flow waits for a place that it will not get."""
        # Twice the longest wait so far: a large model may take a minute for a batch. Without a loss, workers
        # may just be slow to start.
        patience_s = self._patience_s * (1 if lost else 4)
        if self._watch.stalled_s < max(patience_s, 2 * self._longest_wait_s):
            return False
        if lost and self._watch.stalled_s > LOST_PATIENCE_S:
            return True  # whatever it waits for was on the lost node
        cluster, stages = self._watch.cluster, flow.stages()
        if any(stage.blocked for stage in stages) or writers.pending:
            return bool(cluster.unplaced_actors())
        # Decoding tasks of a short run, where another job has taken what was free.
        idle = [stage.name for stage in stages if stage.actors and not stage.batches]
        others = cluster.holders("CPU").keys() - {THIS_JOB, SERVE, OTHERS}
        full = all(node.free.get("CPU", 0.0) < DECODE_CPUS for node in cluster.nodes())
        return idle == ["extractor"] and bool(others) and full

    def _wait_for_plan(self, images: int) -> Generator[None, None, Plan]:
        """Yield until a flow fits; return the plan of it."""
        cluster, watch = self._watch.cluster, self._watch
        watch.moved()
        if self.started:
            yield from self._settle()
        with Reservation(self._ray, minimum(self._request, cluster.nodes())) as reservation:
            while (plan := make_plan(cluster.nodes(), self._request, images=images)) is None:
                reservation.ask()
                began = time.monotonic()
                watch.look(lambda: ("room", self._needed(reservation)))
                yield None
                time.sleep(ROOM_POLL_S)
                watch.waited_s += time.monotonic() - began
                reservation.release_if_ready()
        return plan

    def _settle(self) -> Iterator[None]:
        """Wait until what is free is known again.

        The actors of the last flow must have gone, and Ray must have given up lost nodes, since it places
        workers there until then. Jobs that lost to each other return in turn.
        """
        yield from self._wait_for_verdict()
        pause_s = random.uniform(0.0, 3.0) if self._patience_s > PATIENCE_S else 0.0
        cluster, now = self._watch.cluster, time.monotonic()
        deadline, resume = now + SETTLE_S, now + 0.5 + pause_s
        free, since = cluster.free_total("CPU"), now
        # Ray tells what is free some seconds after an actor has ended.
        while now < resume or (
            now < deadline and (cluster.holders("CPU").get(THIS_JOB) or now - since < STEADY_S)
        ):
            yield None
            time.sleep(POLL_S)
            now = time.monotonic()
            if (changed := cluster.free_total("CPU")) != free:
                free, since = changed, now

    def _wait_for_verdict(self) -> Iterator[None]:
        """Wait until Ray gives up the nodes that do not answer."""
        deadline, told = time.monotonic() + VERDICT_S, False
        while (silent := self._watch.cluster.silent_nodes()) and time.monotonic() < deadline:
            names = ", ".join(silent)
            if not told:
                verb, them = ("does", "it") if len(silent) == 1 else ("do", "them")
                self._watch.say(f"node {names} {verb} not answer: waiting until Ray gives {them} up")
                told = True
            self._watch.look(lambda names=names: ("room", f"Ray has not given up {names}"))  # type: ignore[misc]
            yield None
            time.sleep(ROOM_POLL_S)
        if told:
            time.sleep(LOOK_S)  # so that the nodes are named as lost before the next flow is announced
            self._watch.look(lambda: ("room", "the next flow starts"))

    def _announce(self, plan: Plan, left: int) -> None:
        nodes = self._watch.cluster.nodes()
        if self.started or len(nodes) > 1:
            free = self._watch.cluster.free_total("CPU")
            self._watch.say(
                f"{'continuing with ' if self.started else ''}{counted(left, 'image')}: {plan.describe()}; "
                f"{counted(len(nodes), 'node')}, {free:.1f} CPU free"
            )
        self.started += 1
        self._watch.moved()

    def _needed(self, reservation: Reservation) -> str:
        return self._watch.cluster.shortage(reservation.resources)

    def _waiting(self, flow: Flow, writers: Sink) -> tuple[str, str]:
        """Return the stage that is waited for, and for what."""
        cluster = self._watch.cluster
        unplaced = cluster.unplaced_actors()
        if unplaced:
            return "room", f"{counted(len(unplaced), 'worker')} {cluster.shortage(unplaced)}"
        for stage in reversed(flow.stages()):
            if stage.batches:
                batches = counted(stage.batches, "batch", "batches")
                return stage.name, f"waiting for {batches} in the {stage.name}s"
            if stage.starting:
                return stage.name, f"waiting for {counted(stage.starting, stage.name)} to start"
        if writers.pending:
            return "writer", f"waiting for {counted(writers.pending, 'image')} in the writers"
        return "decoder", "waiting for Ray to start the first batch"
