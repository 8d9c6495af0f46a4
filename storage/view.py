"""One acknowledged version of a store and what has been loaded of it."""

from __future__ import annotations

import threading
from pathlib import Path

from storage.card import Card
from storage.errors import CorruptStore, StoreLocked, StoreNotFound
from storage.lease import Lease
from storage.ledger import check_manifests, manifests, read_committed
from storage.search import IndexSearcher, MemorySearcher, Method, Searcher, read_good_rows
from storage.vectors import VectorTable
from storage.writer import Writer

__all__ = ["View", "newest_view"]

_LANCE_INDEX_ROWS = 5_000  # below, reading every row is as fast as LanceDB's index


class View:
    """One version, opened and loaded when first needed; safe to share between threads.

    Attributes:
        version: Its number.
        count: How many rows it has.
    """

    def __init__(self, folder: Path, card: Card, version: int, count: int) -> None:
        """Look at a version that is acknowledged."""
        self.version = version
        self.count = count
        self._folder = folder
        self._card = card
        self._table: VectorTable | None = None
        self._searchers: dict[Method, Searcher] = {}
        self._lock = threading.Lock()

    @property
    def table(self) -> VectorTable:
        """The table at this version."""
        if self._table is None:
            self._table = VectorTable.open(self._folder, version=self.version)
        return self._table

    @property
    def degraded(self) -> bool:
        """Whether a searcher had to leave rows out."""
        return any(searcher.degraded for searcher in list(self._searchers.values()))

    def searcher(self, method: Method) -> Searcher:
        """Return the searcher of this version, building its index when first asked."""
        with self._lock:
            if method not in self._searchers:
                self._searchers[method] = self._build(method)
            return self._searchers[method]

    def _build(self, method: Method) -> Searcher:
        if method == "lance":
            return IndexSearcher(self._indexed_table())
        rows, left_out = read_good_rows(self.table)
        return MemorySearcher(rows, approximate=method == "hnsw", degraded=left_out > 0)

    def _indexed_table(self) -> VectorTable:
        """Return a table of the same rows, with LanceDB's index where it pays and no writer is at work."""
        if self.count < _LANCE_INDEX_ROWS or self.table.has_index:
            return self.table
        try:
            with Lease(self._folder) as lease:
                writer = Writer(self._folder, self._card, lease)
                if writer.committed.version != self.version:
                    return self.table
                committed = writer.change(writer.table.build_index)
        except StoreLocked:
            return self.table  # every row is read instead, until the view moves on
        return VectorTable.open(self._folder, version=committed.version)


def newest_view(folder: Path, card: Card) -> View:
    """Return the newest acknowledged version.

    Raises:
        StoreNotFound: nothing was ever acknowledged.
        CorruptStore: what is on disk cannot be read; an older version is never taken instead.
    """
    committed = read_committed(folder)
    if committed is None:
        if len(manifests(folder)) > 1:
            raise CorruptStore(
                f"{folder / 'COMMITTED'} is gone: run placeray verify --store {folder} --repair"
            )
        raise StoreNotFound(f"{folder}: making this store was interrupted: run placeray index again")
    check_manifests(folder, committed)
    newest = VectorTable.open(folder)  # a torn head, acknowledged or not, must not pass unnoticed
    if newest.version < committed.version:
        raise CorruptStore(
            f"{folder}: the newest version that can be read is {newest.version}, acknowledged was "
            f"{committed.version}: run placeray verify --store {folder} --repair"
        )
    return View(folder, card, committed.version, committed.rows)
