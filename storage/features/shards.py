"""Writing shards of local features: one Parquet file per batch, one row group per image, checksummed pages.

`storage.features.reader` reads them.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

from storage.durable import explain_write_errors, flush
from storage.errors import CorruptStore, InvalidBatch
from storage.fault_points import fault_point
from storage.features.row_table import ROW_TABLE_KEY, pack_row_table
from storage.layout import FEATURES_FOLDER, shard_file_name
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location
from storage.objects.location import open_location
from storage.regular_files import open_regular

__all__ = [
    "file_crc32",
    "shard_intact",
    "shard_path",
    "write_shard",
]

_CHUNK_BYTES = 1 << 22


def shard_path(folder: Location, shard: str) -> Location:
    """Return the path of a shard in the store in `folder`.

    Raises:
        CorruptStore: the name is not one that `write_shard` could have given.
    """
    return folder / FEATURES_FOLDER / shard_file_name(shard)


def file_crc32(path: Location) -> str:
    """Return the CRC-32 of a whole file as eight hex digits.

    Raises:
        OSError: it cannot be read.
    """
    crc = 0
    if isinstance(path, BucketPath):
        at = 0
        while chunk := path.objects.get_range(path.key, at, _CHUNK_BYTES):
            crc, at = crc32(chunk, crc), at + len(chunk)
        return f"{crc:08x}"
    with os.fdopen(open_regular(path), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = crc32(chunk, crc)
    return f"{crc:08x}"


def shard_intact(folder: Location, shard: str) -> bool:
    """Return whether every byte of a shard is as it was written."""
    try:
        return shard.endswith(f"-{file_crc32(shard_path(folder, shard))}")
    except (OSError, CorruptStore):
        return False


def write_shard(store_uri: str, image_ids: Sequence[str], rows: np.ndarray) -> str:
    """Write the encoded local features of a batch durably.

    The file gets its name only when it is complete and on disk. The name ends in the CRC-32 of the file, so
    that damage to any byte can be detected, also outside the checksummed pages.

    Args:
        store_uri: Folder of the store.
        image_ids: B keys, in the order of `rows`.
        rows: (B, row_bytes) uint8, as encoded by the store's codec.

    Returns:
        The shard's name; its rows are numbered in the order of `image_ids`.

    Raises:
        InvalidBatch: the rows have another shape or type, or there are none.
        OutOfSpace: the disk is full; nothing is left of the shard.
        NotWritable: the file system is read-only, or the folder is another user's.
    """
    if rows.ndim != 2 or rows.dtype != np.uint8 or len(rows) != len(image_ids) or not rows.size:
        raise InvalidBatch(
            f"{len(image_ids)} image ids with rows of shape {rows.shape} and type {rows.dtype}: encode them "
            "with the store's codec and give one row per image"
        )
    location = open_location(store_uri)
    rows = np.ascontiguousarray(rows)
    table = _as_table(image_ids, rows)
    name = uuid.uuid4().hex
    if isinstance(location, BucketPath):
        return _put(location, name, table, rows)
    folder = location / FEATURES_FOLDER
    temporary = folder / f".{name}.tmp"
    try:
        with explain_write_errors(temporary, rows.size):
            with pa.OSFile(str(temporary), "wb") as file:
                _write_rows(file, table, rows)
            flush(temporary)
            name = f"{name}-{file_crc32(temporary)}"
            fault_point("before_shard")
            os.rename(temporary, folder / shard_file_name(name))
            flush(folder)
    finally:
        with contextlib.suppress(OSError):  # a read-only file system
            temporary.unlink()
    fault_point("after_shard")
    return name


def _as_table(image_ids: Sequence[str], rows: np.ndarray) -> pa.Table:
    flat, width = rows.reshape(-1), rows.shape[1]
    return pa.table(
        {
            "image_id": pa.array(image_ids, pa.string()),
            "features": pa.Array.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(flat)]),
        },
        # Without nulls a page consists of the values alone, which `storage.features.reader` relies on.
        schema=pa.schema(
            [
                pa.field("image_id", pa.string(), nullable=False),
                pa.field("features", pa.binary(width), nullable=False),
            ]
        ),
    )


def _put(location: BucketPath, name: str, table: pa.Table, rows: np.ndarray) -> str:
    """Build a shard in memory and write it as one object; nothing is visible until all of it is."""
    buffer = pa.BufferOutputStream()
    _write_rows(buffer, table, rows)
    data = memoryview(buffer.getvalue())
    name = f"{name}-{crc32(data):08x}"
    fault_point("before_shard")
    path = location / FEATURES_FOLDER / shard_file_name(name)
    path.objects.put(path.key, data)
    fault_point("after_shard")
    return name


def _write_rows(file: Any, table: pa.Table, rows: np.ndarray) -> None:
    with pq.ParquetWriter(
        file,
        table.schema,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        starts = []
        for row in range(len(table)):
            writer.write_table(table.slice(row, 1))
            starts.append(file.tell() - rows.shape[1])  # the features are written last
        entry = pack_row_table(table["image_id"].to_pylist(), starts, rows)
        writer.add_key_value_metadata({ROW_TABLE_KEY.decode(): entry.decode()})
