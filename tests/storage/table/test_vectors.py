"""The table: schema, checksums over every stored bit, exact round trips."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import CorruptStore, InvalidBatch
from storage.table.checks import check_query, check_rows
from storage.table.vectors import (
    VectorTable,
    add_checksums,
    descriptor_matrix,
    good_rows,
    manifest_name,
    row_crc32,
    row_schema,
    table_schema,
    to_records,
)
from tests.support.store_samples import descriptor_of, make_card, rows_of

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


def with_value(rows: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = rows[name].to_pylist()
    values[row] = value
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_table_stores_what_was_committed_bit_for_bit(
    tmp_path: Path, dtype: Literal["float16", "float32"]
) -> None:
    card = make_card(dtype=dtype)
    table = VectorTable.create(tmp_path, card)
    stored = add_checksums(rows_of(card, IDS))
    table.append(stored.slice(0, 25))
    table.upsert(stored.slice(20))
    found = pa.concat_tables(table.scan()).sort_by("image_id")
    assert found.schema.equals(table_schema(card))
    assert found.drop_columns(["indexed_at"]).equals(stored.sort_by("image_id").drop_columns(["indexed_at"]))
    assert len(good_rows(found)) == len(IDS)


def test_table_key_column_declares_itself_after_reopening(tmp_path: Path) -> None:
    VectorTable.create(tmp_path, make_card())
    field = VectorTable.open(tmp_path).take([]).schema.field("image_id")
    assert field.metadata == {b"lance-schema:unenforced-primary-key": b"true"}
    assert not field.nullable


def test_table_pinned_version_does_not_move(tmp_path: Path) -> None:
    card = make_card()
    table = VectorTable.create(tmp_path, card)
    table.append(add_checksums(rows_of(card, IDS[:5])))
    pinned = VectorTable.open(tmp_path, version=table.version)
    table.append(add_checksums(rows_of(card, IDS[5:])))
    assert (pinned.count(), table.count()) == (5, len(IDS))
    assert [version for version, _ in table.versions()] == [1, 2, 3]
    with pytest.raises(CorruptStore, match="version 9"):
        VectorTable.open(tmp_path, version=9)


def test_table_find_and_delete_take_any_text(tmp_path: Path) -> None:
    card = make_card()
    keys = ["plain", "it's", 'a"b', "ünï/çödé", "x); DROP", "%", "a\\b", "line\nbreak"]
    table = VectorTable.create(tmp_path, card)
    table.append(add_checksums(rows_of(card, keys)))
    for key in keys:
        assert table.find("image_id", [key], ["image_id"])["image_id"].to_pylist() == [key]
    assert len(table.find("image_id", [])) == 0
    table.delete(keys[1:])
    assert pa.concat_tables(table.scan(["image_id"]))["image_id"].to_pylist() == ["plain"]


def test_table_replace_all_keeps_earlier_versions_and_the_key(tmp_path: Path) -> None:
    card = make_card()
    table = VectorTable.create(tmp_path, card)
    table.append(add_checksums(rows_of(card, IDS)))
    kept = add_checksums(rows_of(card, IDS[:3]))
    table.replace_all(iter(kept.to_batches()), kept.schema)
    assert (table.version, table.count()) == (3, 3)
    assert VectorTable.open(tmp_path, version=2).count() == len(IDS)
    assert table.take([]).schema.field("image_id").metadata


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
        column = pa.FixedSizeListArray.from_arrays(pa.array(flipped.reshape(-1)), flipped.shape[1])
        at = rows.schema.get_field_index("descriptor")
        assert row_crc32(rows.set_column(at, rows.schema.field(at), column))[0] != before, f"bit {bit}"


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


def test_row_crc32_of_a_fixed_row_never_changes() -> None:
    """Stored checksums must hold in every later release."""
    rows = rows_of(make_card(), ["id0"])
    vector = np.zeros((1, 16), np.float16)
    vector[0, 3] = 1
    at = rows.schema.get_field_index("descriptor")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vector.reshape(-1)), 16)
    rows = rows.set_column(at, rows.schema.field(at), column)
    for name, value in CHANGED.items():
        rows = with_value(rows, name, 0, value)
    rows = with_value(rows, "heading_deg", 0, None)
    assert row_crc32(rows)[0] == 2603866295


def test_add_checksums_notes_the_time() -> None:
    stored = add_checksums(rows_of(make_card(), IDS))
    ages = [datetime.now(UTC) - moment for moment in stored["indexed_at"].to_pylist()]
    assert timedelta(0) <= min(ages) <= max(ages) < timedelta(minutes=5)


def test_to_records_returns_what_was_given() -> None:
    rows = rows_of(make_card(), IDS, shard="s")
    for record, values in zip(to_records(rows), rows.drop_columns(["descriptor"]).to_pylist(), strict=True):
        assert {name: getattr(record, name) for name in values} == values


def test_manifest_name_counts_down() -> None:
    assert manifest_name(1) == "18446744073709551614.manifest"


def bad_descriptor(kind: str) -> pa.Table:
    rows = rows_of(make_card(), IDS[:3])
    vectors = descriptor_matrix(rows).copy()
    vectors[1] = {"nan": np.nan, "inf": np.inf, "zero": 0, "long": vectors[1] * 2}[kind]
    at = rows.schema.get_field_index("descriptor")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return rows.set_column(at, rows.schema.field(at), column)


@pytest.mark.parametrize("kind", ["nan", "inf", "zero", "long"])
def test_check_rows_bad_descriptor_names_the_row(kind: str) -> None:
    with pytest.raises(InvalidBatch, match="id1"):
        check_rows(bad_descriptor(kind), make_card())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, None) for name in ("uri", "sha256", "width", "height", "descriptor", "shard", "row")],
        *[("image_id", ""), ("image_id", "id0"), ("row", -1), ("shard", "")],
        *[("lat", 91.0), ("lat", np.nan), ("lon", -181.0), ("utm_e", np.inf), ("heading_deg", np.nan)],
    ],
)
def test_check_rows_bad_value_raises(name: str, value: object) -> None:
    rows = rows_of(make_card(), IDS[:3])
    with pytest.raises(InvalidBatch):
        check_rows(with_value(rows, name, 1, value), make_card())


def test_check_rows_takes_any_column_order_and_refuses_other_columns() -> None:
    card = make_card()
    rows = rows_of(card, IDS[:3])
    assert check_rows(rows.select(rows.column_names[::-1]), card).schema.equals(row_schema(card))
    with pytest.raises(InvalidBatch, match="uri"):
        check_rows(rows.drop_columns(["uri"]), card)
    with pytest.raises(InvalidBatch, match="extra"):
        check_rows(rows.append_column("extra", pa.array([1, 2, 3])), card)
    with pytest.raises(InvalidBatch, match="type"):
        check_rows(rows_of(make_card(dim=8), IDS[:3]), card)


def test_check_query_refuses_what_cannot_be_searched() -> None:
    card = make_card()
    good = descriptor_of("a")[None]
    assert check_query(good.astype(np.float64), card).dtype == np.float32
    for bad in (
        good[0],
        good[:, :8],
        good * 0,
        good * 1.5,
        np.full_like(good, np.nan),
        good.astype(np.int64),
    ):
        with pytest.raises(InvalidBatch):
            check_query(bad, card)
