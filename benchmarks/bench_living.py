"""A living index: how soon new rows are found, at which recall, memory and time per query.

    python -m benchmarks.bench_living --rows 100000
    python -m benchmarks.bench_living --rows 1000000 --commits 10 --store /big/disk/living

A store of generated descriptors (see `living_store`) is loaded once; then a writer in a process of its own
commits 1,000 rows at a time, and a follower like that of the service, which looks every 0.5 s, moves on.
Between its checks queries are asked one at a time. Measured are the seconds from the return of a commit
until a search returns its rows, recall@100 against exact search of the same version at the end, the memory
of the process at its peak beside that after loading, and the time of queries before, while and after it
follows. A compaction and deletions are among the changes.
"""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.living_store import LivingStore
from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import command_line, make_parser, read_results, write_results
from storage.search.index_partition import IndexPartition
from storage.search.living_searcher import LivingSearcher
from storage.search.methods import SearchMethod

COMMIT_ROWS, REFRESH_S, K = 1000, 0.5, 100


def write(folder: str, rows: int, width: int, commits: int, orders: Any, done: Any) -> None:
    """Commit when told to; say when it is committed and which photo to look for."""
    city = LivingStore(Path(folder), rows, width=width)
    for number in range(commits):
        orders.get()
        last = city.grow(COMMIT_ROWS)
        committed = time.time()
        done.put((committed, city.newest, last[-1]))
        if number % 4 == 1:
            city.delete_some(50, seed=number)
        if number == commits // 2:
            city.store.compact(keep_versions_s=600)


def follow(part: IndexPartition, stop: threading.Event) -> None:
    while not stop.wait(REFRESH_S - time.time() % REFRESH_S):
        part.refresh()


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
        if hits and hits[0].record.image_id.endswith(f"{name}.jpg"):
            return time.time() - committed
        if time.time() - committed > 60:
            raise TimeoutError(f"{name} was not found within 60 s")
        time.sleep(0.01)


def recall_of(part: IndexPartition, queries: NDArray[np.float32]) -> float:
    exact = part.snapshot.search(queries, k=K, method="exact")
    found = part.search(queries, k=K)
    shares = [
        len({hit.record.image_id for hit in a.hits} & {hit.record.image_id for hit in b}) / K
        for a, b in zip(found, exact, strict=True)
    ]
    return float(np.mean(shares))


def measure(folder: Path, rows: int, width: int, commits: int, method: SearchMethod) -> dict[str, Any]:
    """Load, follow and ask; in this process, with the writer in another."""
    context = multiprocessing.get_context("spawn")
    orders, done = context.Queue(), context.Queue()
    city = LivingStore(folder, rows, width=width)
    if city.store.count < rows:
        city.grow(rows - city.store.count)
    queries = city.queries(200)
    del city
    gc.collect()
    empty, began = status_mib("RssAnon"), time.perf_counter()
    part = IndexPartition(str(folder), method=method, keep_s=3.0)
    loaded_s = time.perf_counter() - began
    gc.collect()
    loaded = status_mib("RssAnon") - empty
    usual = ask(part, queries, 400)
    stop = threading.Event()
    threading.Thread(target=follow, args=(part, stop), daemon=True).start()
    writer = context.Process(target=write, args=(str(folder), rows, width, commits, orders, done))
    writer.start()
    peak = PeakMemory(lambda: status_mib("RssAnon"), interval_s=0.05)
    seconds, between, extensions = [], [], 0
    for _ in range(commits):
        orders.put(None)
        while done.empty():
            between += ask(part, queries, 20)
        seconds.append(found_after(part, *done.get()))
        between += ask(part, queries, 100)
        searcher = part.snapshot._searcher(method)
        assert isinstance(searcher, LivingSearcher)
        extensions += searcher.extending
    writer.join()
    searcher.settle(600)
    most = loaded + peak.stop()
    stop.set()
    part.refresh()
    settled = ask(part, queries, 400)
    return {
        "rows": rows,
        "width": width,
        "method": method,
        "commits": commits,
        "load_s": round(loaded_s, 1),
        "found_after_s": {"median": round(float(np.median(seconds)), 2), "max": round(max(seconds), 2)},
        "recall_at_100": round(recall_of(part, queries), 4),
        "memory_mib": {"loaded": round(loaded), "peak": round(most), "ratio": round(most / loaded, 2)},
        "query_ms": {
            "before": _times(usual),
            "while following": _times(between),
            "after": _times(settled),
        },
        "extended": extensions,
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.store or Path(scratch, "store")
        figures = measure(folder, options.rows, options.width, options.commits, options.method)
    results = read_results(options.out)
    results["machine"] = describe_machine()
    results.setdefault("measurements", {})[f"{options.method} {options.rows:,}"] = {
        "command": command_line(),
        **figures,
    }
    print(figures)
    write_results(options.out, results)


if __name__ == "__main__":
    main()
