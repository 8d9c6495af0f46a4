"""When extracted blocks are written, and what is left when a writer is lost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipelines.indexing.actor import ShardWriter
from pipelines.indexing.flow import Block
from pipelines.indexing.plan import Plan, Request
from pipelines.indexing.shards import ShardWriters
from storage.store import Store
from tests.support.store_samples import make_card


class FakeRay:
    """Runs what actors and tasks are asked for when the test says so; a reference is the value itself."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.asked: list[list[pa.Table]] = []
        self.finished: dict[int, Any] = {}
        self.killed = 0
        self.options: list[dict[str, Any]] = []

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(
            options=partial(self._options, self._actor if kind is ShardWriter else self._task)
        )

    def _options(self, started: Any, **options: Any) -> Any:
        self.options.append(options)
        return SimpleNamespace(remote=started)

    def _task(self, stage: Any, options: dict[str, Any], *blocks: pa.Table) -> int:
        return self._write(*blocks)

    def _actor(self, *_: Any) -> Any:
        return SimpleNamespace(write=SimpleNamespace(remote=self._write))

    def _write(self, *blocks: pa.Table) -> int:
        self.asked.append(list(blocks))
        return len(self.asked) - 1

    def finish(self, shard: int, error: Exception | None = None) -> None:
        self.finished[shard] = error or pa.concat_tables(self.asked[shard])

    def wait(self, refs: Sequence[int], *, num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        return [ref for ref in refs if ref in self.finished], []

    def get(self, ref: int) -> pa.Table:
        if isinstance(self.finished[ref], Exception):
            raise self.finished[ref]
        return self.finished[ref]

    def kill(self, actor: Any) -> None:
        self.killed += 1


class Run:
    def __init__(self, folder: Path, *, shard_rows: int = 8, writers: int = 1, decoders: int = 2) -> None:
        self.now, self.ray = 0.0, FakeRay()
        plan = Plan(Request("model", row_bytes=100), 1, 0.5, 0.0, decoders, writers, 1, shard_rows)
        store = Store.create(folder / "store", make_card())
        self.writers = ShardWriters(self.ray, store, plan, max_age_s=15.0, clock=lambda: self.now)

    def add(self, rows: int) -> None:
        self.writers.add(Block(pa.table({"number": list(range(rows))}), rows))

    def asked(self) -> list[int]:
        list(self.writers.advance())
        return [sum(len(block) for block in blocks) for blocks in self.ray.asked]


def test_shards_are_written_when_they_are_full_or_old(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.add(4)
    assert run.asked() == []
    run.add(4)
    assert run.asked() == [8]
    run.now = 20.0
    run.add(3)
    run.now = 34.0
    assert run.asked() == [8]
    run.now = 35.0
    assert run.asked() == [8, 3]
    assert run.writers.pending == 11
    run.ray.finish(0)
    assert [len(rows) for rows in run.writers.advance()] == [8]
    assert run.writers.pending == 3


def test_a_slow_writer_stops_the_flow_instead_of_filling_the_memory(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(6):
        run.add(4)
    assert run.asked() == [8, 8]
    assert run.writers.full
    run.ray.finish(0)
    list(run.writers.advance())
    assert run.asked() == [8, 8, 8]
    assert not run.writers.full


def test_what_a_lost_writer_had_is_not_counted_as_written(tmp_path: Path) -> None:
    run = Run(tmp_path, writers=2)
    for _ in range(4):
        run.add(4)
    assert run.asked() == [8, 8]
    run.ray.finish(0, ray.exceptions.ActorDiedError())
    with pytest.raises(ray.exceptions.RayActorError):
        list(run.writers.advance())
    run.add(5)
    run.ray.finish(1)
    assert [len(rows) for rows in run.writers.advance(flush=True)] == [8]
    run.ray.finish(2)
    assert [len(rows) for rows in run.writers.salvage(10.0)] == [5]
    assert run.writers.pending == 0
    run.writers.close()
    assert run.ray.killed == 1


def test_an_error_of_the_stage_itself_is_reported(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.add(8)
    run.asked()
    run.ray.finish(0, ValueError("bug"))
    with pytest.raises(ValueError, match="bug"):
        list(run.writers.salvage(10.0))


def test_a_short_run_writes_in_tasks_which_wait_for_no_core_and_survive_a_loss(tmp_path: Path) -> None:
    run = Run(tmp_path, decoders=0)
    assert [options["num_cpus"] for options in run.ray.options] == [0]
    for _ in range(2):
        run.add(8)
    assert run.asked() == [8, 8]
    run.ray.finish(0, ray.exceptions.WorkerCrashedError())
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        list(run.writers.advance())
    run.add(5)
    run.ray.finish(1)
    assert [len(rows) for rows in run.writers.advance(flush=True)] == [8]
    run.ray.finish(2)
    assert [len(rows) for rows in run.writers.salvage(10.0)] == [5]
    run.writers.close()
    assert run.ray.killed == 0
