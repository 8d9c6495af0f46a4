"""Matching: floors, counts against the plain formulation, memory, same first answers, early stops.

The plain formulation is one matmul to (K, N, N), two argmaxes and a loop over the candidates. It and what is
compared with it take turns; medians are given. Photos come from data sets in the standard layout (a folder
with database/ and queries/, file names `@easting@northing@...`), given as arguments or found below
PLACERAY_PHOTO_SETS. `bench_accelerator` measures what a GPU does.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bench_index import cpu_name
from models.images.decoder import decode_image
from models.matching import cpu as matching_cpu
from models.matching.adaptive import StopRule, match_in_blocks
from models.matching.mutual import mutual_nn_count
from models.runtime.allocator import keep_freed_memory
from models.weights import load_extractor

RULES = {
    "all 100": StopRule(),
    "lead 3": StopRule(lead=3.0),
    "lead 5": StopRule(lead=5.0),
    "blocks of 5, at least 10, lead 5": StopRule(block=5, min_candidates=10, lead=5.0),
}


def plain(query: torch.Tensor, candidates: torch.Tensor) -> list[int]:
    similarity = torch.matmul(query, candidates.float().transpose(1, 2))
    forth, back = similarity.argmax(dim=2), similarity.argmax(dim=1)
    cells = torch.arange(len(query), device=query.device)
    return [int((back[k][forth[k]] == cells).sum()) for k in range(len(candidates))]


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def floors() -> dict[str, float]:
    """Measure what the machine can do at best: multiply-adds and bytes a second, on torch's threads."""
    left, right, out = torch.randn(2048, 1024), torch.randn(1024, 2048), torch.empty(2048, 2048)
    product = min(seconds(lambda: torch.mm(left, right, out=out)) for _ in range(15))
    source, target = torch.zeros(1 << 26), torch.zeros(1 << 26)
    copy = min(seconds(lambda: target.copy_(source)) for _ in range(8))
    return {
        "float32_gflop_s": 2 * 2048 * 2048 * 1024 / product / 1e9,
        "copy_gb_s": 2 * 4 * (1 << 26) / copy / 1e9,
    }


def drawn(count: int, cells: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a query, and candidates that share with it the more cells the earlier they come."""
    draw = torch.Generator().manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(cells, channels, generator=draw), dim=1)
    candidates = torch.empty(count, cells, channels, dtype=torch.float16)
    for k, candidate in enumerate(candidates):
        noise = torch.nn.functional.normalize(torch.randn(cells, channels, generator=draw), dim=1)
        mixed = query[torch.randperm(cells, generator=draw)] + (1.5 + 2 * k / count) * noise
        candidate.copy_(torch.nn.functional.normalize(mixed, dim=1))
    return query, candidates


def compare(count: int, cells: int, channels: int, rounds: int) -> dict[str, Any]:
    query, candidates = drawn(count, cells, channels)
    others = candidates.float()
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(query, others),
        "exact": lambda: mutual_nn_count(query, candidates),
        "fast": lambda: mutual_nn_count(query, candidates, precision="fast"),
        "product": lambda: _products_alone(query, others),
    }
    # Before anything else: memory that the plain formulation leaves behind would be used again.
    extra = {f"{name}_extra_mb": extra_mb(ways[name]) for name in ("exact", "fast")}
    assert plain(query, others[:4]) == mutual_nn_count(query, candidates[:4]).tolist()
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            used = time.process_time()
            walls[name].append(seconds(run) / count * 1e3)
            cpus[name].append((time.process_time() - used) / count * 1e3)
    row: dict[str, Any] = {"candidates": count, "cells": cells, "channels": channels, "rounds": rounds}
    for name in ways:
        row[f"{name}_ms"] = statistics.median(walls[name])
        row[f"{name}_cpu_ms"] = statistics.median(cpus[name])
        row[f"{name}_times_faster"] = statistics.median(
            a / b for a, b in zip(walls["plain"], walls[name], strict=True)
        )
        row[f"{name}_times_less_cpu"] = row["plain_cpu_ms"] / row[f"{name}_cpu_ms"]
    return {**row, **extra}


def _products_alone(query: torch.Tensor, others: torch.Tensor) -> None:
    rows = max(1, matching_cpu._TILE // len(query))
    cells = others.reshape(-1, others.shape[-1])
    out = torch.empty(rows, len(query))
    for first in range(0, len(cells) - rows + 1, rows):
        torch.mm(cells[first : first + rows], query.T, out=out)


def extra_mb(run: Callable[[], object]) -> float:
    """Sample this process's resident memory while something runs."""
    page = os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    most, done = 0, threading.Event()
    before = resident()

    def sample() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, resident())

    sampler = threading.Thread(target=sample)
    sampler.start()
    run()
    done.set()
    sampler.join()
    return max(0, most - before) / 1e6


