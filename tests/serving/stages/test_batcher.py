"""Batches are watched through a worker that works only when the test lets it; no test looks at a clock."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import pytest

from serving.errors import BatcherClosed, DeadlineExceeded, QueueFull
from serving.stages.batcher import MicroBatcher

LONG_S = 20.0  # only ends a test that hangs


class GatedWork:
    """Doubles numbers; records its batches; each batch waits for the test once `hold` was called."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._held = False

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.release()
        if self._held:
            assert self._permits.acquire(timeout=LONG_S)
        return [2 * item for item in items]

    def hold(self) -> None:
        self._held = True

    def release(self, batches: int = 1000) -> None:
        self._permits.release(batches)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), LONG_S))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def busy(batcher: MicroBatcher[int, int], work: GatedWork) -> asyncio.Task[int]:
    """Occupy the worker with the item 0."""
    work.hold()
    task = asyncio.create_task(batcher.submit(0))
    assert await asyncio.to_thread(work.started.acquire, timeout=LONG_S)
    return task


def submit_all(batcher: MicroBatcher[int, int], items: range) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


def test_submit_one_item_gives_its_result() -> None:
    async def test() -> None:
        async with MicroBatcher[int, int](GatedWork()) as batcher:
            assert await batcher.submit(21) == 42

    run(test)


def test_submit_at_low_load_works_alone_and_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        work = GatedWork()

        def forbidden(*_: object, **__: object) -> NoReturn:
            raise AssertionError("an item waits for a timer")

        batcher = MicroBatcher[int, int](work)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", forbidden)
        monkeypatch.setattr(loop, "call_at", forbidden)
        assert [await batcher.submit(item) for item in range(5)] == [0, 2, 4, 6, 8]
        monkeypatch.undo()
        assert work.batches == [[0], [1], [2], [3], [4]]
        await batcher.close()

    run(test)


def test_submit_in_one_turn_shares_the_first_batch() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work, max_batch=4) as batcher:
            assert await asyncio.gather(*submit_all(batcher, range(6))) == [0, 2, 4, 6, 8, 10]
        assert work.batches == [[0, 1, 2, 3], [4, 5]]

    run(test)


def test_batches_under_load_hold_all_items_queued_in_between() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work, max_batch=8) as batcher:
            tasks = [await busy(batcher, work)]
            for item in range(1, 12):  # one at a time, as from eleven clients
                tasks += submit_all(batcher, range(item, item + 1))
                await turns()
            assert batcher.queued == 11
            assert len(work.batches) == 1, "a batch was formed while the worker was busy"
            work.release()
            assert await asyncio.gather(*tasks) == [2 * item for item in range(12)]
        assert work.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]

    run(test)


def test_batches_of_a_greedy_client_leave_others_their_turn() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work, max_batch=2) as batcher:
            tasks = [await busy(batcher, work)]
            tasks += submit_all(batcher, range(1, 5))
            await turns()
            tasks += submit_all(batcher, range(100, 101))  # the modest client
            await turns()
            tasks += submit_all(batcher, range(5, 9))
            await turns()
            work.release()
            await asyncio.gather(*tasks)
        assert work.batches == [[0], [1, 2], [3, 4], [100, 5], [6, 7], [8]]

    run(test)


def test_submit_beyond_the_queue_raises_queue_full_and_queues_nothing() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work, max_batch=2, max_queue=3) as batcher:
            tasks = [await busy(batcher, work), *submit_all(batcher, range(1, 4))]
            await turns()
            with pytest.raises(QueueFull, match="try again in 1 s") as caught:
                await batcher.submit(99)
            assert caught.value.retry_after_s == 1
            work.release()
            assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
            assert await batcher.submit(5) == 10, "room again"
        assert work.batches == [[0], [1, 2], [3], [5]]

    run(test)


