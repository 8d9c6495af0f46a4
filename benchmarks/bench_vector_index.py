"""The index on disk by one builder and by many workers: seconds, recall against exact search, time per query.

    python -m benchmarks.bench_vector_index --rows 1000000 --folder /big/disk
    python -m benchmarks.bench_vector_index --rows 100000 --ways alone 2

A store of generated descriptors (see `living_store`), in a folder. For each way it is copied, `placeray
build-index` is run on the copy as a user does, and further photos of its places are searched through the
index and by comparison with every row. With workers the command takes longer than the seconds that it says
it took: it starts Ray.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.living_store import LivingStore
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.subprocesses import run_watched
from storage.search.methods import SearchMethod
from storage.store import Store

QUERIES, KS = 200, (10, 100)
ALONE = "alone"  # LanceDB's own builder, with all cores


def main() -> None:
    parser = make_parser(__doc__, "vector_index.json")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512, help="dimensions of a descriptor")
    parser.add_argument("--ways", nargs="+", default=[ALONE, "1", "2"], help="'alone' or numbers of workers")
    parser.add_argument("--folder", type=Path, help="keeps the generated store for a later run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = (args.folder or Path(scratch)) / f"vector-index-{args.width}-{args.rows}"
        city = LivingStore(folder, args.rows, width=args.width)
        if city.store.count < args.rows:
            city.grow(args.rows - city.store.count)
        queries = city.queries(QUERIES)
        truth = found(Store.open(folder), queries, "exact")[0]
        ways = {way: measure(way, folder, Path(scratch, "copy"), queries, truth) for way in args.ways}
    results = read_results(args.out)
    former = results.get(str(args.rows), {}).get("ways", {})
    kept = {"command": command_line(), "machine": describe_machine(), "ways": former | ways}
    write_results(args.out, results | {str(args.rows): kept})


def measure(
    way: str, folder: Path, copy: Path, queries: np.ndarray, truth: list[list[str]]
) -> dict[str, Any]:
    """Build the index of a copy of the store, and search it."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    command = [sys.executable, "-m", "pipelines.cli", "build-index", "--store", str(copy), "--json"]
    if way != ALONE:
        command += ["--workers", way, "--quiet"]
    began = time.perf_counter()
    out, peak_mb = run_watched(command)
    figures: dict[str, Any] = {"command_s": round(time.perf_counter() - began, 1), "peak_mb": peak_mb}
    made = json.loads(out)
    figures |= {name: made[name] for name in ("seconds", "bits", "lists", "parts") if name in made}
    figures["index_mib"] = round(
        sum(file.stat().st_size for file in copy.rglob("_indices/**/*") if file.is_file()) / 2**20
    )
    ids, times_ms = found(Store.open(copy), queries, "lance")
    figures["query_ms"] = round(statistics.median(times_ms), 1)
    for k in KS:
        right = [len({*one[:k]} & {*two[:k]}) for one, two in zip(ids, truth, strict=True)]
        figures[f"recall_{k}"] = round(sum(right) / (k * len(truth)), 4)
    print(f"{way:>6} {figures}", file=sys.stderr, flush=True)
    return figures


def found(store: Store, queries: np.ndarray, method: SearchMethod) -> tuple[list[list[str]], list[float]]:
    """Return the keys of the nearest of each query, and the milliseconds that each took."""
    store.search(queries[:1], k=max(KS), method=method)  # builds what is kept in memory
    ids, times_ms = [], []
    for query in queries:
        began = time.perf_counter()
        hits = store.search(query[None], k=max(KS), method=method)[0]
        times_ms.append(1e3 * (time.perf_counter() - began))
        ids.append([hit.record.image_id for hit in hits])
    return ids, times_ms


if __name__ == "__main__":
    main()
