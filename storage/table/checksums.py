"""A CRC-32 per row over everything stored of it."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.card import Card
from storage.table.schema import NUMBER_COLUMNS, OPTIONAL_COLUMNS, TEXT_COLUMNS, descriptor_matrix

__all__ = ["MAX_BYTES", "add_checksums", "checksums_match", "intact_rows", "row_crc32"]

_REQUIRED = ("image_id", "uri", "sha256", "width", "height", "descriptor", "shard", "row")
MAX_BYTES = {"source": 1 << 13, "tags": 1 << 16}
_FINITE = (-1e300, 1e300)
_RANGES: dict[str, tuple[float, float]] = {
    "lat": (-90, 90),
    "lon": (-180, 180),
    "utm_e": _FINITE,
    "utm_n": _FINITE,
    "heading_deg": _FINITE,
    "captured_at": (-62_135_596_800_000_000, 253_402_300_799_999_999),  # the years 1 to 9999 of datetime
}


def row_crc32(rows: pa.Table, aggregation_sha256: str | None = None) -> npt.NDArray[np.uint32]:
    """Return one CRC-32 per row over every stored column but `crc32` and `indexed_at`.

    The canonical encoding of a row, little-endian: a bit set for each missing value, the byte length of each
    text, each number in eight bytes (zero when missing), the descriptor's bytes, then the texts. An optional
    column that has a value adds its number, the value's byte length, and the value; without one it adds
    nothing, so a row of format 1 or 2 keeps its checksum in a table that gained columns.

    Args:
        rows: Stored rows, or rows to store.
        aggregation_sha256: What made the descriptors, see `Card`: the checksum begins with it, so that rows
            of another aggregation than the version's count as damaged.

    Returns:
        (N,) uint32.
    """
    texts = [pc.fill_null(rows[name].cast(pa.binary()), b"") for name in TEXT_COLUMNS]
    head = np.zeros((len(rows), 1 + len(TEXT_COLUMNS) + len(NUMBER_COLUMNS)), dtype="<i8")
    for bit, name in enumerate((*TEXT_COLUMNS, *NUMBER_COLUMNS, "descriptor")):
        head[:, 0] |= rows[name].is_null().to_numpy().astype(np.int64) << bit
    for at, text in enumerate(texts, start=1):
        head[:, at] = pc.binary_length(text).to_numpy()
    for at, name in enumerate(NUMBER_COLUMNS, start=1 + len(TEXT_COLUMNS)):
        column = rows[name]
        if pa.types.is_floating(column.type):
            head[:, at] = pc.fill_null(column, 0.0).to_numpy().astype("<f8", copy=False).view("<i8")
        else:
            head[:, at] = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    vectors = np.ascontiguousarray(descriptor_matrix(rows)).view(np.uint8)
    packed = np.concatenate([head.view(np.uint8).reshape(len(rows), 8 * head.shape[1]), vectors], axis=1)
    width, data = packed.shape[1], packed.reshape(-1).data
    joined = pc.binary_join_element_wise(*texts, *_optional_values(rows), b"").to_pylist()
    start = zlib.crc32((aggregation_sha256 or "").encode())
    sums = [
        zlib.crc32(text, zlib.crc32(data[i * width : (i + 1) * width], start))
        for i, text in enumerate(joined)
    ]
    return np.array(sums, dtype=np.uint32)


def _optional_values(rows: pa.Table) -> list[pa.ChunkedArray]:
    """Return the optional columns as bytes that tell column and length; empty where a value is missing."""
    columns = []
    for number, name in enumerate(OPTIONAL_COLUMNS):
        if name not in rows.column_names or rows[name].null_count == len(rows):
            continue
        values = rows[name].cast(pa.binary())
        head = np.empty(len(rows), np.dtype([("number", "u1"), ("length", "<u8")]))
        head["number"], head["length"] = number, pc.fill_null(pc.binary_length(values), 0).to_numpy()
        heads = pa.Array.from_buffers(pa.binary(9), len(rows), [None, pa.py_buffer(head)]).cast(pa.binary())
        joined = pc.binary_join_element_wise(heads, values, b"")  # missing where a value is
        columns.append(pc.fill_null(joined, b""))
    return columns


def add_checksums(rows: pa.Table, card: Card) -> pa.Table:
    """Return `rows` with the columns `crc32` and `indexed_at` (now)."""
    now = pa.array([datetime.now(UTC)] * len(rows), pa.timestamp("us", tz="UTC"))
    rows = rows.append_column(
        pa.field("crc32", pa.uint32()), pa.array(row_crc32(rows, card.aggregation_sha256))
    )
    return rows.append_column(pa.field("indexed_at", pa.timestamp("us", tz="UTC")), now)


def checksums_match(rows: pa.Table, card: Card) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: whether each stored row matches its checksum and has what every row must have."""
    recorded = rows["crc32"]
    matches = np.asarray(
        (row_crc32(rows, card.aggregation_sha256) == recorded.fill_null(0).to_numpy())
        & recorded.is_valid().to_numpy()
    )
    return matches & _well_formed(rows)


def _well_formed(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: False for rows that no writer of ours lets in, whoever made their checksum.

    A required value is missing, or a number or time is out of range. Text that is not UTF-8 LanceDB refuses.
    """
    ok = np.ones(len(rows), bool)
    for name in _REQUIRED:
        if rows[name].null_count:
            ok &= rows[name].is_valid().to_numpy()
    for name, (lowest, highest) in _RANGES.items():
        column = rows[name]
        if not pa.types.is_floating(column.type):
            column = column.cast(pa.int64())
        values = pc.fill_null(column, 0).to_numpy()
        ok &= (values >= lowest) & (values <= highest)  # False for NaN
    for name, longest in MAX_BYTES.items():
        if name in rows.column_names:
            ok &= pc.fill_null(pc.binary_length(rows[name]), 0).to_numpy() <= longest
    return ok


def intact_rows(rows: pa.Table, card: Card) -> pa.Table:
    """Return the stored rows that match their checksum."""
    matches = checksums_match(rows, card)
    return rows if matches.all() else rows.filter(pa.array(matches))
