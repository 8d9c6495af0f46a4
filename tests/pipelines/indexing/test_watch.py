"""What a run says of lost nodes and of what it waits for, and when it gives up."""

from __future__ import annotations

import pytest

from pipelines.indexing.cluster import Cluster
from pipelines.indexing.watch import Stalled, Watch

FREE = "waiting for 1.0 CPU, 0 free (Serve holds 2.0)"


class FewNodes(Cluster):
    """A cluster whose losses the test decides."""

    def __init__(self) -> None:
        self.losing: list[str] = []
        self._alive = {"a": "10.0.0.1 (aaaaaaaa)"}

    def lost_nodes(self) -> list[str]:
        lost, self.losing = self.losing, []
        return lost


class Counts:
    """The metrics of a run, as values."""

    def __init__(self) -> None:
        self.rows = self.nodes = 0
        self.stage, self.images_per_s = "", 0.0

    def committed(self, rows: int) -> None:
        self.rows += rows

    def rate(self, images_per_s: float) -> None:
        self.images_per_s = images_per_s

    def waiting(self, stage: str) -> None:
        self.stage = stage

    def node_lost(self) -> None:
        self.nodes += 1


class Run:
    """A watch whose clock the test moves."""

    def __init__(self, *, stall_timeout_s: float | None = None) -> None:
        self.now, self.lines, self.cluster, self.counts = 0.0, [""], FewNodes(), Counts()
        self.lines.clear()
        self.watch = Watch(
            self.cluster,
            say=self.lines.append,
            metrics=self.counts,
            total=100,
            stall_timeout_s=stall_timeout_s,
            clock=lambda: self.now,
        )

    def until(self, now: float) -> None:
        while self.now < now:
            self.now += 1.0
            self.watch.look(lambda: ("room", FREE))


def test_a_run_that_waits_says_for_what_every_half_minute() -> None:
    run = Run()
    run.watch.finished(40)
    run.watch.committed(32)
    run.until(29.0)
    assert run.lines == []
    run.until(61.0)
    assert run.lines == [
        f"nothing moved for 30 s: {FREE}; 40 of 100 images done, 32 committed",
        f"nothing moved for 60 s: {FREE}; 40 of 100 images done, 32 committed",
    ]
    assert (run.counts.stage, run.counts.rows, run.counts.images_per_s) == ("room", 32, 0.0)
    run.watch.finished(10)
    run.until(75.0)
    assert run.counts.stage == ""
    assert len(run.lines) == 2


def test_a_lost_node_is_one_sentence() -> None:
    run = Run()
    run.watch.finished(40)
    run.cluster.losing = ["10.0.0.2 (bbbbbbbb)"]
    run.until(5.0)
    assert run.lines == [
        "lost node 10.0.0.2 (bbbbbbbb); 1 node is left; 40 of 100 images done, 0 committed; "
        "what it was working on is done again"
    ]
    assert (run.watch.nodes_lost, run.counts.nodes) == (1, 1)


def test_a_run_that_stalls_too_long_ends_with_code_8_and_says_why() -> None:
    run = Run(stall_timeout_s=20.0)
    run.until(19.0)
    run.watch.moved()
    run.until(38.0)
    with pytest.raises(Stalled) as stalled:
        run.until(45.0)
    assert stalled.value.exit_code == 8
    assert stalled.value.reason == "stalled"
    assert str(stalled.value) == (
        f"nothing moved for 20 s: {FREE}; 0 images are committed and stay: free what is waited for, then run "
        "the same command again"
    )
