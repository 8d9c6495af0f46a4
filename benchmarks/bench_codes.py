"""Search by binary codes: exact and through inverted lists, beside the floor of bytes over bandwidth.

    python -m benchmarks.bench_codes --rows 10000000

Codes of 512 bits are the signs of a rotation of descriptors with the structure of a city (districts, streets,
places, photos, see `city_descriptors`), in 256 dimensions; queries are further photos of places in the index.
Time is that of one query alone on all cores. Recall of the first stage is the share of the nearest by float
descriptor among the nearest by Hamming distance; recall of inverted lists is against exact Hamming search, by
distance, since many rows lie at the same.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.city_descriptors import LENGTHS
from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import make_parser, read_results, write_results
from storage.search.code_index import CodeIndex

BITS, WIDTH, QUERIES, K = 512, 256, 100, 100
DEPTHS = (1, 10, 100)  # of the float search, looked for among the nearest codes
BLOCK = 1 << 17


class City:
    """Descriptors of a drawn distribution and their codes, block by block."""

    def __init__(self, rows: int, *, seed: int = 0) -> None:
        self.rows, self._seed = rows, seed
        generator = np.random.default_rng(seed)
        spread = (1 / np.sqrt(1 + np.arange(WIDTH))).astype(np.float32)
        self._spread = spread / np.linalg.norm(spread)
        self._common = generator.standard_normal(WIDTH, dtype=np.float32)
        self._common *= LENGTHS["common"] / np.linalg.norm(self._common)
        self._streets = self._steps(generator, "street", max(4, rows // 320))
        districts = self._steps(generator, "district", max(2, len(self._streets) // 20))
        self._streets += districts[generator.integers(len(districts), size=len(self._streets))]
        self._rotation = np.linalg.qr(generator.standard_normal((BITS, WIDTH)))[0].T.astype(np.float32)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield unit descriptors (n, 256)."""
        for start in range(0, self.rows, BLOCK):
            yield self._photos(start, min(self.rows, start + BLOCK), kind=1)

    def queries(self) -> NDArray[np.float32]:
        """Return further photos of places of the first block."""
        photos = self._photos(0, min(self.rows, BLOCK), kind=2)
        return photos[np.linspace(0, len(photos) - 1, QUERIES).astype(int)]

    def codes(self, descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return (n, 64) uint8: the signs about the mean, rotated."""
        return np.packbits((descriptors - self._centre()) @ self._rotation >= 0, axis=1)

    def _centre(self) -> NDArray[np.float32]:
        return self._common / np.linalg.norm(self._common) * np.float32(0.86)

    def _photos(self, start: int, stop: int, *, kind: int) -> NDArray[np.float32]:
        places = np.random.default_rng((self._seed, start, 0))
        photos = np.random.default_rng((self._seed, start, kind))
        count = -(-(stop - start) // 8)
        place = self._steps(places, "place", count) + self._common
        place += self._streets[(start // 8 + np.arange(count)) // 40 % len(self._streets)]
        made = np.repeat(place, 8, axis=0)[: stop - start] + self._steps(photos, "photo", stop - start)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))

    def _steps(self, generator: np.random.Generator, level: str, count: int) -> NDArray[np.float32]:
        drawn = generator.standard_normal((count, WIDTH), dtype=np.float32)
        return drawn * (self._spread * np.float32(LENGTHS[level]))


def write_city(city: City, path: Path) -> NDArray[np.int64]:
    """Write the codes of all rows, and return the nearest rows of each query by float descriptor."""
    codes = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(city.rows, BITS // 8))
    queries = city.queries()
    scores = np.full((QUERIES, DEPTHS[-1]), -np.inf, np.float32)
    nearest = np.zeros((QUERIES, DEPTHS[-1]), np.int64)
    start = 0
    for block in city.blocks():
        codes[start : start + len(block)] = city.codes(block)
        fresh = queries @ block.T
        best = np.argpartition(-fresh, DEPTHS[-1], axis=1)[:, : DEPTHS[-1]]
        both = np.concatenate([scores, np.take_along_axis(fresh, best, 1)], axis=1)
        numbers = np.concatenate([nearest, best + start], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, : DEPTHS[-1]]
        scores, nearest = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
        start += len(block)
    codes.flush()
    return nearest


def measure(path: Path, queries: NDArray[np.uint8], *, inverted: bool) -> tuple[dict[str, Any], Any]:
    """Build an index and search one query at a time; return figures and what each query found."""
    stored = np.load(path, mmap_mode="r")
    rows = len(stored)
    memory = PeakMemory(lambda: status_mib("RssAnon"), interval_s=0.05)
    began = time.perf_counter()
    blocks = (stored[at : at + BLOCK] for at in range(0, rows, BLOCK))
    index = CodeIndex(blocks, rows, bits=BITS, inverted=inverted)
    built = time.perf_counter() - began
    peak = memory.stop()
    gc.collect()
    held = status_mib("RssAnon") - memory.before
    found = index.search(queries[:1], K)
    seconds = []
    for query in queries:
        began = time.perf_counter()
        found = index.search(query[None], K)
        seconds.append(time.perf_counter() - began)
    found = np.concatenate([index.search(query[None], K) for query in queries])
    figures = {
        "build_s": round(built, 1),
        "memory_mib": round(held),
        "bytes_per_row_beside_code": round(held * 2**20 / rows - BITS // 8, 1),
        "peak_mib": round(peak),
        "ms_median": round(statistics.median(seconds) * 1e3, 2),
        "ms_p95": round(sorted(seconds)[int(0.95 * len(seconds))] * 1e3, 2),
        "lists": index.lists,
        "probes": index.probes,
        "recall_of_own_rows": round(index.recall, 4),
    }
    return figures, found


def read_gb_per_s(threads: int = 2) -> float:
    """Return the rate of reading memory larger than the caches with so many threads, best of five."""
    parts = np.array_split(np.ones(1 << 26, np.int64), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - began)
    return (8 << 26) / best / 1e9


def distances(path: Path, queries: NDArray[np.uint8], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (B, k) Hamming distances of rows."""
    stored = np.load(path, mmap_mode="r")
    return np.bitwise_count(stored[ids] ^ queries[:, None]).sum(axis=2, dtype=np.int64)


def main() -> None:
    """Measure and write the figures."""
    parser = make_parser(__doc__, "codes.json")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "codes.npy")
        city = City(args.rows)
        nearest = write_city(city, path)
        queries = city.codes(city.queries())
        exact, best = measure(path, queries, inverted=False)
        gc.collect()
        lists, found = measure(path, queries, inverted=True)
        near = distances(path, queries, best)
        lists["recall_100_of_exact"] = round(
            float((distances(path, queries, found) <= near[:, -1:]).mean()), 4
        )
        first_stage = {
            f"float_{depth}_among_{K}": round(
                float(np.mean([np.isin(nearest[q, :depth], best[q]).mean() for q in range(QUERIES)])), 4
            )
            for depth in DEPTHS
        }
    rate = read_gb_per_s()
    results = read_results(args.out)
    results[str(args.rows)] = {
        "machine": describe_machine(),
        "exact": exact,
        "inverted": lists,
        "first_stage": first_stage,
        "read_gb_per_s": round(rate, 1),
        "floor_ms": round(args.rows * BITS / 8 / rate / 1e6, 2),
    }
    write_results(args.out, results)


if __name__ == "__main__":
    main()