def test_queue_full_retry_after_counts_the_batches_ahead() -> None:
    ticks = iter(range(0, 1000, 7))  # the clock goes on 7 s at each look: each batch lasts 7 s

    async def test() -> None:
        work = GatedWork()
        batcher = MicroBatcher[int, int](work, max_batch=2, max_queue=3, clock=lambda: next(ticks))
        assert await batcher.submit(1) == 2
        assert work.started.acquire(timeout=LONG_S)
        tasks = [await busy(batcher, work), *submit_all(batcher, range(1, 4))]
        await turns()
        with pytest.raises(QueueFull) as caught:
            await batcher.submit(99)
        assert caught.value.retry_after_s == 21, "one batch being processed and two queued"
        work.release()
        await asyncio.gather(*tasks)
        await batcher.close()

    run(test)


def test_cancel_while_waiting_drops_the_item_and_frees_its_place() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work, max_queue=3) as batcher:
            first = await busy(batcher, work)
            tasks = submit_all(batcher, range(1, 4))
            await turns()
            tasks[1].cancel()
            await turns()
            assert batcher.queued == 2
            tasks += submit_all(batcher, range(4, 5))
            await turns()
            work.release()
            assert await first == 0
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results.pop(1), asyncio.CancelledError)
        assert results == [2, 6, 8]
        assert work.batches == [[0], [1, 3, 4]]

    run(test)


def test_cancel_in_the_turn_of_the_batch_is_not_worked_on() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work) as batcher:
            tasks = submit_all(batcher, range(2))
            await asyncio.sleep(0)  # both wait; the batch is formed in the coming turn
            tasks[0].cancel()
            assert await tasks[1] == 2
        assert work.batches == [[1]]

    run(test)


def test_cancel_at_work_leaves_the_others_of_the_batch() -> None:
    async def test() -> None:
        work = GatedWork()
        work.hold()
        async with MicroBatcher[int, int](work) as batcher:
            tasks = submit_all(batcher, range(3))
            assert await asyncio.to_thread(work.started.acquire, timeout=LONG_S)
            tasks[1].cancel()
            await turns()
            work.release()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert results[::2] == [0, 4]

    run(test)


def test_exception_reaches_its_batch_only() -> None:
    def work(items: list[int]) -> list[int]:
        if 3 in items:
            raise ArithmeticError("three")
        return items

    async def test() -> None:
        async with MicroBatcher[int, int](work, max_batch=2) as batcher:
            results = await asyncio.gather(*submit_all(batcher, range(6)), return_exceptions=True)
            assert results[:2] == [0, 1]
            assert [str(result) for result in results[2:4]] == ["three", "three"]
            assert all(isinstance(result, ArithmeticError) for result in results[2:4])
            assert results[4:] == [4, 5]

    run(test)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StopIteration("over"), "the work raised StopIteration"),
        (TimeoutError("of the work"), "of the work"),
    ],
)
def test_exception_that_asyncio_treats_specially_is_passed_on(error: Exception, message: str) -> None:
    def work(items: list[int]) -> list[int]:
        raise error

    async def test() -> None:
        async with MicroBatcher[int, int](work) as batcher:
            with pytest.raises((RuntimeError, TimeoutError)) as caught:
                await batcher.submit(1, timeout_s=LONG_S)
            assert str(caught.value) == message

    run(test)


