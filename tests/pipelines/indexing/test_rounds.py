"""A run as a series of flows: what is done again after a loss, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from ray import exceptions

from pipelines.indexing import rounds as module
from pipelines.indexing.cluster import Cluster, Node
from pipelines.indexing.flow import Block, FlowEnded, Stage
from pipelines.indexing.plan import Request
from pipelines.indexing.rounds import Rounds
from pipelines.indexing.run_metrics import NoMetrics
from pipelines.indexing.watch import Stalled, Watch

BATCH = 4
Step = Exception | str


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FewNodes(Cluster):
    """One node, whose free cores and unplaced actors the test decides."""

    def __init__(self) -> None:
        self.free, self.unplaced, self.losing = 1.0, 0, 0
        self.silent_until_s, self.clock = 0.0, Clock()
        self._alive = {"a": "node a"}

    def nodes(self) -> list[Node]:
        return [Node("a", "node a", {"CPU": 1.0}, {"CPU": self.free}, {})]

    def lost_nodes(self) -> list[str]:
        lost, self.losing = ["node b"] * self.losing, 0
        return lost

    def holders(self, resource: str) -> dict[str, float]:
        return {} if self.free else {"Serve": 1.0}

    def silent_nodes(self) -> list[str]:
        return ["b"] * (self.clock.now < self.silent_until_s)

    def unplaced_actors(self) -> list[dict[str, float]]:
        return [{"CPU": 0.5}] * self.unplaced


class Run:
    """A run over numbered rows, whose flows follow scripts: an error, `stuck`, or the number of blocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: list[Step], rows: int = 24) -> None:
        self.cluster = FewNodes()
        self.clock = self.cluster.clock
        self.scripts = list(scripts)
        self.flows: list[int] = []
        self.lines: list[str] = []
        self.on_plan: Callable[[], None] = lambda: None
        run = self

        class ScriptedFlow:
            def __init__(self, ray: Any, work: pa.Table, *_: Any, **__: Any) -> None:
                run.flows.append(work.num_rows)
                self.steps = run.scripts.pop(0) if run.scripts else []
                self.blocks = [work.slice(at, BATCH) for at in range(0, work.num_rows, BATCH)]

            def next(self, timeout_s: float) -> Block | None:
                if self.steps:
                    step = self.steps[0]
                    if step == "stuck":
                        run.clock.sleep(timeout_s)
                        return None
                    self.steps.pop(0)
                    if isinstance(step, Exception):
                        raise step
                if not self.blocks:
                    raise FlowEnded
                block = self.blocks.pop(0)
                return Block(block, block.num_rows)

            def stages(self) -> list[Stage]:
                return [Stage("extractor", 1, 1, 0, run.cluster.unplaced)]

            def __enter__(self) -> ScriptedFlow:
                return self

            def __exit__(self, *_: object) -> None: ...

        class WritesAtOnce:
            full = False

            def __init__(self, *_: Any, **__: Any) -> None:
                self.blocks: list[pa.Table] = []

            @property
            def pending(self) -> int:
                return sum(block.num_rows for block in self.blocks)

            def add(self, block: Block) -> None:
                self.blocks.append(block.ref)

            def advance(self, *, flush: bool = False, timeout_s: float = 0.0) -> Iterator[pa.Table]:
                while self.blocks and (flush or len(self.blocks) > 1):  # one block waits for the next
                    yield self.blocks.pop(0)

            def salvage(self, timeout_s: float) -> Iterator[pa.Table]:
                yield from self.advance(flush=True)

            def __enter__(self) -> WritesAtOnce:
                return self

            def __exit__(self, *_: object) -> None: ...

        class NoReservation:
            resources = ({"CPU": 0.5}, {"CPU": 0.4}, {"CPU": 0.1})

            def __init__(self, *_: Any) -> None: ...

            def ask(self) -> None:
                run.on_plan()

            def release_if_ready(self) -> None: ...

            def __enter__(self) -> NoReservation:
                return self

            def __exit__(self, *_: object) -> None: ...

        monkeypatch.setattr(module, "Flow", ScriptedFlow)
        monkeypatch.setattr(module, "ShardWriters", WritesAtOnce)
        monkeypatch.setattr(module, "Reservation", NoReservation)
        monkeypatch.setattr(module, "time", self.clock)
        self.watch = Watch(
            self.cluster,
            say=self.lines.append,
            metrics=NoMetrics(),
            total=rows,
            stall_timeout_s=300.0,
            clock=self.clock.monotonic,
        )
        self.rounds = Rounds(None, None, Request("model", row_bytes=100), self.watch, max_age_s=1.0)  # type: ignore[arg-type]
        self.work = pa.table({"image_id": [str(i) for i in range(rows)]})

    def written(self) -> Counter[str]:
        tables = [rows for rows in self.rounds.rows(self.work) if rows is not None]
        return Counter(pa.concat_tables(tables)["image_id"].to_pylist())


def once(rows: int = 24) -> Counter[str]:
    return Counter(str(i) for i in range(rows))


def test_an_undisturbed_run_is_one_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    assert run.written() == once()
    assert (run.flows, run.rounds.started, run.lines) == ([24], 1, [])


def test_after_a_loss_the_other_rows_are_done_by_a_new_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was extracted before the loss is written, also the block that still waited for its shard."""
    run = Run(
        monkeypatch, ["", "", exceptions.ActorDiedError()], [exceptions.ObjectLostError("00", None, "")]
    )
    assert run.written() == once()
    assert run.flows == [24, 16, 16]
    assert [line.split(":")[0] for line in run.lines] == [
        "workers were lost (ActorDiedError)",
        "continuing with 16 images",
        "workers were lost (ObjectLostError)",
        "continuing with 16 images",
    ]


def test_workers_that_find_no_place_after_a_lost_node_end_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, ["", "stuck"])
    run.cluster.losing = run.cluster.unplaced = 1
    assert run.written() == once()
    assert run.flows == [24, 20]
    assert 15 <= run.clock.now < 25
    assert run.watch.nodes_lost == 1


def test_a_new_flow_waits_until_ray_gives_up_a_node_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then Ray places workers there, and the flow would wait for them."""
    run = Run(monkeypatch, ["", exceptions.ActorDiedError()])
    run.cluster.silent_until_s = 20.0
    assert run.written() == once()
    assert 20 <= run.clock.now < 25
    assert run.lines[1] == "node b does not answer: waiting until Ray gives it up"
    assert run.lines[2].startswith("continuing with 20 images")


def test_a_slow_flow_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are placed may take minutes to load a model."""
    run = Run(monkeypatch, ["", "stuck"])
    with pytest.raises(Stalled, match=r"nothing moved for 30\d s: waiting for 1 batch in the extractors"):
        run.written()
    assert run.flows == [24]


def test_an_error_of_a_stage_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, ["", ValueError("bug")])
    with pytest.raises(ValueError, match="bug"):
        run.written()
    assert run.flows == [24]


def test_losses_without_progress_end_the_run_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, *[[exceptions.ActorDiedError()] for _ in range(20)])
    with pytest.raises(exceptions.ActorDiedError):
        run.written()
    assert len(run.flows) == 6


def test_a_full_cluster_is_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.cluster.free = 0.0

    def free_later() -> None:
        if run.clock.now > 40:
            run.cluster.free = 1.0

    run.on_plan = free_later
    assert run.written() == once()
    assert run.lines == [
        "nothing moved for 30 s: waiting for 1.0 CPU, 0 free (Serve holds 1.0); "
        "0 of 24 images done, 0 committed"
    ]
    assert 40 <= run.watch.waited_s < 43
