"""Search: build time, memory, time of a query alone and in batches, and recall@100 against exact search.

    python -m benchmarks.bench_search --rows 100000
    python -m benchmarks.bench_search --rows 1000000 --methods "exact float32" "IVF int8 + refine"

Descriptors of 1,024 dimensions with the structure of a city, in float16 on disk: districts, streets within
them, places along a street, photos of a place, each a step smaller than the one before, in a space whose
variance falls off as measured descriptors' does; queries are further photos of places in the index. Every
method is built and asked in a process of its own; results of other methods in the JSON file are kept.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_index import cpu_name
from benchmarks.search_methods import METHODS

WIDTH, QUERIES, K = 1024, 1000, 100
LENGTHS = {"common": 1.6, "district": 0.35, "street": 0.3, "place": 0.5, "photo": 0.55}
ALONE = 100  # queries asked one at a time
RESULTS = Path(__file__).parent / "results" / "search.json"


def make_city(rows: int, folder: Path, *, seed: int = 0) -> None:
    """Write rows.npy (rows, 1024) float16, queries.npy (1000, 1024) float32 and truth.npy (1000, 100) int64.

    Each level is a normal step of `LENGTHS`, in 1,024 dimensions whose variance falls off as 1 / (1 + i); all
    are added to one common vector, brought to unit norm and turned into a random basis. Eight photos a place,
    forty places a street, twenty streets a district.
    """
    generator = np.random.default_rng(seed)
    spread = (1 / np.sqrt(1 + np.arange(WIDTH))).astype(np.float32)
    spread /= np.linalg.norm(spread)
    streets = max(4, rows // 320)

    basis = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    common = generator.standard_normal(WIDTH, dtype=np.float32)
    common *= LENGTHS["common"] / np.linalg.norm(common)

    def steps(level: str, count: int) -> np.ndarray:
        drawn = generator.standard_normal((count, WIDTH), dtype=np.float32)
        return drawn * (spread * np.float32(LENGTHS[level]))

    districts = steps("district", max(2, streets // 20))
    street = districts[generator.integers(len(districts), size=streets)] + steps("street", streets) + common

    def photos(of: np.ndarray, place: np.ndarray) -> np.ndarray:
        found = street[of] + place + steps("photo", len(of))
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True)) @ basis

    stored = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.float16, shape=(rows, WIDTH))
    asked = np.sort(generator.permutation(rows)[:QUERIES])
    queries = []
    for start in range(0, rows, 32_768):
        stop = min(rows, start + 32_768)
        place_of = np.arange(start, stop) // 8
        places, at = np.unique(place_of, return_inverse=True)
        place = steps("place", len(places))[at]
        of = (place_of // 40) % streets
        stored[start:stop] = photos(of, place)
        here = asked[(asked >= start) & (asked < stop)] - start
        queries.append(photos(of[here], place[here]))
    stored.flush()
    asked_rows = np.concatenate(queries)
    np.save(folder / "queries.npy", asked_rows)
    np.save(folder / "truth.npy", nearest(stored, asked_rows, K))


def nearest(stored: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return (B, k) int64: the rows of highest inner product, block by block in float32."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(stored), 32_768):
        fresh = queries @ stored[start : start + 32_768].astype(np.float32).T
        best = np.argpartition(-fresh, min(k, fresh.shape[1] - 1), axis=1)[:, :k]
        both = np.concatenate([scores, np.take_along_axis(fresh, best, 1)], axis=1)
        numbers = np.concatenate([found, best + start], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :k]
        scores, found = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
    return found


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Build one method and ask it, with every setting; in this process."""
    stored = np.load(folder / "rows.npy", mmap_mode="r")
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    before = anonymous_mib()
    peak = Peak()
    began = time.perf_counter()
    index = METHODS[name].build(stored, scratch)
    built = time.perf_counter() - began
    peak.stop()
    gc.collect()
    found: dict[str, Any] = {
        "build_s": round(built, 1),
        "memory_mib": round(anonymous_mib() - before),
        "peak_mib": round(peak.mib - before),
        "disk_mib": round(sum(f.stat().st_size for f in scratch.rglob("*") if f.is_file()) / 2**20),
        "settings": [],
    }
    for setting, search in METHODS[name].settings(index):
        search(queries[-8:], K)
        ids, alone = [], []
        for query in queries[:ALONE]:
            began = time.perf_counter()
            ids.append(search(query[None], K)[0])
            alone.append(1e3 * (time.perf_counter() - began))
        row = {
            "setting": setting,
            "alone_ms": round(statistics.median(alone), 3),
            "alone_p95_ms": round(float(np.percentile(alone, 95)), 3),
        }
        if name.startswith("LanceDB"):  # takes one query at a time
            asked = ALONE
        else:
            began = time.perf_counter()
            ids = list(search(queries, K))
            asked = len(queries)
            row["batch_ms"] = round(1e3 * (time.perf_counter() - began) / asked, 3)
        right = [len(np.intersect1d(one, two)) for one, two in zip(ids, truth[:asked], strict=True)]
        row["recall_100"] = round(sum(right) / (asked * K), 4)
        row["first"] = round(float(np.mean([a[0] == b[0] for a, b in zip(ids, truth, strict=False)])), 4)
        found["settings"].append(row)
        print(f"{len(stored):>9,} {name:24} {row}", file=sys.stderr, flush=True)
        if row["alone_ms"] > 40 and len(found["settings"]) > 1:
            break
    shutil.rmtree(scratch)
    return found


