"""The index pipeline around the model: how much it feeds, what it moves, what it commits, what it holds.

    python -m benchmarks.bench_pipeline feed
    python -m benchmarks.bench_pipeline commit
    python -m benchmarks.bench_pipeline memory

A simulated accelerator takes the model's place: an actor that sleeps as long as the batch would take and
hands on vectors drawn beforehand. `feed` lets it go as fast as it can, which shows what one core decodes and
writes, and then at two thirds of that, which shows whether the accelerator waits. `commit` measures the
driver's commits alone. `memory` compares 1,000 with 20,000 photos. Each part fills its own key of the JSON
file. `bench_index` compares the whole pipeline with the bare extractor.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.bench_index import cpu_name, watch
from benchmarks.drawn_photos import DRAWN, PHOTO, make_photos
from benchmarks.timeline import busy_seconds, draw_timeline
from pipelines.indexing.extract import Extract
from pipelines.indexing.flow import commit_all, written_rows
from pipelines.indexing.plan import make_plan
from pipelines.indexing.tally import Tally
from pipelines.ray_session import ray_session
from pipelines.sources import list_source
from storage.card import Card, Preprocessing
from storage.features.encodings import open_codec, projected_channels
from storage.features.projection import fit_projection, projection_sha256
from storage.features.shards import write_shard
from storage.store import Store
from storage.table.schema import row_schema

RESULTS = Path(__file__).parent / "results" / "pipeline.json"
TIMELINE = Path(__file__).parent / "results" / "pipeline_timeline.svg"
BATCH = 32
# (descriptor, grid, channels): the default model's, and SelaVPR's with ViT-L/14.
SHAPES = {"default": (1280, 14, 112), "large": (1024, 61, 128)}
OBJECT_STORE_BYTES = {"default": 512 << 20, "large": 2 << 30}


def card_of(shape: str, features: str) -> Card:
    width, grid, channels = SHAPES[shape]
    card = Card(
        model=f"simulated-{shape}",
        weights_sha256="0" * 64,
        preprocessing=Preprocessing("pil_bilinear", 224, 224, (0.5,) * 3, (0.25,) * 3),
        descriptor_dim=width,
        grid_height=grid,
        grid_width=grid,
        feature_dim=channels,
        min_similarity=None,
    )
    return card.stored_as(features)  # type: ignore[arg-type]


def make_store(folder: Path, card: Card) -> Store:
    """Make a store, with a projection learned from noise where its features are projected."""
    kept = projected_channels(card.feature_encoding, card.feature_dim)
    if kept is None:
        return Store.create(str(folder), card)
    noise = np.random.default_rng(0).standard_normal((4096, card.feature_dim), dtype=np.float32)
    projection = fit_projection(noise, kept)
    named = card.stored_as(card.feature_encoding, projection_sha256=projection_sha256(projection))
    return Store.create(str(folder), named, projection=projection)


class SleepingExtract(Extract):
    """Sleeps as long as an accelerator would take, which encodes too; `model` is its rate in images/s."""

    def __init__(self, *, model: str, store_uri: str, card: str, trace: str | None = None, **_: Any) -> None:
        from models.feature_encoder import FeatureEncoder

        self.card = Card.from_json(card)
        self.trace, self.failure, self.rate = trace, None, float(model)
        generator = np.random.default_rng(0)
        size = self.card
        drawn = generator.standard_normal((DRAWN, size.descriptor_dim), dtype=np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        cells = (DRAWN, size.grid_height, size.grid_width, size.feature_dim)
        features = generator.standard_normal(cells, dtype=np.float32)
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
        rows = FeatureEncoder(open_codec(Path(store_uri), self.card)).encode(features)
        self.drawn = [(d, row.tobytes(), None) for d, row in zip(drawn.astype(np.float16), rows, strict=True)]

    def _extract(self, pixels: np.ndarray) -> list[Any]:
        time.sleep(len(pixels) / self.rate)
        return [self.drawn[at % DRAWN] for at in range(len(pixels))]


def simulate(photos: Path, folder: Path, shape: str, features: str, rate: float) -> dict[str, Any]:
    """Index `photos` with the simulated accelerator, in this process, as `pipelines.indexing.job` does."""
    store = make_store(folder / "store", card_of(shape, features))
    listing = list_source(photos)
    work = listing
    for name in ("stored_sha256", "stored_uri"):
        work = work.append_column(name, pa.nulls(len(work), pa.string()))
    work = work.append_column("amend", pa.array(np.zeros(len(work), bool)))
    tally = Tally(total=len(work), progress=lambda *_: None)
    import ray.data

    began = time.perf_counter()
    with store.lease(), ray_session(object_store_bytes=OBJECT_STORE_BYTES[shape]) as ray:
        plan = make_plan(
            ray,
            images=len(work),
            row_bytes=store.codec.row_bytes,
            extractors=1,
            batch_size=BATCH,
            trace=folder / "trace",
        )
        plan = dataclasses.replace(plan, extractor_cpus=0.0)  # an accelerator takes no core
        rows = written_rows(ray, work, store, str(rate), plan, extract=SleepingExtract)
        commit_all(store, rows, tally, plan)
    if tally.extracted != len(work):
        raise SystemExit(f"{tally.extracted} of {len(work)} photos were extracted")
    spans = [json.loads(line) for line in (folder / "trace").read_text().splitlines()]
    extracts = sorted((s for s in spans if s["stage"] == "extract"), key=lambda s: s["end_s"])
    # The second half alone: a Ray worker takes seconds to start, and some start late.
    half = extracts[len(extracts) // 2 :]
    rows, began_half = sum(s["rows"] for s in half[1:]), half[0]["end_s"]
    steady = rows / (half[-1]["end_s"] - began_half)
    through = rows / (max(s["end_s"] for s in spans) - began_half)  # whether writing keeps up
    busy = busy_seconds(spans)
    return {
        "images": len(work),
        "shape": shape,
        "features": features,
        "accelerator_images_per_s": rate,
        "images_per_s": round(steady, 1),
        "images_per_s_to_last_commit": round(through, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "core_ms_per_image": {k: round(1e3 * v / len(work), 3) for k, v in busy.items() if k != "extract"},
        "bytes_per_image": {
            stage: round(sum(s["bytes"] for s in spans if s["stage"] == stage) / len(work))
            for stage in ("decode", "extract", "write")
        },
    }


def apart(
    photos: Path, shape: str, features: str, rate: float, *, timeline: Path | None = None
) -> dict[str, Any]:
    """Simulate in a process of its own and watch its memory."""
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        command = [sys.executable, "-m", "benchmarks.bench_pipeline", "child", "--photos", str(photos)]
        command += ["--shape", shape, "--features", features, "--rate", str(rate), "--folder", scratch]
        process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks: dict[str, int] = defaultdict(int)
        watcher = threading.Thread(target=watch, args=(process, peaks), daemon=True)
        watcher.start()
        out, _ = process.communicate()
        watcher.join()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        found["peak_mb"] = {name: round(size / 2**20, 1) for name, size in sorted(peaks.items())}
        if timeline is not None:
            lines = (Path(scratch) / "trace").read_text().splitlines()
            timeline.write_text(draw_timeline([json.loads(line) for line in lines]))
    print({k: v for k, v in found.items() if k != "peak_mb"}, file=sys.stderr, flush=True)
    return found


def feed() -> dict[str, Any]:
    """How many cores feed one accelerator."""
    found = []
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        for shape, features, count in (
            ("default", "float16", 5000),
            ("large", "float16", 3000),
            ("large", "int4-pca64", 5000),
        ):
            photos = make_photos(Path(scratch) / shape / features, count, PHOTO)
            row: dict[str, Any] = {"free": apart(photos, shape, features, 1e6)}
            row["core_s_per_image"] = sum(row["free"]["core_ms_per_image"].values()) / 1e3
            if shape == "default":
                rate = round(row["free"]["images_per_s_to_last_commit"] * 2 / 3)
                row["paced"] = apart(photos, shape, features, rate, timeline=TIMELINE)
                row["accelerator_busy"] = round(row["paced"]["images_per_s"] / rate, 3)
            found.append(row)
    return {"photo": PHOTO, "rows": found}


def memory() -> dict[str, Any]:
    """Peaks of unshared memory at 1,000 and 20,000 small photos."""
    found = {}
    for count in (1000, 20_000):
        with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
            photos = make_photos(Path(scratch) / "photos", count, (160, 120))
            found[str(count)] = apart(photos, "default", "float16", 1e6)
    few, many = (found[key]["peak_mb"] for key in found)
    found["growth"] = {name: round(many[name] / few[name], 2) for name in few if name in many}
    return found


def commit() -> dict[str, Any]:
    """Rows a second through the driver's commits, to disk, acknowledged."""
    found = {}
    for per_commit, total in ((256, 262_144), (1024, 32_768), (8192, 131_072), (32_768, 262_144)):
        with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
            store = Store.create(scratch, card_of("large", "int2"))
            batches, seconds = drawn_rows(store, per_commit, total), []
            with store.lease():
                for batch in batches:
                    began = time.perf_counter()
                    store.commit(batch)
                    seconds.append(time.perf_counter() - began)
        some = max(4, len(seconds) // 10)
        found[str(per_commit)] = {
            "rows": total,
            "rows_per_s": round(total / sum(seconds)),
            "commits": len(seconds),
            "first_ms": round(1e3 * statistics.median(seconds[:some]), 1),
            "last_ms": round(1e3 * statistics.median(seconds[-some:]), 1),
        }
        print(per_commit, found[str(per_commit)], file=sys.stderr, flush=True)
    return {"goal_rows_per_s": 50_000, "rows_a_commit": found}


def drawn_rows(store: Store, size: int, total: int) -> Iterator[pa.Table]:
    """Yield rows as they reach the driver: new keys, metadata, a descriptor of 1,024 in half precision."""
    card, schema = store.card, row_schema(store.card)
    shard = write_shard(store.uri, ["0"], np.zeros((1, store.codec.row_bytes), np.uint8))
    generator = np.random.default_rng(0)
    for start in range(0, total, size):
        drawn = generator.standard_normal((size, card.descriptor_dim), dtype=np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        ids = [f"city/street{at % 977:04d}/photo{at:08d}.jpg" for at in range(start, start + size)]
        values: dict[str, Any] = dict.fromkeys(schema.names)
        values |= {
            "image_id": ids,
            "uri": [f"/data/photos/{one}" for one in ids],
            "sha256": [f"{at:064x}" for at in range(start, start + size)],
            "lat": generator.uniform(45, 46, size),
            "lon": generator.uniform(9, 10, size),
            "shard": [shard] * size,
        }
        values |= {"width": np.full(size, 640), "height": np.full(size, 480), "row": np.arange(size)}
        flat = pa.array(drawn.astype(np.float16).reshape(-1))
        values["descriptor"] = pa.FixedSizeListArray.from_arrays(flat, card.descriptor_dim)
        columns = [
            pa.nulls(size, field.type)
            if values[field.name] is None
            else pa.array(values[field.name], field.type)
            for field in schema
        ]
        yield pa.Table.from_arrays(columns, schema=schema)


def main() -> None:
    """Measure one part and put it into the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("feed", "commit", "memory", "child"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    for name in ("--photos", "--folder", "--shape", "--features", "--rate"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "child":
        rate = float(args.rate)
        print(json.dumps(simulate(Path(args.photos), Path(args.folder), args.shape, args.features, rate)))
        return
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    results["machine"] = {"cpu": cpu_name(), "cores": os.cpu_count()}
    results[args.part] = {
        "command": f"python -m benchmarks.bench_pipeline {args.part}",
        **{"feed": feed, "commit": commit, "memory": memory}[args.part](),
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results[args.part], indent=1))


if __name__ == "__main__":
    main()
