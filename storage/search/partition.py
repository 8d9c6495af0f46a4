"""Partitions of a store's rows, for an index that is spread over several processes."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import pyarrow as pa

from storage.card import Card
from storage.table.checksums import intact_rows
from storage.table.open_table import Table
from storage.table.salvage import readable_batches

__all__ = ["WHOLE_INDEX", "Partition", "read_partition", "rows_in"]


class Partition(NamedTuple):
    """The rows whose key's CRC-32, modulo `total`, is `number`."""

    number: int
    total: int


WHOLE_INDEX = Partition(0, 1)


def read_partition(table: Table, card: Card, partition: Partition = WHOLE_INDEX) -> tuple[pa.Table, int]:
    """Read the rows of a partition, without those that are damaged or cannot be read.

    Args:
        table: The version to read.
        card: Its card.
        partition: Which rows to return.

    Returns:
        The rows with every column, and how many rows of the whole version are damaged or unreadable.
    """
    batches, damaged = [], 0
    for batch, unreadable in readable_batches(table):
        intact = intact_rows(batch, card)
        damaged += unreadable + len(batch) - len(intact)
        batches.append(rows_in(partition, intact))
    return pa.concat_tables(batches), damaged


def rows_in(partition: Partition, rows: pa.Table) -> pa.Table:
    """Return those of `rows` that belong to a partition."""
    if partition.total == 1:
        return rows
    keys = rows["image_id"].to_pylist()
    inside = [zlib.crc32(key.encode()) % partition.total == partition.number for key in keys]
    return rows.filter(pa.array(inside, pa.bool_()))
