"""What records are made of, read from the table on disk for the answers only."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.search.memory_rows import MemoryRows
from storage.search.row_filter import RowFilter
from storage.search.row_ledger import RowLedger
from storage.table.checksums import intact_rows
from storage.table.fragments import ADDRESS, Fragments
from storage.table.open_table import Table

__all__ = ["DiskRows"]


class DiskRows:
    """The rows of one version by their numbers; immutable but for what is kept. Threads may share it.

    The columns that filters have read are kept in memory.

    Attributes:
        degraded: Whether a damaged row was among those read so far; such rows are left out.
    """

    def __init__(self, table: Table, card: Card, ledger: RowLedger, kept: MemoryRows | None = None) -> None:
        """Read from this version.

        Args:
            table: The version.
            card: Its card.
            ledger: The numbers of its rows.
            kept: The columns that filters have read, of all rows of the ledger.
        """
        self._table, self._card, self._ledger, self._kept = table, card, ledger, kept
        self._offsets = ledger.offsets()
        self._lock = threading.Lock()
        self.degraded = False

    def take(self, ids: npt.NDArray[np.int64]) -> pa.Table:
        """Return the intact rows of these numbers with their descriptors, in any order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        found = self._table.take(np.sort(self._offsets[ids]).tolist())
        intact = intact_rows(found, self._card)
        self.degraded |= len(intact) < len(found)
        return intact

    def left(self, within: RowFilter) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows a filter leaves; of rows that are gone it means nothing.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        return self._columns_for(within).left(within)

    def followed(self, table: Table, card: Card, ledger: RowLedger, rows: pa.Table) -> DiskRows:
        """Return the rows of another version.

        Args:
            table: The version.
            card: Its card.
            ledger: The numbers of its rows: those of this ledger, then those of `rows`.
            rows: With every column.
        """
        kept = self._kept
        if kept is not None:
            present = [name for name in kept.schema.names if name in rows.column_names]
            kept = kept.grown(rows.select(present)) if len(present) == len(kept.schema) else None
        return DiskRows(table, card, ledger, kept)

    def _columns_for(self, within: RowFilter) -> MemoryRows:
        wanted = {*within.columns, *(("uri",) if "source" in within.columns else ())}
        wanted &= set(self._table.schema.names)
        with self._lock:
            if self._kept is None or not wanted <= set(self._kept.schema.names):
                names = sorted(wanted | set(self._kept.schema.names if self._kept else ()) or {"image_id"})
                self._kept = MemoryRows(self._read(names))
            return self._kept

    def _read(self, names: list[str]) -> pa.Table:
        """Read columns of all rows, in the order of their numbers; of rows that are gone, any row's."""
        fragments = Fragments(self._table, self._ledger.fragments)
        numbers = list(fragments.by_number)
        batches = list(fragments.scan(numbers, names))
        if not batches:
            return pa.schema([self._table.schema.field(name) for name in names]).empty_table()
        rows = pa.concat_tables(batches)
        addresses = np.asarray(rows[ADDRESS], np.uint64)
        order = np.argsort(addresses)
        at = np.searchsorted(addresses, self._ledger.addresses, sorter=order)
        places = order[np.minimum(at, len(order) - 1)]
        return rows.select(names).take(pa.array(places))
