"""A small drawn city, its photos indexed with the default model: the store behind the service's tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.images.decoder import decode_image
from models.weights import load_extractor
from pipelines.demo.dataset import draw_city
from pipelines.sources import list_source
from storage.features.shards import write_shard
from storage.store import Store
from storage.table.schema import row_schema

MODEL = "efficientnet-lite0"


@dataclass(frozen=True)
class CityStore:
    """A store on disk, and photos to query it with."""

    uri: str
    folder: Path
    database: list[Path]
    queries: list[Path]


def make_city_store(folder: Path, *, database: int = 48, queries: int = 16, seed: int = 3) -> CityStore:
    draw_city(folder / "city", seed=seed, database_images=database, query_images=queries)
    images = sorted((folder / "city/images/test/database").glob("*.jpg"))
    extractor = load_extractor(MODEL)
    store = Store.create(folder / "store", extractor.card)
    listing = list_source(folder / "city/images/test/database")
    with store.lease():
        commit_photos(store, extractor, listing)
    query_photos = sorted((folder / "city/images/test/queries").glob("*.jpg"))
    return CityStore(store.uri, folder, images, query_photos)


def store_of(city_store: CityStore, uri: Path, **changed: Any) -> Store:
    """Index the same photos into a store of their own with a card that differs, such as `features="int4"`."""
    extractor = load_extractor(MODEL)
    database = changed.pop("database", city_store.folder / "city/images/test/database")
    store = Store.create(uri, extractor.card.stored_as(changed.pop("features"), **changed))
    with store.lease():
        commit_photos(store, extractor, list_source(database))
    return store


def commit_photos(store: Store, extractor: Extractor, listing: pa.Table) -> None:
    """Index listed photos in this process, as one commit; the store's lease is held."""
    datas = [Path(uri).read_bytes() for uri in listing["uri"].to_pylist()]
    photos = [decode_image(data) for data in datas]
    descriptors, features, codes = extractor.extraction([photo.pixels for photo in photos])
    ids = listing["image_id"].to_pylist()
    shard, rows = "", [0] * len(ids)
    if store.card.has_features:
        shard = write_shard(store.uri, ids, FeatureEncoder(store.codec).encode(features))
        rows = list(range(len(ids)))
    schema = row_schema(store.card, optional=("code",) if store.card.code_bits else ())
    flat = pa.array(descriptors.reshape(-1).astype(np.float16))
    values = {
        "sha256": [hashlib.sha256(data).hexdigest() for data in datas],
        "width": [photo.pixels.shape[1] for photo in photos],
        "height": [photo.pixels.shape[0] for photo in photos],
        "descriptor": pa.FixedSizeListArray.from_arrays(flat, store.card.descriptor_dim),
        "shard": [shard] * len(ids),
        "row": rows,
    }
    if codes is not None:
        values["code"] = pa.array([code.tobytes() for code in codes], schema.field("code").type)
    columns = {name: values[name] if name in values else listing[name] for name in schema.names}
    store.commit(pa.table(columns, schema=schema))


def make_store_of_another_model(folder: Path, city_store: CityStore) -> Store:
    """Make an empty store whose card differs in the weights alone."""
    card = replace(Store.open(city_store.uri).card, weights_sha256="0" * 64)
    artifacts = [Store.open(city_store.uri).artifact(sha256) for sha256 in card.artifacts]
    return Store.create(folder, card, artifacts=artifacts)


def copy_rows(store: Store, suffix: str) -> pa.Table:
    """Return the store's rows again under other keys, ready to commit."""
    rows = store.snapshot.table.take(range(store.count))
    rows = rows.select(row_schema(store.card).names)
    keys = pa.array([f"{key}{suffix}" for key in rows["image_id"].to_pylist()], pa.string())
    return rows.set_column(0, rows.schema.field(0), keys).cast(row_schema(store.card))


def make_unplaced_store(folder: Path, city_store: CityStore, *, photos: int = 6) -> Store:
    """Index some photos of the city under names and files that tell no position."""
    plain = folder / "unplaced"
    plain.mkdir()
    for number, path in enumerate(city_store.database[:photos]):
        (plain / f"{number}.jpg").write_bytes(path.read_bytes())
    return store_of(city_store, folder / "unplaced-store", features="float16", database=plain)
