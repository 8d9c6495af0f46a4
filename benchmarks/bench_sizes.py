"""Sizes of the network's input: recall, milliseconds per query and bytes per image in one table.

    python -m benchmarks.bench_sizes --photos DIR

For each size R@1 before re-ranking, with descriptors learned from the database, and after re-ranking 50
candidates by votes, on sets of photos that are larger than the input (tower, toy) and smaller (corridor). A
query is the extraction of one photo of 1280 x 720 pixels, decoded, and the matching of 50 candidates; sizes
take turns, and processor time counts. Merged into `results/accuracy.json` under `sizes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy_features import Scratch
from benchmarks.accuracy_sets import PhotoSet, photo_sets
from benchmarks.bench_accuracy import measure
from benchmarks.kept import add_kept_folder
from benchmarks.results import make_parser, read_results, write_results
from benchmarks.timing import medians
from models.extractor import Extractor
from models.matching.mutual import mutual_neighbours
from models.matching.votes import vote_scores

SIZES = (224, 256, 288, 320, 448)
SETS = ("corridor", "corridor-back", "tower", "tower-floor", "toy")
CANDIDATES, PHOTO_PX = 50, (720, 1280)
ALLOWED = 1.5  # of the time of a query with the smallest size


def main() -> None:
    parser = make_parser(__doc__, "accuracy.json")
    parser.add_argument("--photos", type=Path, default=Path("photos"), help="folder of the photo sets")
    add_kept_folder(parser, "--scratch", "accuracy")
    parser.add_argument("--sizes", nargs="+", type=int, default=[*SIZES], help="sides in pixels")
    parser.add_argument("--sets", nargs="+", default=[*SETS], help="names of sets")
    parser.add_argument("--rounds", type=int, default=15, help="of the times, in turns")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = read_results(args.out)
    table: dict[str, Any] = {}
    scratches = {size: Scratch(args.scratch, image_size=size) for size in args.sizes}
    costs = _costs({size: scratch.extractor for size, scratch in scratches.items()}, args.rounds)
    for size, cost in costs.items():
        table[str(size)] = cost | {"allowed": cost["query_ratio"] <= ALLOWED, "before": {}, "after": {}}
        print(size, cost, flush=True)
    for name, make in photo_sets(args.photos, args.scratch):
        if name not in args.sets:
            continue
        photos = make()
        for size, scratch in scratches.items():
            table[str(size)]["before"][name], table[str(size)]["after"][name] = _recall(photos, scratch)
            print(
                name, size, {when: table[str(size)][when][name] for when in ("before", "after")}, flush=True
            )
        write_results(args.out, results | {"sizes": table}, finished=False)
    write_results(args.out, results | {"sizes": table})


def _recall(photos: PhotoSet, scratch: Scratch) -> tuple[float, float]:
    """Return R@1 in percent before and after re-ranking."""
    figures = measure(photos, scratch, descriptors=["learned"], scores=["votes"], candidates=[CANDIDATES])
    return figures["learned"]["1"], figures[f"learned / votes / {CANDIDATES}"]["1"]


def _costs(extractors: dict[int, Extractor], rounds: int) -> dict[int, dict[str, Any]]:
    """Return the processor time of a query and the bytes of an image by size, in float16."""
    pixels = np.random.default_rng(0).integers(0, 256, (*PHOTO_PX, 3), dtype=np.uint8)
    ways: dict[str, Callable[[], object]] = {}
    grids: dict[int, tuple[int, ...]] = {}
    for size, extractor in extractors.items():
        query = extractor.extract([pixels])[1][0]
        grids[size] = query.shape
        ways[f"extract {size}"] = lambda extractor=extractor: extractor.extract([pixels])
        ways[f"match {size}"] = _matching(query)
    seconds = medians(ways, rounds, clock=time.process_time)
    first = min(extractors)
    rows = {}
    for size, shape in grids.items():
        extract_ms, match_ms = (1e3 * seconds[f"{what} {size}"] for what in ("extract", "match"))
        smallest = 1e3 * (seconds[f"extract {first}"] + seconds[f"match {first}"])
        rows[size] = {
            "cells": f"{shape[0]} x {shape[1]}",
            "extract_ms": round(extract_ms, 1),
            "match_ms": round(match_ms, 1),
            "query_ratio": round((extract_ms + match_ms) / smallest, 2),
            "bytes_image": int(np.prod(shape)) * 2,
        }
    return rows


def _matching(query: np.ndarray[Any, np.dtype[np.float32]]) -> Callable[[], object]:
    """Return the matching of a photo with candidates: itself with noise, as a store keeps them."""
    random = np.random.default_rng(1)
    others = query[None] + random.normal(0, 0.05, (CANDIDATES, *query.shape))
    others = (others / np.linalg.norm(others, axis=-1, keepdims=True)).astype(np.float16)
    grid = (query.shape[0], query.shape[1])
    return lambda: vote_scores(*mutual_neighbours(query, others), grid)


if __name__ == "__main__":
    main()
