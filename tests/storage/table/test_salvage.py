"""Salvage returns every readable row and counts the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest

from storage.errors import CorruptStore
from storage.table.salvage import readable_batches

SCHEMA = pa.schema([("row", pa.int64())])


class DamagedTable:
    """A table whose unreadable rows make every read that includes them fail, as LanceDB's do."""

    schema = SCHEMA

    def __init__(self, rows: int, unreadable: set[int]) -> None:
        self.rows, self.unreadable = rows, unreadable

    def count(self) -> int:
        return self.rows

    def scan(self) -> Iterator[pa.Table]:
        if self.rows:
            yield self.take(range(self.rows))

    def take(self, offsets: Sequence[int]) -> pa.Table:
        if self.unreadable & set(offsets):
            raise CorruptStore("damaged")
        return pa.table({"row": list(offsets)}, schema=SCHEMA)


@pytest.mark.parametrize("unreadable", [set(), {0}, {36}, {3, 4, 20}, set(range(37))])
def test_every_readable_row_is_returned_once_and_the_others_are_counted(unreadable: set[int]) -> None:
    batches = readable_batches(DamagedTable(37, unreadable))  # type: ignore[arg-type]
    rows = pa.concat_tables([batch for batch, _ in batches])["row"].to_pylist()
    assert rows == [row for row in range(37) if row not in unreadable]
    assert sum(count for _, count in batches) == len(unreadable)


def test_a_table_without_rows_has_one_empty_batch() -> None:
    assert [(len(batch), count) for batch, count in readable_batches(DamagedTable(0, set()))] == [(0, 0)]  # type: ignore[arg-type]
