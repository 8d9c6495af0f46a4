"""Shards of local features: one Parquet file a batch, one row group an image, every page checksummed.

Written here, read by `storage.feature_reader`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

from storage.card import Card
from storage.durable import fault_point, flush, local_folder, name_full_disk
from storage.encodings import open_codec
from storage.errors import InvalidBatch

__all__ = [
    "FEATURES_FOLDER",
    "file_crc32",
    "shard_intact",
    "shard_path",
    "write_encoded_shard",
    "write_shard",
]

FEATURES_FOLDER = "features"
_CHUNK_BYTES = 1 << 22


def shard_path(folder: Path, shard: str) -> Path:
    """Return where a shard lies in the store at `folder`."""
    return folder / FEATURES_FOLDER / f"{shard}.parquet"


def file_crc32(path: Path) -> str:
    """Return the CRC-32 of a whole file as eight hex digits."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = crc32(chunk, crc)
    return f"{crc:08x}"


def shard_intact(folder: Path, shard: str) -> bool:
    """Return whether every byte of a shard is as it was written."""
    try:
        return shard.endswith(f"-{file_crc32(shard_path(folder, shard))}")
    except OSError:
        return False


def write_shard(store_uri: str, image_ids: Sequence[str], features: np.ndarray) -> str:
    """Encode the local features of a batch as the store's card says, and write them.

    Args:
        store_uri: Folder of the store. Without a card in it the features are kept as they are.
        image_ids: B keys, in the order of `features`.
        features: (B, H, W, C) float16.

    Returns:
        As `write_encoded_shard`.

    Raises:
        InvalidBatch: the arguments do not fit together or the card, or a feature is not finite.
        OutOfSpace: the disk is full; nothing is left of the shard.
        CorruptStore: the card or the projection that it names cannot be read.
    """
    if (
        features.ndim != 4
        or features.dtype != np.float16
        or len(features) != len(image_ids)
        or not len(features)
    ):
        raise InvalidBatch(
            f"{len(image_ids)} image ids with features of shape {features.shape} and type {features.dtype}: "
            "give one (H, W, C) float16 grid an image"
        )
    folder = local_folder(store_uri)
    try:
        card = Card.from_json((folder / "card.json").read_text(errors="replace"))
    except FileNotFoundError:
        card = None
    if card is not None and card.feature_encoding != "float16":
        return write_encoded_shard(store_uri, image_ids, open_codec(folder, card).encode(features))
    if not np.isfinite(features).all():
        raise InvalidBatch("local features hold NaN or infinity: check the model that made them")
    flat = np.ascontiguousarray(features).reshape(len(features), -1)
    return write_encoded_shard(store_uri, image_ids, flat.view(np.uint8))


def write_encoded_shard(store_uri: str, image_ids: Sequence[str], rows: np.ndarray) -> str:
    """Write the encoded local features of a batch so that they survive a power cut.

    The file appears under its name only when it is whole and on disk. The name ends in the CRC-32 of the
    file, so that damage to any byte of it can be found, also outside the checksummed pages.

    Args:
        store_uri: Folder of the store.
        image_ids: B keys, in the order of `rows`.
        rows: (B, row_bytes) uint8, as the store's codec makes them.

    Returns:
        The shard's name; its rows are numbered in the order of `image_ids`.

    Raises:
        InvalidBatch: another number of ids than of rows.
        OutOfSpace: the disk is full; nothing is left of the shard.
    """
    if len(rows) != len(image_ids) or not len(rows):
        raise InvalidBatch(f"{len(image_ids)} image ids with {len(rows)} rows: give one row an image")
    folder = local_folder(store_uri) / FEATURES_FOLDER
    name = uuid.uuid4().hex
    temporary = folder / f".{name}.tmp"
    flat = np.ascontiguousarray(rows).reshape(-1)
    width = flat.size // len(rows)
    table = pa.table(
        {
            "image_id": pa.array(image_ids, pa.string()),
            "features": pa.Array.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(flat)]),
        },
        # Without missing values a page is nothing but the values, which `storage.feature_reader` relies on.
        schema=pa.schema(
            [
                pa.field("image_id", pa.string(), nullable=False),
                pa.field("features", pa.binary(width), nullable=False),
            ]
        ),
    )
    try:
        with name_full_disk(shard_path(folder.parent, name), flat.size):
            pq.write_table(
                table,
                temporary,
                row_group_size=1,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
                store_schema=False,
            )
            flush(temporary)
            name = f"{name}-{file_crc32(temporary)}"
            fault_point("before_shard")
            os.rename(temporary, shard_path(folder.parent, name))
            flush(folder)
    finally:
        temporary.unlink(missing_ok=True)
    fault_point("after_shard")
    return name
