"""Indexes a folder in this process, without Ray: for benchmarks over many small stores."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.aggregation.choice import with_aggregation
from models.aggregation.describer import Describer
from models.aggregation.start import starting_aggregation
from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.images.decoder import decode_image
from models.names import DEFAULT_MODEL
from models.weights import load_extractor
from pipelines.relearning import relearn_if_due
from pipelines.sources import list_source
from storage.features.encodings import FeatureCodec, default_encoding
from storage.features.shards import write_shard
from storage.store import Store
from storage.table.schema import row_schema

__all__ = ["index_once"]

_BATCH = 32


def index_once(source: Path, uri: Path) -> Store:
    """Return the store of a folder, indexed by the default model unless an earlier run has finished it."""
    done = uri.with_name(f"{uri.name}.done")
    if not done.exists():
        shutil.rmtree(uri, ignore_errors=True)
        _index(source, uri)
        done.touch()
    return Store.open(uri)


def _index(source: Path, uri: Path) -> None:
    """Index a folder into a new store as `placeray index` does, and learn its descriptors."""
    extractor = load_extractor(DEFAULT_MODEL)
    card = extractor.card.stored_as(default_encoding(extractor.card))
    chosen = starting_aggregation(FeatureCodec(card).channels)
    store = Store.create(uri, with_aggregation(card, chosen), artifacts=[chosen.to_bytes()])
    rows = list_source(source)
    with store.lease():
        for start in range(0, rows.num_rows, _BATCH):
            _commit(store, extractor, rows.slice(start, _BATCH))
        relearn_if_due(store)


def _commit(store: Store, extractor: Extractor, listing: pa.Table) -> None:
    datas = [Path(uri).read_bytes() for uri in listing["uri"].to_pylist()]
    photos = [decode_image(data) for data in datas]
    descriptors, features = extractor.extract([photo.pixels for photo in photos])
    descriptors = Describer(store.artifact, store.codec).describe(store.card, descriptors, features)
    ids = listing["image_id"].to_pylist()
    schema = row_schema(store.card)
    flat = pa.array(descriptors.reshape(-1).astype(np.float16))
    values = {
        "sha256": [hashlib.sha256(data).hexdigest() for data in datas],
        "width": [photo.pixels.shape[1] for photo in photos],
        "height": [photo.pixels.shape[0] for photo in photos],
        "descriptor": pa.FixedSizeListArray.from_arrays(flat, store.card.descriptor_dim),
        "shard": [write_shard(store.uri, ids, FeatureEncoder(store.codec).encode(features))] * len(ids),
        "row": list(range(len(ids))),
    }
    columns = {name: values[name] if name in values else listing[name] for name in schema.names}
    store.commit(pa.table(columns, schema=schema))
