"""Search: build time, memory, time of a query alone and in batches, and recall@100 against exact search.

    python -m benchmarks.bench_search --rows 100000
    python -m benchmarks.bench_search --rows 1000000 --methods "exact float32" "IVF int8 + refine"

Descriptors of 1,024 dimensions with the structure of a city, in float16 on disk: districts, streets within
them, places along a street, photos of a place, each a step smaller than the one before, in a space whose
variance falls off as measured descriptors' does; queries are further photos of places in the index. Every
method is built and queried in a process of its own; results of other methods stay in the JSON file.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.city_descriptors import WIDTH, K, make_city
from benchmarks.machine import cpu_name
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import make_parser, read_results, write_results
from benchmarks.search_methods import METHODS, Search
from benchmarks.subprocesses import apart

ALONE = 100  # queries searched one at a time


def measure(name: str, folder: str) -> dict[str, Any]:
    """Build one method and search with every setting; in this process."""
    stored = np.load(Path(folder, "rows.npy"), mmap_mode="r")
    queries, truth = np.load(Path(folder, "queries.npy")), np.load(Path(folder, "truth.npy"))
    scratch = Path(folder, "scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    memory = PeakMemory(anonymous_mib, interval_s=0.05)
    began = time.perf_counter()
    index = METHODS[name].build(stored, scratch)
    built = time.perf_counter() - began
    peak = memory.stop()
    gc.collect()
    figures: dict[str, Any] = {
        "build_s": round(built, 1),
        "memory_mib": round(anonymous_mib() - memory.before),
        "peak_mib": round(peak),
        "disk_mib": round(sum(f.stat().st_size for f in scratch.rglob("*") if f.is_file()) / 2**20),
        "settings": [],
    }
    for setting, search in METHODS[name].settings(index):
        row = {
            "setting": setting,
            **search_all(search, queries, truth, one_by_one=name.startswith("LanceDB")),
        }
        figures["settings"].append(row)
        print(f"{len(stored):>9,} {name:24} {row}", file=sys.stderr, flush=True)
        if row["alone_ms"] > 40 and len(figures["settings"]) > 1:
            break
    shutil.rmtree(scratch)
    return figures


def search_all(
    search: Search, queries: np.ndarray, truth: np.ndarray, *, one_by_one: bool
) -> dict[str, float]:
    """Return times and recall of one setting; `one_by_one` for a method that takes no batches."""
    search(queries[-8:], K)
    ids, alone_ms = [], []
    for query in queries[:ALONE]:
        began = time.perf_counter()
        ids.append(search(query[None], K)[0])
        alone_ms.append(1e3 * (time.perf_counter() - began))
    row = {
        "alone_ms": round(statistics.median(alone_ms), 3),
        "alone_p95_ms": round(float(np.percentile(alone_ms, 95)), 3),
    }
    if not one_by_one:
        began = time.perf_counter()
        ids = list(search(queries, K))
        row["batch_ms"] = round(1e3 * (time.perf_counter() - began) / len(queries), 3)
    right = [len(np.intersect1d(one, two)) for one, two in zip(ids, truth, strict=False)]
    row["recall_100"] = round(sum(right) / (len(ids) * K), 4)
    row["first"] = round(float(np.mean([a[0] == b[0] for a, b in zip(ids, truth, strict=False)])), 4)
    return row


def anonymous_mib() -> float:
    """Return this process's memory without mapped files, in MiB."""
    return status_mib("RssAnon")


def main() -> None:
    """Measure the requested methods and add them to the results."""
    parser = make_parser(__doc__, "search.json")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD"
    )
    parser.add_argument("--folder", type=Path, help="keeps the generated descriptors for a later run")
    parser.add_argument(
        "--limit-s", type=float, help="a method that takes longer is stopped and recorded as unfinished"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)) / str(args.rows)
        if not (folder / "truth.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_city(args.rows, folder)
        for name in args.methods:
            figures = measure_apart(name, folder, args.limit_s)
            add(args.out, args.rows, name, figures, name == args.methods[-1])
    show(read_results(args.out))


def measure_apart(name: str, folder: Path, limit_s: float | None) -> dict[str, Any]:
    """Measure one method in a process of its own, for up to `limit_s` seconds."""
    try:
        return dict(apart(measure, name, folder, timeout_s=limit_s))
    except subprocess.TimeoutExpired:
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        return {"unfinished_after_s": limit_s, "settings": []}


def add(out: Path, rows: int, name: str, figures: dict[str, Any], last: bool) -> None:
    """Update one method's results in the file."""
    results = read_results(out)
    results["command"] = "python -m benchmarks.bench_search --rows ROWS"
    figures["machine"] = f"{cpu_name()}, {os.cpu_count()} cores, no GPU"
    results.setdefault("rows", {}).setdefault(str(rows), {})[name] = figures
    write_results(out, results, finished=last)


def show(results: dict[str, Any]) -> None:
    """Print one line for each setting."""
    titles = f"{'method':24} {'build s':>8} {'MiB':>6} {'peak':>6}  {'setting':26}"
    titles += f" {'ms':>8} {'batch':>8} {'recall':>7}"
    for rows, methods in results["rows"].items():
        print(f"\n{int(rows):,} x {WIDTH}\n{titles}")
        for name, figures in methods.items():
            if "unfinished_after_s" in figures:
                print(f"{name:24} not finished after {figures['unfinished_after_s']:.0f} s")
                continue
            head = f"{name:24} {figures['build_s']:8} {figures['memory_mib']:6} {figures['peak_mib']:6}"
            for row in figures["settings"]:
                times = f"{row['alone_ms']:8.2f} {row.get('batch_ms', float('nan')):8.2f}"
                print(f"{head}  {row['setting']:26} {times} {row['recall_100']:7.4f}")


if __name__ == "__main__":
    main()
