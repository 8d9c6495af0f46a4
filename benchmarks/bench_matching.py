"""Matching: floors, votes and counts against the plain formulation, memory, same first answers, early stops.

The plain formulation is one matmul to (K, N, N), two argmaxes and a loop over the candidates. It and the
variants compared with it take turns; the results are medians. Photos come from data sets in the standard
layout (a folder with database/ and queries/, file names `@easting@northing@...`), as arguments or in the
folder PLACERAY_PHOTO_SETS. `bench_accelerator` measures what a GPU does.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.runtime.threads import lone_threads, sleep_while_waiting

sleep_while_waiting()

import torch

from benchmarks.floors import blas_gflop_per_s, copy_gb_per_s
from benchmarks.machine import cpu_name
from benchmarks.matching_recall import judge
from benchmarks.memory import PeakMemory, status_mib
from benchmarks.results import command_line, make_parser, read_results, write_results
from benchmarks.vote_cost import vote_cost
from models.matching import cpu as matching_cpu
from models.matching.cpu_products import Float32Product, Int8Product, int8_available, rounds_to_int8
from models.matching.mutual import mutual_nn_count
from models.runtime.allocator import keep_freed_memory

SIZES = (3721, 128), (196, 112)  # cells and channels
VOTES = (50, *SIZES[0], 3), (50, *SIZES[1], 60), (100, *SIZES[1], 60)  # and candidates before, rounds behind


def plain(query: torch.Tensor, candidates: torch.Tensor) -> list[int]:
    similarity = torch.matmul(query, candidates.float().transpose(1, 2))
    forth, back = similarity.argmax(dim=2), similarity.argmax(dim=1)
    cells = torch.arange(len(query), device=query.device)
    return [int((back[k][forth[k]] == cells).sum()) for k in range(len(candidates))]


def draw_features(count: int, cells: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a query, and candidates that share more cells with it the earlier they come."""
    draw = torch.Generator().manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(cells, channels, generator=draw), dim=1)
    candidates = torch.empty(count, cells, channels, dtype=torch.float16)
    for k, candidate in enumerate(candidates):
        noise = torch.nn.functional.normalize(torch.randn(cells, channels, generator=draw), dim=1)
        mixed = query[torch.randperm(cells, generator=draw)] + (1.5 + 2 * k / count) * noise
        candidate.copy_(torch.nn.functional.normalize(mixed, dim=1))
    return query, candidates


def compare(count: int, cells: int, channels: int, rounds: int) -> dict[str, Any]:
    query, candidates = draw_features(count, cells, channels)
    others = candidates.float()
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(query, others),
        "exact": lambda: mutual_nn_count(query, candidates),
        "fast": lambda: mutual_nn_count(query, candidates, precision="fast"),
        "product": lambda: products_alone(query, others),
    }
    if rounds_to_int8(cells, cells):
        rows = matching_cpu._TILE // cells
        laid_out, whole = Float32Product(query, rows, cells), Int8Product(query, rows)
        packed = whole.pack(others)[0]
        ways["onednn_product"] = lambda: products_in_threads(laid_out, others, rows)
        ways["int8_product"] = lambda: products_in_threads(whole, packed, rows)
    # Measured first: memory freed by the plain formulation would be reused.
    extra = {}
    for name in ("exact", "fast"):
        memory = PeakMemory(lambda: status_mib("VmRSS"), interval_s=0.002)
        ways[name]()
        extra[f"{name}_extra_mb"] = memory.stop() * 2**20 / 1e6
    assert plain(query, others[:4]) == mutual_nn_count(query, candidates[:4]).tolist()
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            cpu_started, started = time.process_time(), time.perf_counter()
            run()
            walls[name].append((time.perf_counter() - started) / count * 1e3)
            cpus[name].append((time.process_time() - cpu_started) / count * 1e3)
    row: dict[str, Any] = {"candidates": count, "cells": cells, "channels": channels, "rounds": rounds}
    for name in ways:
        row[f"{name}_ms"] = statistics.median(walls[name])
        row[f"{name}_cpu_ms"] = statistics.median(cpus[name])
        row[f"{name}_times_faster"] = statistics.median(
            a / b for a, b in zip(walls["plain"], walls[name], strict=True)
        )
        row[f"{name}_times_less_cpu"] = row["plain_cpu_ms"] / row[f"{name}_cpu_ms"]
    return {**row, **extra}


def products_in_threads(product: Float32Product | Int8Product, others: torch.Tensor, rows: int) -> None:
    """Multiply as `partners_on_cpu` does, without looking at the similarities."""

    def multiply(candidate: torch.Tensor) -> None:
        out = torch.empty(rows, candidate.shape[0])
        for first in range(0, len(candidate), rows):
            product.multiply(candidate[first : first + rows], out)

    with lone_threads("product", one_per_core=True) as pool:
        list(pool.map(multiply, others))


def products_alone(query: torch.Tensor, others: torch.Tensor) -> None:
    """Multiply tiles by BLAS, whose threads share each tile."""
    rows = max(1, matching_cpu._TILE // len(query))
    cells = others.reshape(-1, others.shape[-1])
    out = torch.empty(rows, len(query))
    for first in range(0, len(cells) - rows + 1, rows):
        torch.mm(cells[first : first + rows], query.T, out=out)


def main() -> None:
    parser = make_parser(__doc__, "matching.json")
    parser.add_argument("dataset", type=Path, nargs="*", help="folders that hold database/ and queries/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--votes-alone", action="store_true", help="only what votes cost beside counting")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as in placeray's processes; the plain formulation profits too
    votes = {"command": command_line(), "machine": cpu_name(), "threads": torch.get_num_threads()} | {
        "speed": [vote_cost(*draw_features(*shape), rounds) for *shape, rounds in VOTES]
    }
    show(votes["speed"])
    if args.votes_alone:
        write_results(args.out, read_results(args.out) | {"votes": votes})
        return
    sets = list(args.dataset)
    if folder := os.environ.get("PLACERAY_PHOTO_SETS"):
        sets += sorted(path.parent for path in Path(folder).rglob("queries") if named_by_place(path))
    result: dict[str, Any] = {
        "command": command_line(),
        "machine": f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "int8": int8_available(),
        "tile_mib": matching_cpu._TILE * 4 / 2**20,
        "floors": {"float32_gflop_s": blas_gflop_per_s(), "copy_gb_s": copy_gb_per_s()},
        "speed": [compare(args.candidates, *size, args.rounds) for size in SIZES],
        "votes": votes,
    }
    show(result["speed"])
    result["photos"] = [judge(path, args.candidates) for path in sets]
    show([{name: value for name, value in row.items() if name != "early_stops"} for row in result["photos"]])
    for row in result["photos"]:
        print(row["set"])
        show(row["early_stops"])
    write_results(args.out, result)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a transposed table: one line per name."""
    for name in rows[0] if rows else ():
        values = [row.get(name, "") for row in rows]
        print(f"{name:24}", *(f"{v:>12.2f}" if isinstance(v, float) else f"{v!s:>12}" for v in values))


def named_by_place(folder: Path) -> bool:
    return (folder.parent / "database").is_dir() and all("@" in path.name for path in folder.iterdir())


if __name__ == "__main__":
    main()
