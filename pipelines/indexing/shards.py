"""Has extracted blocks written as shards, by number of rows and by time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa

from pipelines.indexing.actor import ShardWriter, write_blocks
from pipelines.indexing.flow import Block, Target
from pipelines.indexing.losses import is_loss
from pipelines.indexing.plan import WRITE_CPUS, Plan
from pipelines.indexing.write import write

__all__ = ["ShardWriters", "Sink"]

_SHARDS_PER_WRITER = 2


class Sink(Protocol):
    """What takes the blocks of a flow and gives back their rows, such as `ShardWriters`."""

    @property
    def pending(self) -> int:
        """Number of rows that were not given back yet."""

    @property
    def full(self) -> bool:
        """Whether no further block should be added now."""

    def add(self, block: Block) -> None:
        """Take a block."""

    def advance(self, *, flush: bool = False, timeout_s: float = 0.0) -> Iterator[pa.Table]:
        """Yield rows that are finished."""

    def salvage(self, timeout_s: float) -> Iterator[pa.Table]:
        """Yield rows that survived a loss."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass
class _Seat:
    """What writes shards, an actor or tasks, and the shards that it has to write.

    Attributes:
        write: Starts to write some references; returns one to the rows.
        actor: The actor, if it is one.
        shards: Number of rows by reference.
    """

    write: Callable[..., Any]
    actor: Any = None
    shards: dict[Any, int] = field(default_factory=dict)


class ShardWriters:
    """Collects blocks into shards and hands them to actors; the rows come back without their features.

    A shard is written when it has `plan.shard_rows` rows, or when its first rows have waited for `max_age_s`:
    a slow job must not lose minutes of work to a crash. Blocks stay in the object store and travel directly
    to what writes them: actors, or tasks where tasks decode too, whose processes are then at hand.

    Args:
        ray: The connected `ray` module.
        store: The store.
        plan: The result of `make_plan`.
        max_age_s: How long rows may wait for the rest of their shard.
        clock: Seconds.
    """

    def __init__(
        self,
        ray: Any,
        store: Target,
        plan: Plan,
        *,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ray, self._clock = ray, clock
        self._shard_rows, self._max_age_s = plan.shard_rows, max_age_s
        options = {"store_uri": store.uri, "card": store.card.to_json(), "trace": plan.request.trace}
        self._seats = [_seat(ray, options, tasks=not plan.decoders) for _ in range(plan.writers)]
        self._blocks: list[Block] = []
        self._since = clock()

    @property
    def pending(self) -> int:
        """Number of rows that are not written yet."""
        return sum(block.rows for block in self._blocks) + sum(
            sum(seat.shards.values()) for seat in self._seats
        )

    @property
    def full(self) -> bool:
        """Whether the actors have as many shards to write as they may, and the next one is complete."""
        return self._free_seat() is None and self._collected >= self._shard_rows

    def add(self, block: Block) -> None:
        """Take a block."""
        if not self._blocks:
            self._since = self._clock()
        self._blocks.append(block)

    def advance(self, *, flush: bool = False, timeout_s: float = 0.0) -> Iterator[pa.Table]:
        """Start to write what is due, and yield the rows of the shards that are finished.

        Args:
            flush: Write what there is, also if it is less than a shard.
            timeout_s: How long to wait for a shard.

        Raises:
            Exception: a writer, its node or the rows to write were lost; see `is_loss`.
        """
        due = flush or self._clock() - self._since >= self._max_age_s
        while self._blocks and (due or self._collected >= self._shard_rows):
            if not self._start():
                break
        seats = {ref: seat for seat in self._seats for ref in seat.shards}
        if not seats:
            return
        wanted = 1 if timeout_s else len(seats)
        for ref in self._ray.wait(list(seats), num_returns=wanted, timeout=timeout_s)[0]:
            del seats[ref].shards[ref]
            try:
                yield self._ray.get(ref)
            except self._ray.exceptions.RayActorError:
                self._seats.remove(seats[ref])
                raise

    def salvage(self, timeout_s: float) -> Iterator[pa.Table]:
        """Write what survived a loss, and yield its rows; what is lost or takes too long is given up."""
        deadline = self._clock() + timeout_s
        while self.pending and self._seats and self._clock() < deadline:
            try:
                yield from self.advance(flush=True, timeout_s=0.1)
            except Exception as error:
                if not is_loss(error):
                    raise

    def close(self) -> None:
        """End the actors."""
        for seat in self._seats:
            if seat.actor is not None:
                self._ray.kill(seat.actor)

    def __enter__(self) -> ShardWriters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _collected(self) -> int:
        return sum(block.rows for block in self._blocks)

    def _free_seat(self) -> _Seat | None:
        seat = min(self._seats, key=lambda seat: len(seat.shards), default=None)
        return seat if seat is not None and len(seat.shards) < _SHARDS_PER_WRITER else None

    def _start(self) -> bool:
        """Hand the oldest blocks to an actor; return whether one is free."""
        seat = self._free_seat()
        if seat is None:
            return False
        rows = count = 0
        while count < len(self._blocks) and rows < self._shard_rows:
            rows += self._blocks[count].rows
            count += 1
        blocks, self._blocks = self._blocks[:count], self._blocks[count:]
        seat.shards[seat.write(*[block.ref for block in blocks])] = rows
        self._since = self._clock()
        return True


def _seat(ray: Any, options: dict[str, Any], *, tasks: bool) -> _Seat:
    if tasks:
        # Without a share of a core: unlike an actor, a task would have to wait for it again each time.
        task = ray.remote(write_blocks).options(num_cpus=0, max_retries=0)
        return _Seat(partial(task.remote, write, options))
    actor = ray.remote(ShardWriter).options(num_cpus=WRITE_CPUS, max_restarts=0).remote(write, options)
    return _Seat(actor.write.remote, actor)
