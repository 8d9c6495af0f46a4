"""Seeded rows and stores for the storage tests."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from storage.card import Card, Preprocessing
from storage.commit.ledger import acknowledge, manifests
from storage.features.shards import write_shard
from storage.features.whitening import whitening_bytes
from storage.store import Store
from storage.table.index_segments import build_segment, train_model
from storage.table.lance_table import LanceTable, manifest_name
from storage.table.open_table import dataset_of
from storage.table.schema import row_schema

DIM, GRID, CHANNELS = 16, 2, 4
RELEARNED_DIM, RELEARNED = 24, 100  # width and generation of descriptors that were made again


def make_card(
    *, model: str = "tiny", dim: int = DIM, dtype: Literal["float16", "float32"] = "float16"
) -> Card:
    preprocessing = Preprocessing("pil_bilinear", 32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return Card(
        model=model,
        weights_sha256="0" * 64,
        preprocessing=preprocessing,
        descriptor_dim=dim,
        grid_height=GRID,
        grid_width=GRID,
        feature_dim=CHANNELS,
        min_similarity=None,
        descriptor_dtype=dtype,
    )


def seeded(image_id: str, generation: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{image_id}/{generation}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def descriptor_of(image_id: str, generation: int = 0, *, dim: int = DIM) -> np.ndarray:
    vector = seeded(image_id, generation).standard_normal(dim).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector))


def features_of(image_id: str, generation: int = 0) -> np.ndarray:
    shape = (GRID, GRID, CHANNELS)
    return seeded(image_id, generation + 1000).standard_normal(shape).astype(np.float16)


def encoded(store: Store, features: np.ndarray) -> np.ndarray:
    """Encode (B, H, W, C) float16; without torch where no encoding is needed, for short child processes."""
    if store.card.feature_encoding == "float16" and store.codec.whitening is None:
        return features.reshape(len(features), -1).view(np.uint8)
    from models.feature_encoder import FeatureEncoder

    return FeatureEncoder(store.codec).encode(features)


def make_rows(store: Store, image_ids: Sequence[str], generation: int = 0) -> pa.Table:
    """Write a shard and return the rows to commit; everything follows from image_id and generation."""
    features = np.stack([features_of(image_id, generation) for image_id in image_ids])
    shard = write_shard(store.uri, image_ids, encoded(store, features))
    return rows_of(store.card, image_ids, generation, shard=shard)


def rows_of(card: Card, image_ids: Sequence[str], generation: int = 0, *, shard: str = "none") -> pa.Table:
    schema = row_schema(card)
    dim = card.descriptor_dim
    vectors = np.stack([descriptor_of(image_id, generation, dim=dim) for image_id in image_ids])
    flat = pa.array(vectors.reshape(-1).astype(card.descriptor_dtype))
    numbers = [int(seeded(image_id, generation + 2000).integers(1, 80)) for image_id in image_ids]
    columns = {
        "image_id": list(image_ids),
        "uri": [f"file:///photos/{image_id}.jpg?g={generation}" for image_id in image_ids],
        "sha256": [hashlib.sha256(f"{i}{generation}".encode()).hexdigest() for i in image_ids],
        "width": [n + 100 for n in numbers],
        "height": numbers,
        "lat": [None if n % 3 == 0 else n / 2 for n in numbers],
        "lon": [None if n % 3 == 0 else -n / 3 for n in numbers],
        "utm_e": [None if n % 2 else n * 10.0 for n in numbers],
        "utm_n": [None if n % 2 else n * 11.0 for n in numbers],
        "utm_zone": [None if n % 2 else "33U" for n in numbers],
        "heading_deg": [None if n % 5 else n * 1.5 for n in numbers],
        "captured_at": [None if n % 7 else datetime(2020, 1, 1, n % 24, tzinfo=UTC) for n in numbers],
        "descriptor": pa.FixedSizeListArray.from_arrays(flat, dim),
        "shard": [shard] * len(image_ids),
        "row": list(range(len(image_ids))),
    }
    return pa.table(columns, schema=schema)


def with_value(rows: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = rows[name].to_pylist()
    values[row] = value
    return with_column(rows, name, pa.array(values, rows.schema.field(name).type))


def with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)


def make_store(
    folder: Path | str, image_ids: Sequence[str] = (), *, batch: int = 10, dim: int = DIM
) -> Store:
    store = Store.create(folder, make_card(dim=dim))
    if image_ids:
        with store.lease():
            for start in range(0, len(image_ids), batch):
                store.commit(make_rows(store, image_ids[start : start + batch]))
    return store


def copied_store(folder: Path, image_ids: Sequence[str]) -> Store:
    """Return what `make_store` makes, copied from one that is made once: commits take half a second."""
    shutil.copytree(_original(tuple(image_ids)), folder, dirs_exist_ok=True)
    return Store.open(folder)


@functools.cache
def _original(image_ids: tuple[str, ...]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="placeray-sample-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_store(folder / "store", image_ids)
    return folder / "store"


def make_old_store(folder: Path, image_ids: Sequence[str] = (), *, batch: int = 10) -> Store:
    """Make a store of format 1, as placeray 0.1 does."""
    (folder / "features").mkdir(parents=True)
    (folder / "card.json").write_text(make_card().to_json())
    acknowledge(folder, LanceTable.create(folder, make_card()), known=set())
    store = Store.open(folder)
    with store.lease():
        for start in range(0, len(image_ids), batch):
            store.commit(make_rows(store, image_ids[start : start + batch]))
    return store


def sample_whitening() -> np.ndarray:
    return np.asarray(np.random.default_rng(1).standard_normal((CHANNELS, CHANNELS)), np.float32)


def make_relearned_store(folder: Path, image_ids: Sequence[str]) -> Store:
    """Make a store of format 3 with everything that a format 3 store may have.

    A whitening of local features, descriptors that two aggregations made one after the other, sources and
    tags of all rows but the last one's. After the second aggregation the first image was indexed again.
    """
    whitening = whitening_bytes(sample_whitening())
    words = [b"words, first lesson", b"words, second lesson"]
    cards = [
        make_card().stored_as(
            "float16",
            aggregation_sha256=hashlib.sha256(each).hexdigest(),
            local_whitening_sha256=hashlib.sha256(whitening).hexdigest(),
            descriptor_dim=RELEARNED_DIM,
        )
        for each in words
    ]
    store = Store.create(folder, cards[0], artifacts=[whitening, words[0]])

    def rows_with_sources(ids: Sequence[str]) -> pa.Table:
        rows = make_rows(store, ids)
        last = [key == image_ids[-1] for key in ids]
        sources = [None if missing else "/photos/north" for missing in last]
        tags = [
            None if missing else f'["{key}", "d\u00e4mmerung"]'
            for key, missing in zip(ids, last, strict=True)
        ]
        rows = rows.append_column("source", pa.array(sources, pa.string()))
        return rows.append_column("tags", pa.array(tags, pa.string()))

    with store.lease():
        for start in range(0, len(image_ids), 4):
            store.commit(rows_with_sources(image_ids[start : start + 4]))
        vectors = np.stack([descriptor_of(key, RELEARNED, dim=RELEARNED_DIM) for key in image_ids])
        store.replace_descriptors(cards[1], [(image_ids, vectors)], artifacts=[words[1]])
        store.commit(rows_with_sources(image_ids[:1]))
    return store


def contents(store: Store) -> dict[str, tuple[object, ...]]:
    """Return everything stored, by key, without what differs between runs (shard name, time)."""
    stored = {}
    for record in store.get([key.as_py() for key in store.metadata()["image_id"]]):
        features, ok = store.fetch([record])
        shown = features[0].tobytes() if ok[0] else None
        stored[record.image_id] = (
            *(record.uri, record.sha256, record.width, record.height, record.lat, record.lon),
            *(record.utm_e, record.utm_n, record.utm_zone, record.heading_deg, record.captured_at, shown),
        )
    return stored


def head_manifest(folder: Path) -> Path:
    """Return the manifest of the newest version of a store's table."""
    return folder / "records.lance/_versions" / manifest_name(manifests(folder)[-1])


def index_parts(store: Store) -> list[Any]:
    """Build an index of all rows in two parts; nothing uses it yet."""
    dataset = dataset_of(store.table)
    model = train_model(dataset, lists=1, bits=2)
    numbers = [fragment.fragment_id for fragment in dataset.get_fragments()]
    halves = [half for half in (numbers[::2], numbers[1::2]) if half]
    return [build_segment(dataset, model, half) for half in halves]
