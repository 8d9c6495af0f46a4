"""A living index: how soon new rows are found, at which recall, memory and time per query.

    python -m benchmarks.bench_living --rows 100000
    python -m benchmarks.bench_living --rows 1000000 --commits 10 --store /big/disk/living
    python -m benchmarks.bench_living --rows 1000000 --seconds 600 --store /big/disk/living

A store of generated descriptors (see `living_store`) is loaded once; then a writer in a process of its own
commits 1,000 rows at a time, and a follower like that of the service, which looks every 0.5 s, moves on.
Between its checks queries are asked one at a time. Measured are the seconds from the return of a commit
until a search returns its rows, recall@100 against exact search of the same version at the end, the memory
of the process at its peak beside that after loading, and the time of queries before, while and after it
follows. A compaction and deletions are among the changes.

With `--seconds` commits go on for so long, one every `--every` seconds. An exact index follows beside the
other one; half-way and at the end it is compared with a fresh exact index of the same version: rows, order
and similarities of all answers must be the same. Memory is that of one index: it is not measured then.
"""

from __future__ import annotations

import functools
import gc
import itertools
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.living_store import LivingStore, drawn_id
from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import command_line, make_parser, read_results, write_results
from storage.search.index_partition import IndexPartition
from storage.search.living_searcher import LivingSearcher
from storage.search.methods import SearchMethod
from storage.store import Store

COMMIT_ROWS, REFRESH_S, K, COMPACT_EVERY = 1000, 0.5, 100, 12


def write(folder: str, rows: int, width: int, orders: Any, done: Any) -> None:
    """Commit when told to, until told None; say when it is committed and which photo to look for."""
    city = LivingStore(Path(folder), rows, width=width)
    for number in iter(orders.get, None):
        last = city.grow(COMMIT_ROWS)
        committed = time.time()
        done.put((committed, drawn_id(city.drawn - 1), last[-1]))
        if number % 4 == 1:
            city.delete_some(50, seed=number)
        if number % COMPACT_EVERY == COMPACT_EVERY // 2:
            city.store.compact(keep_versions_s=600)


def follow(parts: list[IndexPartition], stop: threading.Event) -> None:
    while not stop.wait(REFRESH_S - time.time() % REFRESH_S):
        for part in parts:
            part.refresh()


@dataclass(frozen=True)
class Plan:
    """What to measure: options of the command line."""

    rows: int
    width: int
    commits: int
    method: SearchMethod
    seconds: float | None
    every_s: float


def ask(part: IndexPartition, queries: NDArray[np.float32], count: int) -> list[float]:
    """Return the milliseconds of so many single queries."""
    times = []
    for at in range(count):
        began = time.perf_counter()
        part.search(queries[at % len(queries)][None], k=K)
        times.append(1e3 * (time.perf_counter() - began))
    return times


def found_after(part: IndexPartition, committed: float, name: str, query: NDArray[np.float32]) -> float:
    """Return the seconds since a commit at which a search returns its last photo."""
    while True:
        hits = part.search(query[None], k=1)[0].hits
        if hits and hits[0].record.image_id == name:
            return time.time() - committed
        if time.time() - committed > 60:
            raise TimeoutError(f"{name} was not found within 60 s")
        time.sleep(0.01)


