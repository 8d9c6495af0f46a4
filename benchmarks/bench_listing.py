"""Time and memory of the driver while a large listing is compared with a store; photos are not read.

Each size runs in a process of its own: a Parquet listing of addresses in a bucket, a store that has every
second of them, and what `placeray index` does with both before and between the parts that it extracts.

python -m benchmarks.bench_listing --rows 110000 1000000 3000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import describe_machine
from benchmarks.memory import status_mib
from benchmarks.results import command_line, make_parser, write_results
from pipelines.indexing.reconcile import Change
from pipelines.indexing.work import Listed, Work
from pipelines.sources import LISTING_SCHEMA, open_source

BATCH = 50_000


def names(start: int, end: int) -> list[str]:
    return [f"city/2024/street-{at % 997:03}/{at:010}.jpg" for at in range(start, end)]


def write_listing(path: Path, rows: int) -> None:
    schema = pa.schema([("uri", pa.string()), ("lat", pa.float64()), ("lon", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BATCH):
            end = min(start + BATCH, rows)
            places = [48.0 + at % 1000 / 1e4 for at in range(start, end)]
            uris = [f"s3://photos/{name}" for name in names(start, end)]
            table = pa.table({"uri": uris, "lat": places, "lon": places}, schema=schema)
            for batch in table.combine_chunks().to_batches():
                writer.write_batch(batch)  # into row groups of a million rows, as most writers make them


class StoreOfHalf:
    """Stands in for a store that has every second row of the listing, without descriptors on disk."""

    def __init__(self, rows: int, source: str) -> None:
        self._rows, self._source = rows, source
        self.card = SimpleNamespace(format_version=9)

    def scan(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for start in range(0, self._rows, 2 * BATCH):
            uris = [f"s3://photos/{name}" for name in names(start, min(start + 2 * BATCH, self._rows))[::2]]
            table = {"image_id": uris, "uri": uris, "sha256": ["0" * 64] * len(uris)}
            table |= {"source": [self._source] * len(uris), "tags": pa.nulls(len(uris), pa.string())}
            for name in columns:
                if name not in table:
                    table[name] = pa.nulls(len(uris), LISTING_SCHEMA.field(name).type)
            yield pa.table(table)


def measure(path: Path, rows: int) -> dict[str, float]:
    """Work through the listing; return seconds to the first part and to the last, and the peak of memory."""
    loaded = status_mib("VmHWM")
    started = time.perf_counter()
    source = open_source(path)
    listed = Listed(source, whole=False)
    store = StoreOfHalf(rows, source.origin)
    with Work(store, listed, Change()) as work:  # type: ignore[arg-type]
        del listed  # as the job does
        parts = work.parts()
        done = next(parts).num_rows
        first_s = time.perf_counter() - started
        done += sum(part.num_rows for part in parts)
        assert done == rows
        assert not work.vanished.photos
    peak = status_mib("VmHWM")
    seconds = time.perf_counter() - started
    return {
        "rows": rows,
        "first_part_s": round(first_s, 1),
        "all_s": round(seconds, 1),
        "loaded_mib": round(loaded),
        "peak_mib": round(peak),
    }


def main() -> None:
    parser = make_parser(__doc__, "listing.json")
    parser.add_argument("--rows", type=int, nargs="+", default=[110_000, 1_000_000, 3_000_000])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.rows[0])))
        return
    results = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "city.parquet")
            write_listing(path, rows)
            command = [
                sys.executable,
                "-m",
                "benchmarks.bench_listing",
                "--one",
                str(path),
                "--rows",
                str(rows),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout))
            print(json.dumps(results[-1]), flush=True)
    values = {"command": command_line(), "machine": describe_machine(), "results": results}
    write_results(args.out, values)
    if len(results) > 1:
        first, last = results[0], results[-1]
        grown = (last["peak_mib"] - first["peak_mib"]) * 1024 * 1024
        print(f"{grown / (last['rows'] - first['rows']):.1f} bytes per row from the smallest to the largest")


if __name__ == "__main__":
    main()
