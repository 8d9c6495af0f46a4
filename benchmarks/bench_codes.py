"""Search by binary codes: exact and through inverted lists, beside the floor of bytes over bandwidth.

    python -m benchmarks.bench_codes --rows 10000000 --work DIR

Codes of 512 bits and float descriptors follow those of the weights that `prove_side_path` trained on a drawn
city and left in DIR: `drawn_codes` says how a city of many rows is made from their statistics. Queries are
further photos of places in the index. Time is that of one query alone, all cores on it. Recall of the first
stage is the share of the nearest by float descriptor among the nearest by Hamming distance, and how many
queries have a photo of their own place among the nearest by either; recall of inverted lists is against exact
Hamming search, by distance, since many rows lie at the same.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandwidth import read_gb_per_s
from benchmarks.clients import requests_per_s
from benchmarks.drawn_codes import (
    CodeCity,
    DescribedPhotos,
    Statistics,
    described_cities,
    hamming_quantiles,
)
from benchmarks.kept import add_kept_folder
from benchmarks.machine import describe_machine
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import make_parser, read_results, write_results
from storage.search.code_index import CodeIndex

BITS, QUERIES, K = 512, 200, 100
CLIENTS, BUSY_S = (1, 16), 3.0  # that ask for so long
DEPTHS = (1, 10, 100)  # of the float search, looked for among the nearest codes
BLOCK = 1 << 17
PAIRS = 20_000


def write_city(city: CodeCity, queries: NDArray[np.float32], path: Path) -> NDArray[np.int64]:
    """Write the codes of all rows, and return the nearest rows of each query by float descriptor."""
    codes = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(city.rows, BITS // 8))
    scores = np.full((QUERIES, DEPTHS[-1]), -np.inf, np.float32)
    nearest = np.zeros((QUERIES, DEPTHS[-1]), np.int64)
    start = 0
    for block, floats in city.blocks():
        codes[start : start + len(block)] = block
        fresh = queries @ floats.T
        best = np.argpartition(-fresh, DEPTHS[-1], axis=1)[:, : DEPTHS[-1]]
        both = np.concatenate([scores, np.take_along_axis(fresh, best, 1)], axis=1)
        numbers = np.concatenate([nearest, best + start], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, : DEPTHS[-1]]
        scores, nearest = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
        start += len(block)
    codes.flush()
    return nearest


def likeness(photos: DescribedPhotos, city: CodeCity) -> dict[str, dict[str, list[float]]]:
    """Return quantiles of Hamming distances of photos of one place and of any two, drawn and made."""
    generator = np.random.default_rng(0)
    drawn = np.packbits(photos.values >= 0, axis=1)
    asked, stored = photos.pairs()
    queries, _ = city.queries(min(city.rows, BLOCK))
    made, _ = next(city.blocks())

    def any_two(codes: NDArray[np.uint8]) -> list[float]:
        return hamming_quantiles(*codes[generator.integers(len(codes), size=(2, PAIRS))])

    return {
        "one place": {
            "drawn": hamming_quantiles(drawn[asked], drawn[stored]),
            "made": hamming_quantiles(queries, made[: len(queries)]),
        },
        "any two": {"drawn": any_two(drawn[photos.database]), "made": any_two(made)},
    }


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
    index.search(queries[:1], K)
    seconds, answers = [], []
    for query in queries:
        began = time.perf_counter()
        answers.append(index.search(query[None], K))
        seconds.append(time.perf_counter() - began)
    found = np.concatenate(answers)
    figures = {
        "build_s": round(built, 1),
        "memory_mib": round(held),
        "bytes_per_row_beside_code": round(held * 2**20 / rows - BITS // 8, 1),
        "peak_mib": round(peak),
        "ms_median": round(float(np.median(seconds)) * 1e3, 2),
        "ms_p95": round(float(np.percentile(seconds, 95)) * 1e3, 2),
        "ms_p99": round(float(np.percentile(seconds, 99)) * 1e3, 2),
        **{
            f"per_s_{clients}": round(
                requests_per_s(lambda query: index.search(query, K), queries, clients, BUSY_S), 1
            )
            for clients in CLIENTS
        },
        "lists": index.lists,
        "probes": index.probes,
        "recall_of_own_rows": round(index.recall, 4),
    }
    return figures, found


def distances(path: Path, queries: NDArray[np.uint8], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (B, k) Hamming distances of rows."""
    stored = np.load(path, mmap_mode="r")
    return np.bitwise_count(stored[ids] ^ queries[:, None]).sum(axis=2, dtype=np.int64)


def main() -> None:
    """Measure and write the figures."""
    parser = make_parser(__doc__, "codes.json")
    parser.add_argument("--rows", type=int, default=1_000_000)
    add_kept_folder(parser, "--work", "side path", Path("placeray-proof"))
    args = parser.parse_args()
    photos = described_cities(args.work)
    statistics = Statistics(photos)
    city = CodeCity(statistics, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "codes.npy")
        queries, floats = city.queries(QUERIES)
        nearest = write_city(city, floats, path)
        exact, best = measure(path, queries, inverted=False)
        gc.collect()
        lists, found = measure(path, queries, inverted=True)
        near = distances(path, queries, best)
        for k in (10, K):
            lists[f"recall_{k}_of_exact"] = round(
                float((distances(path, queries, found[:, :k]) <= near[:, k - 1 : k]).mean()), 4
            )
        first_stage = {
            f"float_{depth}_among_{K}": round(
                float(np.mean([np.isin(nearest[q, :depth], best[q]).mean() for q in range(QUERIES)])), 4
            )
            for depth in DEPTHS
        }
        own = city.places(city.query_rows(QUERIES))[:, None]
        places = {
            name: {
                str(k): round(float((city.places(rows[:, :k]) == own).any(axis=1).mean()), 4) for k in DEPTHS
            }
            for name, rows in (("float", nearest), ("exact codes", best), ("inverted codes", found))
        }
    rate = read_gb_per_s()
    results = read_results(args.out)
    results[str(args.rows)] = {
        "machine": describe_machine(),
        "photos": sum(len(one.values) for one in photos),
        "explained": statistics.explained,
        "likeness": likeness(photos[0], city),
        "exact": exact,
        "inverted": lists,
        "first_stage": first_stage,
        "own_place_among": places,
        "read_gb_per_s": round(rate, 1),
        "floor_ms": round(args.rows * BITS / 8 / rate / 1e6, 2),
    }
    write_results(args.out, results)


if __name__ == "__main__":
    main()
