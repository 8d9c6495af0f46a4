"""Rows of a store as they reach the driver of an index run, with random descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from storage.features.shards import write_shard
from storage.store import Store
from storage.table.schema import row_schema

__all__ = ["draw_rows"]


def draw_rows(store: Store, size: int, total: int) -> Iterator[pa.Table]:
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
