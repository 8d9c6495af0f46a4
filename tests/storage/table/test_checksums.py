"""A row's CRC-32 covers every stored bit and never changes between releases."""

from __future__ import annotations

import itertools
import struct
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.table.checksums import add_checksums, row_crc32
from storage.table.schema import descriptor_matrix, optional_schema
from tests.support.store_samples import make_card, rows_of, with_column, with_value

IDS = [f"id{i}" for i in range(40)]
CHANGED: dict[str, Any] = {
    "image_id": "other",
    "uri": "other",
    "sha256": "other",
    "width": 1,
    "height": 1,
    "lat": 1.25,
    "lon": 1.25,
    "utm_e": 1.25,
    "utm_n": 1.25,
    "utm_zone": "1N",
    "heading_deg": 1.25,
    "captured_at": datetime(2001, 1, 1, tzinfo=UTC),
    "shard": "other",
    "row": 99,
}


def with_descriptors(rows: pa.Table, vectors: np.ndarray) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return with_column(rows, "descriptor", column)


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_row_crc32_changes_with_each_column(name: str) -> None:
    rows = rows_of(make_card(), IDS[:3])
    before = row_crc32(rows)
    after = row_crc32(with_value(rows, name, 1, CHANGED[name]))
    assert (after != before).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["lat", "lon", "utm_e", "utm_n", "utm_zone", "heading_deg", "captured_at"])
def test_row_crc32_tells_missing_from_zero(name: str) -> None:
    rows = rows_of(make_card(), IDS[:1])
    zero = {"utm_zone": "", "captured_at": datetime(1970, 1, 1, tzinfo=UTC)}.get(name, 0.0)
    assert row_crc32(with_value(rows, name, 0, None)) != row_crc32(with_value(rows, name, 0, zero))


def test_row_crc32_covers_every_bit_of_the_descriptor() -> None:
    rows = rows_of(make_card(), IDS[:1])
    before = int(row_crc32(rows)[0])
    vector = descriptor_matrix(rows).copy()
    for bit in range(vector.nbytes * 8):
        flipped = vector.copy()
        flipped.reshape(-1).view(np.uint8)[bit // 8] ^= 1 << bit % 8
        assert row_crc32(with_descriptors(rows, flipped))[0] != before, f"bit {bit}"


def test_row_crc32_covers_where_one_text_ends_and_the_next_begins() -> None:
    rows = rows_of(make_card(), IDS[:1])
    moved = with_value(with_value(rows, "uri", 0, "ab"), "sha256", 0, "c")
    other = with_value(with_value(rows, "uri", 0, "a"), "sha256", 0, "bc")
    assert row_crc32(moved) != row_crc32(other)


def test_row_crc32_is_the_same_for_slices_chunks_and_column_order() -> None:
    rows = rows_of(make_card(), IDS)
    whole = row_crc32(rows)
    assert whole[7:19].tolist() == row_crc32(rows.slice(7, 12)).tolist()
    assert whole.tolist() == row_crc32(pa.concat_tables([rows.slice(0, 9), rows.slice(9)])).tolist()
    assert whole.tolist() == row_crc32(rows.select(rows.column_names[::-1])).tolist()
    assert len(set(whole.tolist())) == len(IDS)
    assert len(row_crc32(rows.slice(0, 0))) == 0


OPTIONAL: dict[str, Any] = {"source": "/photos", "tags": '["a"]', "code": b"\x01\x02"}


def with_optional(rows: pa.Table, **values: Any) -> pa.Table:
    for field in optional_schema(make_card().upgraded()):
        column = pa.array([values.get(field.name)] * len(rows), field.type)
        rows = rows.append_column(field, column)
    return rows


def test_row_crc32_of_a_row_without_optional_values_is_that_of_the_older_formats() -> None:
    rows = rows_of(make_card(), IDS)
    assert row_crc32(with_optional(rows)).tolist() == row_crc32(rows).tolist()


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_row_crc32_covers_each_optional_value(name: str) -> None:
    rows = with_optional(rows_of(make_card(), IDS[:3]), **OPTIONAL)
    before = row_crc32(rows)
    empty = b"\0\0" if name == "code" else ""
    for value in (None, empty):
        after = row_crc32(with_value(rows, name, 1, value))
        assert (after != before).tolist() == [False, True, False]
    assert row_crc32(with_value(rows, name, 1, None))[1] != row_crc32(with_value(rows, name, 1, empty))[1]


def test_row_crc32_tells_source_from_tags() -> None:
    rows = rows_of(make_card(), IDS[:1])
    assert row_crc32(with_optional(rows, source="x")) != row_crc32(with_optional(rows, tags="x"))
    assert row_crc32(with_optional(rows, source="xy")) != row_crc32(with_optional(rows, source="x", tags="y"))


@pytest.mark.parametrize(
    ("format_version", "heading_deg", "expected"),
    [(1, None, 2603866295), (3, CHANGED["heading_deg"], 2116023556)],
)
def test_row_crc32_of_a_fixed_row_never_changes(
    format_version: int, heading_deg: float | None, expected: int
) -> None:
    """Stored checksums must hold in every later release."""
    vector = np.zeros((1, 16), np.float16)
    vector[0, 3] = 1
    rows = with_descriptors(rows_of(make_card(), ["id0"]), vector)
    if format_version == 3:
        rows = with_optional(rows, **OPTIONAL)
    for name, value in (CHANGED | {"heading_deg": heading_deg}).items():
        rows = with_value(rows, name, 0, value)
    assert row_crc32(rows)[0] == expected


def test_row_crc32_tells_what_made_the_descriptors() -> None:
    rows = rows_of(make_card(), IDS)
    sums = [row_crc32(rows, made_by) for made_by in (None, "a" * 64, "b" * 64)]
    assert not any((one == other).any() for one, other in itertools.combinations(sums, 2))
    assert row_crc32(rows[:1], "a" * 64)[0] == zlib.crc32(contents_of(rows[:1]), zlib.crc32(b"a" * 64))


def contents_of(rows: pa.Table) -> bytes:
    """Return the bytes of a row that its checksum covers, put together one by one."""
    [row] = rows.to_pylist()
    texts = ["image_id", "uri", "sha256", "utm_zone", "shard"]
    numbers = ["width", "height", "lat", "lon", "utm_e", "utm_n", "heading_deg", "captured_at", "row"]
    names = [*texts, *numbers, "descriptor"]
    missing = sum(1 << bit for bit, name in enumerate(names) if row[name] is None)
    head = struct.pack("<q", missing)
    head += b"".join(struct.pack("<q", len(row[name] or "")) for name in texts)
    for name in numbers:
        value = row[name]
        if name == "captured_at" and value is not None:
            value = int(value.timestamp() * 1e6)
        head += struct.pack("<d" if isinstance(value, float) else "<q", value or 0)
    vector = np.array(row["descriptor"], np.float16).tobytes()
    return head + vector + b"".join((row[name] or "").encode() for name in texts)


def test_add_checksums_notes_the_time() -> None:
    stored = add_checksums(rows_of(make_card(), IDS), make_card())
    ages = [datetime.now(UTC) - moment for moment in stored["indexed_at"].to_pylist()]
    assert timedelta(0) <= min(ages) <= max(ages) < timedelta(minutes=5)
