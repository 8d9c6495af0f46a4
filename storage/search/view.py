"""One acknowledged version of a store and what has been loaded of it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.card import Card
from storage.commit.lease import Lease
from storage.commit.ledger import check_manifests, manifests, read_committed
from storage.commit.writer import Writer
from storage.errors import CorruptStore, InvalidBatch, StoreLocked, StoreNotFound
from storage.records import Candidate
from storage.search.searchers import (
    WHOLE,
    IndexSearcher,
    MemorySearcher,
    Method,
    Part,
    Searcher,
    read_good_rows,
)
from storage.table.checks import check_query
from storage.table.vectors import VectorTable

__all__ = ["View", "newest_view"]

_LANCE_INDEX_ROWS = 5_000  # below, reading every row is as fast as LanceDB's index


class View:
    """One version, opened and loaded when first needed; safe to share between threads.

    Attributes:
        version: Its number.
        count: How many rows it has, in all parts.
        part: Which of its rows are searched.
    """

    def __init__(self, folder: Path, card: Card, version: int, count: int, part: Part = WHOLE) -> None:
        """Look at a version that is acknowledged."""
        self.version = version
        self.count = count
        self.part = part
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

    def search(
        self, descriptors: npt.NDArray[np.float32], *, k: int, method: Method = "exact"
    ) -> list[list[Candidate]]:
        """Search this version; arguments, answer and errors as of `Store.search`."""
        if k < 1:
            raise InvalidBatch(f"k is {k}: ask for one candidate or more")
        return self.searcher(method).search(check_query(descriptors, self._card), k=k)

    def searcher(self, method: Method) -> Searcher:
        """Return the searcher of this version, building its index when first asked."""
        with self._lock:
            if method not in self._searchers:
                self._searchers[method] = self._build(method)
            return self._searchers[method]

    def _build(self, method: Method) -> Searcher:
        if method == "lance":
            # One index covers the whole table: the first part answers for all, the others have nothing.
            if self.part.number > 0:
                return MemorySearcher(self.table.schema.empty_table())
            return IndexSearcher(self._indexed_table())
        rows, left_out = read_good_rows(self.table, part=self.part)
        return MemorySearcher(rows, approximate=method == "ivf", degraded=left_out > 0)

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


def newest_view(folder: Path, card: Card, part: Part = WHOLE) -> View:
    """Return the newest acknowledged version.

    Args:
        folder: The store's.
        card: What made its vectors.
        part: Which of its rows to search.

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
    return View(folder, card, committed.version, committed.rows, part)
