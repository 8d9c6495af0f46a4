"""Round trips for the local features of 100 candidates in a bucket, cold and warm.

    python -m benchmarks.bench_bucket

The bucket is a folder behind a server of this process. Milliseconds are those with 30 ms from each request to
its answer; round trips are counted apart, by holding requests until no further one comes. "scattered":
each candidate lies in a shard of its own, as in a large city; "together": all in three shards. "cold":
nothing is known of them; "warm": the same reader again; "restarted": another one with the same cache on
local disk.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from benchmarks.slow_bucket import SlowBucket, slow_bucket
from models.weights import load_card
from storage.card import Card
from storage.features.bucket_reader import BucketFeatureReader
from storage.features.shards import write_shard
from storage.layout import FEATURES_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.location import open_location
from storage.position import Position
from storage.records import ImageRecord

CANDIDATES = 100
LATENCY_S = 0.03
ROUNDS = 7
WAYS = ("cold", "warm", "restarted")
SHARDS = {"scattered": CANDIDATES, "together": 3}


def write_candidates(folder: Path, card: Card, shards: int) -> list[ImageRecord]:
    """Write shards of 40 images each; return as many records of each shard as make a hundred."""
    (folder / FEATURES_FOLDER).mkdir(parents=True)
    generator = np.random.default_rng(0)
    width = card.grid_height * card.grid_width * card.feature_dim * 2
    records: list[ImageRecord] = []
    for number in range(shards):
        ids = [f"image-{number}-{row}" for row in range(40)]
        shard = write_shard(str(folder), ids, generator.integers(0, 256, (40, width), dtype=np.uint8))
        for row in range(-(-CANDIDATES // shards)):
            records.append(ImageRecord(ids[row], "", "", 1, 1, Position(), None, None, shard, row))
    return records[:CANDIDATES]


def measure(folder: Path, card: Card, records: list[ImageRecord]) -> dict[str, dict[str, float]]:
    """Return requests, round trips and milliseconds (medians) of each way."""
    found: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    with slow_bucket(folder, None) as bucket:
        for way, _ in fetch_in_turn(bucket, card, records):
            found[way] |= {"requests": bucket.requests, "round_trips": bucket.steps}
            bucket.forget()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with slow_bucket(folder, LATENCY_S) as bucket:
        for _ in range(ROUNDS):
            for way, spent_ms in fetch_in_turn(bucket, card, records):
                times[way].append(spent_ms)
    return {way: found[way] | {"ms": round(statistics.median(times[way]), 1)} for way in WAYS}


def fetch_in_turn(bucket: SlowBucket, card: Card, records: list[ImageRecord]) -> Iterator[tuple[str, float]]:
    """Fetch the records in each way; yield it and its milliseconds."""
    with tempfile.TemporaryDirectory() as cache:
        options = {"endpoint": bucket.url, "skip_signature": "true", "cache_dir": cache}
        location = open_location("s3://bucket/city", options)
        assert isinstance(location, BucketPath)
        reader = BucketFeatureReader(location, card)
        for way in WAYS:
            if way == "restarted":
                reader = BucketFeatureReader(location, card)
            began = time.perf_counter()
            _, ok = reader.fetch_encoded(records)
            spent_ms = 1e3 * (time.perf_counter() - began)
            assert ok.all()
            yield way, spent_ms


def main() -> None:
    args = make_parser(__doc__, "bucket.json").parse_args()
    card = load_card("efficientnet-lite0").stored_as("float16")
    reading: dict[str, Any] = {}
    for name, shards in SHARDS.items():
        with tempfile.TemporaryDirectory() as folder:
            records = write_candidates(Path(folder, "city"), card, shards)
            reading[name] = measure(Path(folder), card, records)
        print(f"{name}: {reading[name]}", flush=True)
    results = {
        "command": command_line(),
        "machine": describe_machine(),
        "load_average": os.getloadavg(),
        "latency_ms": 1e3 * LATENCY_S,
        "candidates": CANDIDATES,
        "reading": reading,
    }
    write_results(args.out, results)


if __name__ == "__main__":
    main()
