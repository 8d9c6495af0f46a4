"""Rows that no writer of ours lets in are left out and reported, whatever their checksum."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.store import Store
from tests.support.hostile_stores import IDS, write_foreign_rows
from tests.support.store_samples import descriptor_of, make_rows, with_column, with_value


@pytest.mark.parametrize("column", ["shard", "row", "uri", "width"])
def test_rows_without_a_required_value_are_damaged_whatever_their_checksum(folder: Path, column: str) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    write_foreign_rows(folder, with_value(rows, column, 0, None))
    assert [row.image_id for row in verify_store(folder).bad_rows] == ["evil"]
    assert Store.open(folder).get(["evil"]) == []
    assert repair_store(folder).removed == ["evil"]
    assert verify_store(folder).ok


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("lat", float("nan")),
        ("lon", float("inf")),
        ("lat", 91.0),
        ("utm_e", float("-inf")),
        ("heading_deg", float("nan")),
        ("captured_at", pa.scalar(2**62, pa.timestamp("us", tz="UTC"))),
    ],
)
def test_rows_with_values_out_of_range_are_damaged_whatever_their_checksum(
    folder: Path, column: str, value: object
) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    write_foreign_rows(folder, with_value(rows, column, 0, value))
    store = Store.open(folder)
    assert store.get(["evil"]) == []
    assert "evil" not in {hit.record.image_id for hit in store.search(descriptor_of("evil")[None], k=5)[0]}
    assert repair_store(folder).removed == ["evil"]
    assert verify_store(folder).ok


@pytest.mark.parametrize(("column", "size"), [("source", 1 << 20), ("tags", 1 << 24)])
def test_rows_of_overlong_texts_are_damaged_whatever_their_checksum(
    folder: Path, column: str, size: int
) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    write_foreign_rows(folder, rows.append_column(column, pa.array(["x" * size], pa.string())))
    assert Store.open(folder).get(["evil"]) == []
    assert repair_store(folder).removed == ["evil"]
    assert verify_store(folder).ok


def test_rows_of_text_that_is_not_utf8_are_reported_and_taken_out(folder: Path) -> None:
    rows = make_rows(Store.open(folder), ["evil"])
    text = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    write_foreign_rows(folder, with_column(rows, "uri", text))
    assert not verify_store(folder).ok
    repair_store(folder)
    assert verify_store(folder).ok
    assert Store.open(folder).count == len(IDS)
