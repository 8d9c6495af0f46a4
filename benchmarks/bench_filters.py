"""Filtered search beside unfiltered: time of one query, recall@100 and rows left, by radius and method.

    python -m benchmarks.bench_filters --rows 100000
    python -m benchmarks.bench_filters --rows 1000000 --store /big/disk/living

On the store of `living_store`: places on a square grid of 20 m, eight photos each. Each radius is asked
around different places: the first query with a filter computes which rows it leaves, the others with the
same filter do not. Each is followed by the same query without a filter, so that other work on the machine
slows both alike, and times of the processors are counted beside. Recall is against exact search of the rows
that are left.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.living_store import LivingStore
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results
from storage.search.filters.near import Near
from storage.search.methods import SearchMethod
from storage.search.row_filter import RowFilter
from storage.store import Store

RADII_M, AROUND, REPEATED, K = (50, 200, 500, 1000, 2000, 5000), 16, 4, 100


def timed(
    store: Store, query: NDArray[np.float32], method: SearchMethod, within: RowFilter | None
) -> tuple[float, float]:
    """Return the milliseconds of one query, and of all processors for it."""
    began, worked = time.perf_counter(), time.process_time()
    store.search(query[None], k=K, method=method, within=within)
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - worked)


def measure(store: Store, queries: NDArray[np.float32], method: SearchMethod) -> dict[str, Any]:
    """Ask within each radius, and without."""
    for query in queries[:5]:
        timed(store, query, method, None)
    figures: dict[str, Any] = {}
    random = np.random.default_rng(3)
    places = store.places(2000)
    for radius_m in RADII_M:
        asked_ms: dict[str, list[tuple[float, float]]] = {"first": [], "again": [], "unfiltered": []}
        left, recall = [], []
        for place in random.choice(len(places), AROUND, replace=False):  # type: ignore[call-overload]
            within = Near(places[place]["lat"], places[place]["lon"], radius_m)
            asked = queries[random.integers(len(queries), size=REPEATED)]
            for number, query in enumerate(asked):
                asked_ms["again" if number else "first"].append(timed(store, query, method, within))
                asked_ms["unfiltered"].append(timed(store, query, method, None))
            left.append(store.snapshot.considered(within, method))
            if len(recall) < 4:
                recall.append(_recall(store, asked, method, within))
        figures[f"{radius_m} m"] = {
            "rows_left": int(np.median(left)),
            **{f"{name}_ms": _medians(times) for name, times in asked_ms.items()},
            "first_ratio": _ratios(asked_ms["first"], asked_ms["unfiltered"]),
            "again_ratio": _ratios(asked_ms["again"], asked_ms["unfiltered"]),
            "recall_at_100": round(float(np.mean(recall)), 4),
        }
        print(method, radius_m, figures[f"{radius_m} m"], flush=True)
    return figures


def _recall(store: Store, queries: NDArray[np.float32], method: SearchMethod, within: RowFilter) -> float:
    found = store.search(queries, k=K, method=method, within=within)
    exact = store.search(queries, k=K, method="exact", within=within)
    shares = [
        len({hit.record.image_id for hit in a} & {hit.record.image_id for hit in b}) / max(1, len(b))
        for a, b in zip(found, exact, strict=True)
    ]
    return float(np.mean(shares))


def _medians(times: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = np.median(times, axis=0)
    return {"wall": round(float(wall), 2), "cpu": round(float(cpu), 2)}


def _ratios(times: list[tuple[float, float]], usual: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = np.median(times, axis=0) / np.median(usual, axis=0)
    return {"wall": round(float(wall), 2), "cpu": round(float(cpu), 2)}


def main() -> None:
    parser = make_parser(__doc__, "filters.json")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--methods", nargs="+", choices=["exact", "ivf", "lance"], default=["ivf", "lance"])
    parser.add_argument("--store", type=Path, help="folder of the store; kept, and used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        city = LivingStore(options.store or Path(scratch, "store"), options.rows, width=options.width)
        if city.store.count < options.rows // 2:
            city.grow(options.rows)
        if "lance" in options.methods:
            city.store.build_index()
        store = Store.open(city.store.uri)
        queries = city.queries(60)
        figures = {method: measure(store, queries, method) for method in options.methods}
    results = read_results(options.out)
    results["machine"] = describe_machine()
    results.setdefault("measurements", {})[f"{options.rows:,}"] = {"command": command_line(), **figures}
    write_results(options.out, results)


if __name__ == "__main__":
    main()
