"""Reading the rows of a version: all of them, or those that another version does not have."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.errors import CorruptStore, repair_command
from storage.search.row_ledger import Changes, keys_of
from storage.table.checksums import checksums_match
from storage.table.fragments import ADDRESS, Fragments, offsets_of
from storage.table.open_table import Table
from storage.table.schema import STORED_COLUMNS

__all__ = ["rows_at", "stored_columns", "usable"]

_TAKEN = 8192  # rows at a time


def stored_columns(table: Table) -> list[str]:
    """Return the names of a version's columns, without what an unfinished replacement left."""
    return [name for name in table.schema.names if name in STORED_COLUMNS]


def usable(rows: pa.Table, card: Card, *, by_codes: bool) -> npt.NDArray[np.bool_]:
    """Return (N,) bool: which stored rows are intact and, for search by codes, have one."""
    if not len(rows):
        return np.zeros(0, bool)
    kept = checksums_match(rows, card)
    return kept & rows["code"].is_valid().to_numpy() if by_codes else kept


def rows_at(table: Table, fragments: Fragments, changes: Changes) -> pa.Table:
    """Return the new rows of a version with every column, in the order of `changes.addresses`.

    Raises:
        CorruptStore: they cannot be read, or are not those whose keys were read.
    """
    columns = stored_columns(table)
    parts = [part for run in _runs(changes.addresses) for part in _read(table, fragments, run, columns)]
    rows = pa.concat_tables(parts) if parts else table.take([], columns)
    found = keys_of(rows)
    if len(found) != len(changes.keys) or (found != changes.keys).any():
        raise CorruptStore(
            f"{table.folder}: rows of version {table.version} cannot be read: {repair_command(table.folder)}"
        )
    return rows


def _runs(addresses: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.uint64]]:
    """Return the addresses in pieces of one fragment each."""
    numbers = addresses >> np.uint64(32)
    bounds = [0, *(np.flatnonzero(np.diff(numbers.astype(np.int64))) + 1).tolist(), len(addresses)]
    return [addresses[start:stop] for start, stop in pairwise(bounds) if stop > start]


def _read(
    table: Table, fragments: Fragments, addresses: npt.NDArray[np.uint64], columns: list[str]
) -> Iterator[pa.Table]:
    """Yield rows of one fragment: from all of it, or one by one where they are few of many."""
    number = int(addresses[0] >> np.uint64(32))
    if 2 * len(addresses) >= len(fragments.by_number[number].places()):
        for batch in fragments.scan([number], columns):
            own = np.isin(np.asarray(batch[ADDRESS], np.uint64), addresses)
            yield batch.select(columns).filter(pa.array(own))
        return
    offsets = offsets_of(fragments.by_number, addresses)
    for at in range(0, len(offsets), _TAKEN):
        yield table.take(offsets[at : at + _TAKEN].tolist(), columns)