def test_exception_with_a_cancelled_caller_is_not_reported_as_lost() -> None:
    lost: list[dict[str, Any]] = []

    def work(items: list[int]) -> list[int]:
        raise ArithmeticError("nobody listens")

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        async with MicroBatcher[int, int](work) as batcher:
            second: list[asyncio.Task[int]] = []

            async def first() -> None:
                with pytest.raises(ArithmeticError):
                    await batcher.submit(1)
                second[0].cancel()  # which the failure has woken, but which has not run yet

            task = asyncio.create_task(first())
            await asyncio.sleep(0)
            second += submit_all(batcher, range(2, 3))
            await task
            results = await asyncio.gather(*second, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            second.clear()
            del results
        gc.collect()
        await turns()

    run(test)
    assert lost == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_work_with_a_wrong_number_of_results_fails_the_batch(count: int) -> None:
    async def test() -> None:
        async with MicroBatcher[int, int](lambda items: [7] * count) as batcher:
            results = await asyncio.gather(*submit_all(batcher, range(2)), return_exceptions=True)
            assert [str(result) for result in results] == [
                f"the work gave {count} results for 2 items; correct the work"
            ] * 2

    run(test)


def test_deadline_of_a_waiting_item_drops_it() -> None:
    async def test() -> None:
        work = GatedWork()
        async with MicroBatcher[int, int](work) as batcher:
            first = await busy(batcher, work)
            with pytest.raises(DeadlineExceeded, match="No result within"):
                await batcher.submit(1, timeout_s=0.01)
            assert batcher.queued == 0
            work.release()
            assert await first == 0
            assert await batcher.submit(2, timeout_s=LONG_S) == 4
        assert work.batches == [[0], [2]]

    run(test)


def test_close_finishes_what_waits_and_takes_no_more() -> None:
    async def test() -> None:
        work = GatedWork()
        batcher = MicroBatcher[int, int](work, max_batch=2, name="closing")
        tasks = [await busy(batcher, work), *submit_all(batcher, range(1, 4))]
        await turns()
        closing = [asyncio.create_task(batcher.close()) for _ in range(2)]
        await turns()
        with pytest.raises(BatcherClosed, match="ask another replica"):
            await batcher.submit(9)
        work.release()
        await asyncio.gather(*closing)
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
        assert work.batches == [[0], [1, 2], [3]]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("closing")]
        await batcher.close()

    run(test)


def test_close_without_drain_tells_those_who_wait() -> None:
    async def test() -> None:
        work = GatedWork()
        batcher = MicroBatcher[int, int](work)
        first = await busy(batcher, work)
        tasks = submit_all(batcher, range(1, 4))
        await turns()
        closing = asyncio.create_task(batcher.close(drain=False))
        await turns()
        work.release()
        await closing
        assert await first == 0
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [BatcherClosed] * 3
        assert work.batches == [[0]]

    run(test)


def test_on_batch_hears_sizes_of_batches() -> None:
    sizes: list[int] = []

    async def test() -> None:
        batcher = MicroBatcher[int, int](
            GatedWork(), max_batch=3, on_batch=lambda size, _: sizes.append(size)
        )
        await asyncio.gather(*submit_all(batcher, range(7)))
        await batcher.close()

    run(test)
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("bounds", [{"max_batch": 0}, {"max_queue": 0}])
def test_batcher_with_a_bound_below_one_is_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1; raise them"):
        MicroBatcher[int, int](GatedWork(), **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_random_traffic_loses_and_mixes_nothing(seed: int) -> None:
    draw = random.Random(seed)
    outcomes: list[tuple[int, object]] = []

    def work(items: list[int]) -> list[int]:
        assert 1 <= len(items) <= 4, f"seed {seed}"
        if any(item % 41 == 0 for item in items):
            raise ArithmeticError(items)
        return [2 * item for item in items]

    async def client(batcher: MicroBatcher[int, int], item: int) -> None:
        await turns(draw.randrange(40))
        try:
            outcome: Awaitable[int] = batcher.submit(item)
            outcomes.append((item, await outcome))
        except (ArithmeticError, QueueFull) as error:
            outcomes.append((item, error))

    async def test() -> None:
        async with MicroBatcher[int, int](work, max_batch=4, max_queue=20) as batcher:
            tasks = [asyncio.create_task(client(batcher, item)) for item in range(200)]
            for task in draw.sample(tasks, 40):
                await turns(draw.randrange(3))
                task.cancel()
            cancelled = await asyncio.gather(*tasks, return_exceptions=True)
            assert batcher.queued == 0, f"seed {seed}"
            lost = [result for result in cancelled if not isinstance(result, asyncio.CancelledError | None)]
            assert not lost, f"seed {seed}: {lost}"
            ended = len(outcomes) + sum(result is not None for result in cancelled)
            assert ended == 200, f"seed {seed}"

    run(test)
    results = [(item, outcome) for item, outcome in outcomes if isinstance(outcome, int)]
    assert results, f"seed {seed}"  # how many find the queue full depends on how fast the thread is
    assert all(outcome == 2 * item for item, outcome in results), f"seed {seed}"