def recall_of(part: IndexPartition, exact: IndexPartition | None, queries: NDArray[np.float32]) -> float:
    """Return recall@100 against an exact index that follows beside, or one made for it."""
    if exact is not None:
        truth = [answer.hits for answer in exact.search(queries, k=K)]
    else:
        truth = part.snapshot.search(queries, k=K, method="exact")
    found = part.search(queries, k=K)
    shares = [
        len({hit.record.image_id for hit in a.hits} & {hit.record.image_id for hit in b}) / K
        for a, b in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


@dataclass
class Followed:
    """What was measured while the index followed commits.

    Attributes:
        seconds: From the return of each commit until its last row was found.
        times: Milliseconds of the queries meanwhile.
        extensions: Commits after which the index was being extended aside.
        unlike: Answers of the exact index that differed from a fresh one's, half-way.
    """

    seconds: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    extensions: int = 0
    unlike: int | None = None


def follow_commits(
    part: IndexPartition,
    queries: NDArray[np.float32],
    asked: Plan,
    orders: Any,
    done: Any,
    check: Callable[[], int],
) -> Followed:
    """Have the writer commit as planned, and ask meanwhile; `check` compares answers, once half-way."""
    made, began = Followed(), time.monotonic()
    for number in itertools.count():
        due = began + number * asked.every_s
        if number >= asked.commits if asked.seconds is None else due >= began + asked.seconds:
            break
        if asked.seconds is not None and made.unlike is None and due >= began + asked.seconds / 2:
            stopped = time.monotonic()
            made.unlike = check()
            began += time.monotonic() - stopped
            due = began + number * asked.every_s
        while time.monotonic() < due:
            made.times += ask(part, queries, 5)
        orders.put(number)
        while done.empty():
            made.times += ask(part, queries, 20)
        made.seconds.append(found_after(part, *done.get()))
        made.times += ask(part, queries, 100 if asked.seconds is None else 20)
        searcher = part.snapshot._searcher(asked.method)
        assert isinstance(searcher, LivingSearcher)
        made.extensions += searcher.extending
    orders.put(None)
    return made


def differences(part: IndexPartition, folder: Path, queries: NDArray[np.float32]) -> int:
    """Return how many answers of a followed exact index differ from those of a fresh one."""
    part.refresh()
    followed = [answer.hits for answer in part.search(queries, k=K)]
    fresh = Store.open(folder).search(queries, k=K, method="exact")
    return sum(a != b for a, b in zip(followed, fresh, strict=True))


def measure(folder: Path, asked: Plan) -> dict[str, Any]:
    """Load, follow and ask; in this process, with the writer in another."""
    context = multiprocessing.get_context("spawn")
    orders, done = context.Queue(), context.Queue()
    city = LivingStore(folder, asked.rows, width=asked.width)
    if city.store.count < asked.rows:
        city.grow(asked.rows - city.store.count)
    queries = city.queries(200)
    del city
    gc.collect()
    empty, began = status_mib("RssAnon"), time.perf_counter()
    part = IndexPartition(str(folder), method=asked.method, keep_s=3.0)
    loaded_s = time.perf_counter() - began
    gc.collect()
    loaded = status_mib("RssAnon") - empty
    usual = ask(part, queries, 400)
    parts, stop = [part], threading.Event()
    if asked.seconds is not None:
        parts.append(IndexPartition(str(folder), method="exact", keep_s=3.0))
    follower = threading.Thread(target=follow, args=(parts, stop), daemon=True)
    follower.start()
    writer = context.Process(target=write, args=(str(folder), asked.rows, asked.width, orders, done))
    writer.start()
    peak = PeakMemory(lambda: status_mib("RssAnon"), interval_s=0.05)
    check = functools.partial(differences, parts[-1], folder, queries)
    made = follow_commits(part, queries, asked, orders, done, check)
    writer.join()
    searcher = part.snapshot._searcher(asked.method)
    assert isinstance(searcher, LivingSearcher)
    searcher.settle(600)
    most = loaded + peak.stop()
    stop.set()
    follower.join()
    for each in parts:
        each.refresh()
    settled = ask(part, queries, 400)
    exact: dict[str, Any] = {}
    memory: dict[str, float] | None = {
        "loaded": round(loaded),
        "peak": round(most),
        "ratio": round(most / loaded, 2),
    }
    if asked.seconds is not None:
        memory = None
        exact = {"seconds": asked.seconds, "answers": len(queries)}
        exact["answers_unlike_a_fresh_exact_index"] = {"half-way": made.unlike, "at the end": check()}
    return {
        "rows": asked.rows,
        "width": asked.width,
        "method": asked.method,
        "commits": len(made.seconds),
        "load_s": round(loaded_s, 1),
        "found_after_s": {
            "median": round(float(np.median(made.seconds)), 2),
            "max": round(max(made.seconds), 2),
            "over_2_s": sum(seconds > 2 for seconds in made.seconds),
        },
        "recall_at_100": round(recall_of(part, parts[1] if asked.seconds is not None else None, queries), 4),
        "memory_mib": memory,
        "query_ms": {
            "before": _times(usual),
            "while following": _times(made.times),
            "after": _times(settled),
        },
        "extended": made.extensions,
        **exact,
    }


def _times(times: list[float]) -> dict[str, float]:
    return {
        "p50": round(float(np.median(times)), 2),
        "p99": round(float(np.percentile(times, 99)), 2),
        "max": round(max(times), 1),
    }


def main() -> None:
    parser = make_parser(__doc__, "living.json")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--commits", type=int, default=12, help="of 1,000 rows each")
    parser.add_argument("--method", choices=["exact", "ivf"], default="ivf")
    parser.add_argument("--store", type=Path, help="folder of the store; kept, and used again")
    parser.add_argument("--seconds", type=float, help="go on committing for so long")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between commits, with --seconds")
    options = parser.parse_args()
    plan = Plan(
        *(options.rows, options.width, options.commits, options.method, options.seconds),
        every_s=0.0 if options.seconds is None else options.every,
    )
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(options.store or Path(scratch, "store"), plan)
    results = read_results(options.out)
    results["machine"] = describe_machine()
    name = f"{plan.method} {plan.rows:,}" + ("" if plan.seconds is None else f", {plan.seconds:.0f} s")
    results.setdefault("measurements", {})[name] = {"command": command_line(), **figures}
    print(figures)
    write_results(options.out, results)


if __name__ == "__main__":
    main()
