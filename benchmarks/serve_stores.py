"""The stores that bench_serve serves: the demo city, and a large one of generated descriptors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.city_descriptors import make_city
from models.feature_encoder import FeatureEncoder
from storage.features.shards import write_shard
from storage.store import Store
from storage.table.schema import row_schema

__all__ = ["demo_city", "generate_store"]


def demo_city(scratch: Path) -> tuple[str, list[Path]]:
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--out", str(scratch), "--quiet", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout)
    return summary["store"], sorted(Path(summary["first_query"]["image"]).parent.glob("*.jpg"))


def generate_store(city: str, folder: Path, rows: int) -> str:
    """Make a store of generated descriptors; its local features are those of the city's photos, in turn."""
    source = Store.open(city)
    records = source.get(source.metadata()["image_id"].to_pylist())
    pool, ok = source.fetch(records)
    assert ok.all()
    learned = [source.artifact(digest) for digest in source.card.artifacts]
    store = Store.create(folder, source.card, artifacts=learned)
    encoder = FeatureEncoder(store.codec)
    schema = row_schema(store.card)
    dim = store.card.descriptor_dim
    drawn = folder.with_name("drawn")
    drawn.mkdir()
    make_city(rows, drawn, shape="gem" if store.card.aggregation_sha256 is None else "learned", width=dim)
    descriptors = np.load(drawn / "rows.npy", mmap_mode="r")
    with store.lease():
        for start in range(0, rows, 1000):
            numbers = np.arange(start, min(rows, start + 1000))
            vectors = descriptors[numbers].astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            ids = [f"generated-{number}" for number in numbers]
            shard = write_shard(store.uri, ids, encoder.encode(pool[numbers % len(pool)]))
            flat = pa.array(vectors.astype(store.card.descriptor_dtype).reshape(-1))
            columns: dict[str, Any] = {
                "image_id": ids,
                "uri": [records[number % len(pool)].uri for number in numbers],
                "sha256": ["0" * 64] * len(ids),
                "width": [320] * len(ids),
                "height": [240] * len(ids),
                "descriptor": pa.FixedSizeListArray.from_arrays(flat, dim),
                "shard": [shard] * len(ids),
                "row": list(range(len(ids))),
            }
            empty = [None] * len(ids)
            store.commit(pa.table({n: columns.get(n, empty) for n in schema.names}, schema=schema))
    return store.uri
