"""Reading 100 random images out of shards of local features, beside copying the same bytes.

    python -m benchmarks.bench_reading

Warm reads are compared with copying from a memory map, cold ones with plain pread, in turns. "fetch": rows of
shards that the process has open. "headers": the same by the headers of their pages, as in shards without a
table of rows. "unopened": shards that it has not opened yet. "bare": a loop of preadv and CRC-32 alone, the
lower bound of reading row by row on one thread. Opening a shard is measured too, beside parsing Parquet's own
metadata.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32

from benchmarks.large_maps import large_card
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from models.weights import load_card
from storage.card import Card
from storage.features.reader import FeatureReader
from storage.features.row_pages import page_positions
from storage.features.row_table import RowTable
from storage.features.shards import shard_path, write_shard
from storage.layout import FEATURES_FOLDER
from storage.position import Position
from storage.records import ImageRecord

CANDIDATES = 100
SHARD_ROWS = (40, 500, 1500)


def measure_reading(folder: Path, card: Card, *, images: int = 240, shard_rows: int = 40) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    (folder / FEATURES_FOLDER).mkdir()
    reader = FeatureReader(folder, card)
    width = reader.codec.row_bytes
    records: list[ImageRecord] = []
    for start in range(0, images, shard_rows):
        ids = [f"image-{start + i}" for i in range(shard_rows)]
        rows = generator.integers(0, 256, (shard_rows, width), dtype=np.uint8)
        shard = write_shard(str(folder), ids, rows)
        records += [ImageRecord(k, "", "", 1, 1, Position(), None, None, shard, i) for i, k in enumerate(ids)]
    paths = {record.shard: shard_path(folder, record.shard) for record in records}
    assert reader.fetch_encoded(records)[1].all()
    tables = {shard: reader._tables._shards[shard].table for shard in paths}
    starts = {shard: table.starts[:] for shard, table in tables.items()}

    def copied(some: list[ImageRecord]) -> None:
        out = np.empty((len(some), width), np.uint8)
        for into, record in zip(out, some, strict=True):
            start = starts[record.shard][record.row]
            into[:] = maps[record.shard][start : start + width]

    def plain(some: list[ImageRecord]) -> None:
        out = np.empty((len(some), width), np.uint8)
        for into, record in zip(out, some, strict=True):
            fd = os.open(paths[record.shard], os.O_RDONLY)
            os.preadv(fd, [into], starts[record.shard][record.row])
            os.close(fd)

    def checked(some: list[ImageRecord]) -> None:
        for row in whole[: len(some)]:
            crc32(row)

    def bare(some: list[ImageRecord]) -> None:
        out = np.empty((len(some), width), np.uint8)
        fds = {shard: os.open(path, os.O_RDONLY) for shard, path in paths.items()}
        for into, record in zip(out, some, strict=True):
            os.preadv(fds[record.shard], (into,), starts[record.shard][record.row])
            crc32(into)
        for fd in fds.values():
            os.close(fd)

    def fetched(some: list[ImageRecord]) -> np.ndarray:
        return reader.fetch_encoded(some)[1]

    def fetched_with_headers(some: list[ImageRecord]) -> np.ndarray:
        for table in tables.values():
            table.starts = array("q", [-1]) * len(table)
        ok = fetched(some)
        for shard, table in tables.items():
            table.starts = starts[shard]
        return ok

    def fetched_unopened(some: list[ImageRecord]) -> np.ndarray:
        return FeatureReader(folder, card).fetch_encoded(some)[1]

    def forget() -> None:
        for path in paths.values():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    maps = {shard: np.memmap(path, np.uint8, "r") for shard, path in paths.items()}
    whole = np.zeros((CANDIDATES, width), np.uint8)
    warm = take_turns(
        {
            "map": copied,
            "checksums": checked,
            "unopened": fetched_unopened,
            "headers": fetched_with_headers,
            "bare": bare,
            "fetch": fetched,
        },
        records,
        generator,
        rounds=100,
    )
    maps.clear()  # mapped pages would stay in the cache
    cold = take_turns(
        {"pread": plain, "fetch": fetched},
        records,
        generator,
        rounds=9,
        before=forget,
    )
    return {"bytes_image": width, "warm_ms": warm, "cold_ms": cold}


def take_turns(
    ways: dict[str, Callable[[list[ImageRecord]], np.ndarray | None]],
    records: list[ImageRecord],
    generator: np.random.Generator,
    *,
    rounds: int,
    before: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        some = [records[i] for i in generator.choice(len(records), CANDIDATES, replace=False)]
        # A later way finds the rows in the processor's cache, so the order rotates.
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            way = ways[name]
            before()
            began = time.perf_counter()
            ok = way(some)
            spent[name].append(1e3 * (time.perf_counter() - began))
            assert ok is None or ok.all(), name
    median = {name: statistics.median(times) for name, times in spent.items()}
    best = {name: min(times) for name, times in spent.items()}
    basis = next(iter(spent))
    return {
        **{name: round(time_ms, 3) for name, time_ms in median.items()},
        **{f"best_{name}": round(time_ms, 3) for name, time_ms in best.items()},
        **{f"ratio_{name}": round(time_ms / median[basis], 2) for name, time_ms in median.items()},
        **{f"ratio_of_best_{name}": round(time_ms / best[basis], 2) for name, time_ms in best.items()},
    }


def read_all_encodings() -> dict[str, Any]:
    small = load_card("efficientnet-lite0")
    large = large_card(small)
    results = {}
    for name, card in (("default model", small), ("large grid", large)):
        for encoding in ("float16", "int8", "int4", "int2"):
            with tempfile.TemporaryDirectory() as folder:
                figures = measure_reading(Path(folder), card.stored_as(encoding))
            results[f"{name}, {encoding}"] = figures
            print(f"{name}, {encoding}: {figures}", flush=True)
    return results


def table_of(path: Path) -> RowTable:
    with open(path, "rb") as file:
        table = RowTable.read(file.fileno())
    assert table is not None
    return table


def measure_opening(folder: Path, rows: int) -> dict[str, Any]:
    (folder / FEATURES_FOLDER).mkdir()
    ids = [f"district-1/street-2/image-{i}.jpg" for i in range(rows)]
    shard = write_shard(str(folder), ids, np.zeros((rows, 256), np.uint8))
    path = shard_path(folder, shard)
    spent: dict[str, list[float]] = {"metadata": [], "table": []}
    for _ in range(50):
        began = time.perf_counter()
        page_positions(path)
        ended = time.perf_counter()
        table_of(path)
        spent["metadata"].append(1e3 * (ended - began))
        spent["table"].append(1e3 * (time.perf_counter() - ended))
    median = {f"{name}_ms": round(statistics.median(times), 3) for name, times in spent.items()}
    return {**median, "ratio": round(median["metadata_ms"] / median["table_ms"], 1)}


def main() -> None:
    args = make_parser(__doc__, "reading.json").parse_args()
    opened = {}
    for rows in SHARD_ROWS:
        with tempfile.TemporaryDirectory() as folder:
            opened[str(rows)] = measure_opening(Path(folder), rows)
        print(f"opening a shard of {rows} rows: {opened[str(rows)]}", flush=True)
    results = {
        "command": command_line(),
        "machine": describe_machine(),
        "load_average": os.getloadavg(),
        "opening": opened,
        "reading": read_all_encodings(),
    }
    write_results(args.out, results)


if __name__ == "__main__":
    main()
