"""Search: build time, memory, times of queries, requests per second and recall against exact search.

    python -m benchmarks.bench_search --rows 100000
    python -m benchmarks.bench_search --rows 1000000 --methods "exact float32" "IVF int8 + refine"
    python -m benchmarks.bench_search --rows 2650000 --shape learned --width 512 --folder /big/disk

Descriptors with the structure of a city (see `city_descriptors`), in float16 on disk, as models give them, as
a store learns them, or of uniform directions; queries are further photos of places in the index. Every method
is built and queried in a process of its own; results of other methods stay in the JSON file.
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

from benchmarks.city_descriptors import SHAPES, K, make_city
from benchmarks.clients import requests_per_s
from benchmarks.machine import cpu_name
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import make_parser, read_results, write_results
from benchmarks.search_methods import METHODS, Search
from benchmarks.subprocesses import apart

ALONE = 100  # queries searched one at a time
CLIENTS = (1, 16)
BUSY_S = 3.0  # clients ask for so long
FEW = 10  # recall of so many, beside that of K
SLOW_MS, GOAL = 40.0, 0.99  # a setting that is slow and finds enough is the last one


def measure(name: str, folder: str) -> dict[str, Any]:
    """Build one method and search with every setting; in this process."""
    stored = np.load(Path(folder, "rows.npy"), mmap_mode="r")
    queries, truth = np.load(Path(folder, "queries.npy")), np.load(Path(folder, "truth.npy"))
    scratch = Path(folder, "scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with METHODS[name].place(scratch) as place:
        memory = PeakMemory(anonymous_mib, interval_s=0.05)
        began = time.perf_counter()
        index = METHODS[name].build(stored, place)
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
            if row["alone_ms"] > SLOW_MS and row["recall_100"] >= GOAL:
                break  # what follows is slower still
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
    row = {"alone_ms": round(statistics.median(alone_ms), 3)}
    for percent in (95, 99):
        row[f"alone_p{percent}_ms"] = round(float(np.percentile(alone_ms, percent)), 3)
    for clients in CLIENTS:
        row[f"per_s_{clients}"] = round(
            requests_per_s(lambda query: search(query, K), queries, clients, BUSY_S), 1
        )
    if not one_by_one:
        began = time.perf_counter()
        ids = list(search(queries, K))
        row["batch_ms"] = round(1e3 * (time.perf_counter() - began) / len(queries), 3)
    for k in (FEW, K):
        right = [len(np.intersect1d(one[:k], two[:k])) for one, two in zip(ids, truth, strict=False)]
        row[f"recall_{k}"] = round(sum(right) / (len(ids) * k), 4)
    row["first"] = round(float(np.mean([a[0] == b[0] for a, b in zip(ids, truth, strict=False)])), 4)
    return row


def anonymous_mib() -> float:
    """Return this process's memory without mapped files, in MiB."""
    return status_mib("RssAnon")


def main() -> None:
    """Measure the requested methods and add them to the results."""
    parser = make_parser(__doc__, "search.json")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--shape", choices=list(SHAPES), default="gem", help="how descriptors are spread")
    parser.add_argument("--width", type=int, default=1024, help="dimensions of a descriptor")
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD"
    )
    parser.add_argument("--folder", type=Path, help="keeps the generated descriptors for a later run")
    parser.add_argument(
        "--limit-s", type=float, help="a method that takes longer is stopped and recorded as unfinished"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = f"{args.shape}-{args.width}"
        folder = (args.folder or Path(scratch)) / f"{table}-{args.rows}"
        if not (folder / "truth.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_city(args.rows, folder, shape=args.shape, width=args.width)
        for name in args.methods:
            figures = measure_apart(name, folder, args.limit_s)
            add(args.out, (table, str(args.rows), name), figures, name == args.methods[-1])
    show(read_results(args.out))


def measure_apart(name: str, folder: Path, limit_s: float | None) -> dict[str, Any]:
    """Measure one method in a process of its own, for up to `limit_s` seconds."""
    try:
        return dict(apart(measure, name, folder, timeout_s=limit_s))
    except subprocess.TimeoutExpired:
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        return {"unfinished_after_s": limit_s, "settings": []}


def add(out: Path, key: tuple[str, str, str], figures: dict[str, Any], last: bool) -> None:
    """Update the results of one table, number of rows and method in the file."""
    results = read_results(out)
    table, rows, name = key
    figures["machine"] = f"{cpu_name()}, {os.cpu_count()} cores, no GPU"
    results.setdefault(table, {}).setdefault(rows, {})[name] = figures
    write_results(out, results, finished=last)


def show(results: dict[str, Any]) -> None:
    """Print one line for each setting."""
    titles = f"{'method':24} {'build s':>8} {'MiB':>6} {'peak':>6}  {'setting':26} {'ms':>8} {'p99':>8}"
    titles += f" {'batch':>8} {'1/s':>7} {'16/s':>7} {'r@10':>7} {'r@100':>7}"
    missing = float("nan")
    for table, sizes in results.items():
        for rows, methods in sizes.items() if table != "provenance" else ():
            print(f"\n{int(rows):,}, {table}\n{titles}")
            for name, figures in methods.items():
                if "unfinished_after_s" in figures:
                    print(f"{name:24} not finished after {figures['unfinished_after_s']:.0f} s")
                    continue
                head = f"{name:24} {figures['build_s']:8} {figures['memory_mib']:6} {figures['peak_mib']:6}"
                for row in figures["settings"]:
                    times = f"{row['alone_ms']:8.2f} {row.get('alone_p99_ms', missing):8.2f}"
                    times += f" {row.get('batch_ms', missing):8.2f}"
                    times += "".join(f" {row.get(f'per_s_{clients}', missing):7.1f}" for clients in CLIENTS)
                    recall = f"{row.get('recall_10', missing):7.4f} {row['recall_100']:7.4f}"
                    print(f"{head}  {row['setting']:26} {times} {recall}")


if __name__ == "__main__":
    main()
