"""Reading as many rows as possible from a table with damaged data files."""

from __future__ import annotations

import pyarrow as pa

from storage.errors import CorruptStore
from storage.table.open_table import Table

__all__ = ["readable_batches"]


def readable_batches(table: Table) -> list[tuple[pa.Table, int]]:
    """Return the rows that can be read, in batches, each with the number of unreadable rows next to it.

    Checksums are not compared: the rows of a readable batch may still be damaged, see `intact_rows`.
    """
    try:
        batches = list(table.scan())
        return [(batch, 0) for batch in batches] or [(table.schema.empty_table(), 0)]
    except CorruptStore:
        return _bisect(table, 0, table.count())


def _bisect(table: Table, start: int, stop: int) -> list[tuple[pa.Table, int]]:
    """Read rows start..stop, halving the range around what cannot be read."""
    try:
        return [(table.take(range(start, stop)), 0)]
    except CorruptStore:
        if stop - start <= 1:
            return [(table.schema.empty_table(), stop - start)]
        middle = (start + stop) // 2
        return _bisect(table, start, middle) + _bisect(table, middle, stop)