class Peak:
    """Samples this process's own memory while something runs."""

    def __init__(self) -> None:
        """Begin."""
        self.mib = anonymous_mib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.mib = max(self.mib, anonymous_mib())

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def anonymous_mib() -> float:
    """Return what this process holds in memory beside mapped files, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


def main() -> None:
    """Measure what is asked for and add it to the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD"
    )
    parser.add_argument("--folder", type=Path, help="keeps the generated descriptors for a later run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--limit-s", type=float, help="a method that takes longer is stopped and recorded as unfinished"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)) / str(args.rows)
        if not (folder / "truth.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_city(args.rows, folder)
        for name in args.methods:
            add(args.out, args.rows, name, apart(name, folder, args.limit_s))
    show(json.loads(args.out.read_text()))


def apart(name: str, folder: Path, limit_s: float | None) -> dict[str, Any]:
    """Measure one method in a process of its own, for `limit_s` seconds at most."""
    command = [sys.executable, "-m", "benchmarks.bench_search", "--child", name, "--folder", str(folder)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        return {"unfinished_after_s": limit_s, "settings": []}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def add(out: Path, rows: int, name: str, found: dict[str, Any]) -> None:
    """Put one method's figures into the file, which keeps all others."""
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    results["command"] = "python -m benchmarks.bench_search --rows ROWS"
    found["machine"] = f"{cpu_name()}, {os.cpu_count()} cores, no GPU"
    results.setdefault("rows", {}).setdefault(str(rows), {})[name] = found
    out.write_text(json.dumps(results, indent=1) + "\n")


def show(results: dict[str, Any]) -> None:
    """Print one line for each setting."""
    titles = f"{'method':24} {'build s':>8} {'MiB':>6} {'peak':>6}  {'setting':26}"
    titles += f" {'ms':>8} {'batch':>8} {'recall':>7}"
    for rows, methods in results["rows"].items():
        print(f"\n{int(rows):,} x {WIDTH}\n{titles}")
        for name, found in methods.items():
            if "unfinished_after_s" in found:
                print(f"{name:24} not finished after {found['unfinished_after_s']:.0f} s")
                continue
            head = f"{name:24} {found['build_s']:8} {found['memory_mib']:6} {found['peak_mib']:6}"
            for row in found["settings"]:
                times = f"{row['alone_ms']:8.2f} {row.get('batch_ms', float('nan')):8.2f}"
                print(f"{head}  {row['setting']:26} {times} {row['recall_100']:7.4f}")


if __name__ == "__main__":
    main()