class Photos:
    """Features of a data set, and which database images show the place of each query (25 m)."""

    def __init__(self, root: Path, candidates: int) -> None:
        extractor = load_extractor("efficientnet-lite0", device="cpu")
        self.name = root.name if root.name != "test" else root.parents[1].name
        self.floor = extractor.card.min_similarity
        database, self.features, there = self._read(extractor, root / "database")
        queries, self.queries, here = self._read(extractor, root / "queries")
        similarity = queries @ database.T
        self.top = np.argsort(-similarity, axis=1, kind="stable")[:, :candidates]
        near = np.linalg.norm(here[:, None] - there[None], axis=2) <= 25
        self.right = np.take_along_axis(near, self.top, axis=1)

    def _read(self, extractor: Any, folder: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found = [extractor.extract([decode_image(path.read_bytes()).pixels]) for path in files]
        places = np.array([[float(part) for part in path.name.split("@")[1:3]] for path in files])
        descriptors, features = (np.concatenate([np.asarray(pair[i]) for pair in found]) for i in (0, 1))
        return descriptors, features.astype(np.float16), places

    def counts(self, precision: Any) -> NDArray[np.int64]:
        rows = [
            mutual_nn_count(
                query.astype(np.float32), self.features[top], min_similarity=self.floor, precision=precision
            ).numpy()
            for query, top in zip(self.queries, self.top, strict=True)
        ]
        return np.stack(rows)

    def recall(self, first: Sequence[int]) -> float:
        return float(np.mean([right[i] for right, i in zip(self.right, first, strict=True)])) * 100


def judge(photos: Photos) -> dict[str, Any]:
    """Compare first answers and recall; small maps are rounded too, which they are not by default."""
    threshold, matching_cpu._INT8_FROM = matching_cpu._INT8_FROM, 0
    fast = photos.counts("fast")
    matching_cpu._INT8_FROM = threshold
    exact = photos.counts("exact")
    first = exact.argmax(axis=1)
    early = []
    for name, rule in RULES.items():
        matched = [
            match_in_blocks(len(row), lambda block, row=row: row[block.start : block.stop].tolist(), rule)
            for row in exact
        ]
        answers = [int(np.argmax(counts)) for counts in matched]
        early.append(
            {
                "rule": name,
                "matched_mean": statistics.mean(len(counts) for counts in matched),
                "r1": photos.recall(answers),
                "same_first": float(np.mean(np.array(answers) == first)) * 100,
            }
        )
    return {
        "set": photos.name,
        "queries": len(exact),
        "r1_global": photos.recall([0] * len(exact)),
        "r1_exact": photos.recall(first.tolist()),
        "r1_fast": photos.recall(fast.argmax(axis=1).tolist()),
        "same_first_answer": float(np.mean(fast.argmax(axis=1) == first)) * 100,
        "count_error_mean": float(np.abs(fast - exact).mean()),
        "count_error_max": int(np.abs(fast - exact).max()),
        "early_stops": early,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, nargs="*", help="folders that hold database/ and queries/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "matching.json")
    args = parser.parse_args()
    keep_freed_memory()  # as whatever matches in placeray does; the plain formulation profits too
    sets = list(args.dataset)
    if found := os.environ.get("PLACERAY_PHOTO_SETS"):
        sets += sorted(path.parent for path in Path(found).rglob("queries") if _named_by_place(path))
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.bench_matching", *sys.argv[1:]]),
        "machine": f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "int8": matching_cpu.int8_available(),
        "floors": floors(),
        "speed": [compare(args.candidates, *size, args.rounds) for size in ((3721, 128), (196, 112))],
    }
    show(result["speed"])
    result["photos"] = [judge(Photos(path, args.candidates)) for path in sets]
    show([{name: value for name, value in row.items() if name != "early_stops"} for row in result["photos"]])
    for row in result["photos"]:
        print(row["set"])
        show(row["early_stops"])
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table, turned by a quarter: one line a name."""
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        print(f"{name:24}", *(f"{v:>12.2f}" if isinstance(v, float) else f"{v!s:>12}" for v in values))


def _named_by_place(folder: Path) -> bool:
    return (folder.parent / "database").is_dir() and all("@" in path.name for path in folder.iterdir())


if __name__ == "__main__":
    main()
