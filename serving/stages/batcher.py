"""Dynamic batching: all items queued when the worker thread becomes free form its next batch.

There is no delay to tune: a single item starts immediately; under load, a batch grows to the number of items
that arrived during the previous one. A batch is never formed before it can start, so that no queue of small
batches builds up.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from serving.errors import BatcherClosed, DeadlineExceeded, QueueFull

__all__ = ["MicroBatcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Entry(Generic[Item, Result]):
    """A queued item and its future, compared by identity."""

    def __init__(self, item: Item, future: asyncio.Future[Result]) -> None:
        self.item = item
        self.future = future


class MicroBatcher(Generic[Item, Result]):
    """Collects items from coroutines of one event loop into batches for one worker thread.

    First in, first out. An item that is cancelled or times out while queued leaves the queue; once its batch
    has started, it is processed and its result discarded.

    Args:
        work: Takes 1 to `max_batch` items and returns as many results in the same order. Runs in the worker
            thread. An exception is raised for every item of its batch and for no other.
        max_batch: The largest batch.
        max_queue: Maximum number of queued items, without the batch being processed.
        on_batch: Called in the event loop with size and seconds of each batch that succeeded.
        name: Of the thread.
        clock: Seconds; times the batches.

    Raises:
        ValueError: a bound is below 1.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result]],
        *,
        max_batch: int = 8,
        max_queue: int = 64,
        on_batch: Callable[[int, float], None] | None = None,
        name: str = "batcher",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_batch < 1 or max_queue < 1:
            raise ValueError(
                f"max_batch {max_batch} and max_queue {max_queue} must be at least 1; raise them."
            )
        self._work = work
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._closed = False
        self._batch_s = 0.0

    @property
    def queued(self) -> int:
        """Number of queued items, without the batch being processed."""
        return len(self._queue)

    async def submit(self, item: Item, *, timeout_s: float | None = None) -> Result:
        """Wait for the result of one item.

        Args:
            item: Passed to `work` unchanged.
            timeout_s: Time limit for the result; None: no limit.

        Raises:
            QueueFull: too many items are queued; this one was not queued.
            DeadlineExceeded: no result within `timeout_s`.
            BatcherClosed: the batcher was closed before the item was processed.
        """
        if self._closed:
            raise BatcherClosed("This batcher is closed; ask another replica.")
        if len(self._queue) >= self._max_queue:
            raise QueueFull(len(self._queue), self.retry_after_s)
        loop = asyncio.get_running_loop()
        entry: _Entry[Item, Result] = _Entry(item, loop.create_future())
        self._queue.append(entry)
        if self._runner is None:
            # A task, not a call: items submitted in the same turn of the event loop share the first batch.
            self._runner = loop.create_task(self._run())
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                return await entry.future
        except TimeoutError as error:
            if not deadline.expired():  # the work itself raised it
                raise
            raise DeadlineExceeded(f"No result within {timeout_s:g} s; try again later.") from error
        finally:
            if entry.future.cancelled():  # by the caller or the deadline
                self._drop(entry)

    async def close(self, *, drain: bool = True) -> None:
        """Accept no more items, finish queued ones and end the worker thread. May be called again.

        Args:
            drain: False raises `BatcherClosed` for queued items; the batch being processed is finished in any
                case.
        """
        self._closed = True
        while not drain and self._queue:
            _settle(self._queue.popleft().future, BatcherClosed("Closed while queued; ask another replica."))
        if self._runner is not None:
            await asyncio.wait([self._runner])
        await asyncio.to_thread(self._thread.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self) -> None:
        """Process batches until the queue is empty; there is no await between that check and the end."""
        batch: list[_Entry[Item, Result]] = []
        try:
            while batch := self._next_batch():
                await self._finish(batch)
        finally:
            self._runner = None
            for entry in [*batch, *self._queue]:  # not empty only when the event loop is closing
                entry.future.cancel()

    def _next_batch(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        while self._queue and len(batch) < self._max_batch:
            entry = self._queue.popleft()
            if not entry.future.done():
                batch.append(entry)
        return batch

    async def _finish(self, batch: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        started = self._clock()
        try:
            results = await loop.run_in_executor(self._thread, self._call, [entry.item for entry in batch])
            seconds = self._clock() - started
            self._batch_s = 0.8 * self._batch_s + 0.2 * seconds if self._batch_s else seconds
            if self._on_batch is not None:
                self._on_batch(len(batch), seconds)
        except Exception as error:
            for entry in batch:
                _settle(entry.future, error)
        else:
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)

    def _call(self, items: list[Item]) -> Sequence[Result]:
        """Runs in the worker thread."""
        expected = len(items)  # before `work`, which may change the list
        try:
            results = self._work(items)
        except StopIteration as error:  # a future cannot hold it (PEP 479)
            raise RuntimeError("the work raised StopIteration") from error
        if len(results) != expected:
            raise RuntimeError(f"the work gave {len(results)} results for {expected} items; correct the work")
        return results

    def _drop(self, entry: _Entry[Item, Result]) -> None:
        if entry in self._queue:
            self._queue.remove(entry)

    @property
    def retry_after_s(self) -> float:
        """Estimate, from the batches so far, of when a full queue has room again."""
        batches = math.ceil(len(self._queue) / self._max_batch) + 1  # one is being processed
        return max(1.0, batches * self._batch_s)


def _settle(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
