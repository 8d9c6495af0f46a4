"""Conversion of rows to records."""

from __future__ import annotations

from storage.table.schema import to_records
from tests.support.store_samples import make_card, rows_of

IDS = [f"id{i}" for i in range(40)]


def test_to_records_returns_the_input() -> None:
    rows = rows_of(make_card(), IDS, shard="s")
    for record, values in zip(to_records(rows), rows.drop_columns(["descriptor"]).to_pylist(), strict=True):
        assert {name: getattr(record, name) for name in values} == values
