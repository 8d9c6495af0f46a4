"""A snapshot of a store: one committed version and the indexes loaded of it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.card import Card
from storage.card_files import first_card
from storage.commit.current_card import card_of, check_table
from storage.commit.ledger import check_manifests, manifests
from storage.commit.pointed_version import pointed_version
from storage.errors import (
    CorruptStore,
    InvalidBatch,
    StoreNotFound,
    repair_command,
)
from storage.layout import check_table_files
from storage.objects.files import Location
from storage.records import Candidate
from storage.search.lance_searcher import LanceSearcher
from storage.search.living_searcher import LivingSearcher
from storage.search.loading import load_searcher, searcher_of_rows
from storage.search.methods import SearchMethod
from storage.search.partition import WHOLE_INDEX, Partition
from storage.search.row_filter import RowFilter
from storage.search.searcher import Searcher
from storage.table.checks import check_codes, check_query
from storage.table.open_table import Table, open_table

__all__ = ["LANCE_INDEX_ROWS", "Snapshot", "newest_snapshot"]

_log = logging.getLogger(__name__)

_IN_MEMORY_BYTES = 1 << 30  # of descriptors beside codes; larger ones stay on disk
_RECORDS_IN_MEMORY = 2_000_000  # rows; records of more, 0.3 GB per million, are read from disk
LANCE_INDEX_ROWS = 5_000  # below, reading every row is as fast as LanceDB's index


class Snapshot:
    """One committed version, opened and loaded on first use; safe to share between threads.

    Attributes:
        version: Its number.
        card: Its card.
        count: How many rows it has, in all partitions.
        partition: Which of its rows are searched.
    """

    def __init__(
        self,
        folder: Location,
        card: Card,
        version: int,
        count: int,
        partition: Partition = WHOLE_INDEX,
        *,
        former: Snapshot | None = None,
    ) -> None:
        """Use `newest_snapshot`, or give a version that is committed; `former` as there."""
        self.version = version
        self.count = count
        self.partition = partition
        self._folder = folder
        self.card = card
        self._table: Table | None = None
        self._searchers: dict[SearchMethod, Searcher] = {}
        self._former: dict[SearchMethod, Searcher] = {}
        if former is not None and former.partition == partition:
            # Of a version that nobody searched, what it would have been made from; no older ones are held.
            self._former = dict(former._searchers or former._former)
        self._lock = threading.Lock()

    @property
    def table(self) -> Table:
        """The table at this version."""
        if self._table is None:
            self._table = open_table(self._folder, version=self.version)
        return self._table

    @property
    def degraded(self) -> bool:
        """Whether a searcher had to leave damaged rows out."""
        return any(searcher.degraded for searcher in list(self._searchers.values()))

    def search(
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        method: SearchMethod = "exact",
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[list[Candidate]]:
        """Search this version; arguments, result and errors as in `Store.search`."""
        if k < 1:
            raise InvalidBatch(f"k is {k}: ask for one candidate or more")
        checked = check_query(descriptors, self.card)
        if method == "codes":
            codes = check_codes(codes, len(checked), self.card)
        return self._searcher(method).search(checked, k=k, codes=codes, within=within)

    def considered(self, within: RowFilter | None, method: SearchMethod = "exact") -> int:
        """Return how many of the rows that a search method searches a filter leaves."""
        return self._searcher(method).considered(within)

    def load(self, method: SearchMethod) -> None:
        """Build the index of a search method, which the first search would otherwise wait for."""
        self._searcher(method)

    def _searcher(self, method: SearchMethod) -> Searcher:
        with self._lock:
            if method not in self._searchers:
                self._searchers[method] = self._build(method)
            return self._searchers[method]

    def _build(self, method: SearchMethod) -> Searcher:
        if method == "codes" and self.card.code_bits is None:
            raise InvalidBatch(
                f"the store of {self.card.model} has no codes to search by: choose another search method"
            )
        former = self._former.pop(method, None)
        if isinstance(former, LivingSearcher):
            followed = former.followed(self.table, self.card)
            if followed is not None:
                return followed
        if method == "lance":
            # One index covers the whole table: the first partition searches it all, the others nothing.
            if self.partition.number > 0:
                return searcher_of_rows(self.table.schema.empty_table(), self.card)
            return self._on_disk()
        return load_searcher(
            self.table, self.card, self.partition, method, on_disk=self._leaves_records_on_disk(method)
        )

    def _leaves_records_on_disk(self, method: SearchMethod) -> bool:
        rows = self.count // self.partition.total
        if method == "codes":
            return rows * self.card.descriptor_dim * 2 > _IN_MEMORY_BYTES
        # A bucket answers too slowly to read a hundred records for each query.
        return isinstance(self._folder, Path) and rows > _RECORDS_IN_MEMORY

    def _on_disk(self) -> Searcher:
        if self.count >= LANCE_INDEX_ROWS and not self.table.has_index:
            _log.warning(
                "version %d of %s has no index for this search method: every row is read for each query; "
                "placeray build-index --store %s builds one",
                self.version,
                self._folder,
                self._folder,
            )
        return LanceSearcher(self.table, self.card)


def newest_snapshot(
    folder: Location,
    partition: Partition = WHOLE_INDEX,
    *,
    former: Snapshot | None = None,
    at: str | None = None,
) -> Snapshot:
    """Return the newest committed version, or one that a tag names, with its card.

    Args:
        folder: The store's folder.
        partition: Which of its rows to search.
        former: Another version, whose indexes those of this one are made from where that is possible.
        at: A tag.

    Raises:
        NoSuchVersion: there is no such tag.
        StoreNotFound: there is no store, or nothing was ever committed.
        CardMismatch: the store has a newer format.
        CorruptStore: the store cannot be read; no older version is used instead.
    """
    first = first_card(folder)
    committed = pointed_version(folder, at)
    if committed is None:
        if len(manifests(folder)) > 1:
            raise CorruptStore(f"{folder / 'COMMITTED'} is missing: {repair_command(folder)}")
        raise StoreNotFound(f"{folder}: creating this store was interrupted: run placeray index again")
    check_table_files(folder)
    check_manifests(folder, committed)
    newest = _head_version(folder)
    if newest is not None and newest < committed.version:
        raise CorruptStore(
            f"{folder}: the newest readable version is {newest}, but {committed.version} was "
            f"committed: {repair_command(folder)}"
        )
    card = card_of(folder, committed.card_sha256, first)
    snapshot = Snapshot(folder, card, committed.version, committed.rows, partition, former=former)
    check_table(snapshot.table, committed, card)
    return snapshot


def _head_version(folder: Location) -> int | None:
    """Return the head's number: a torn head, committed or not, must not go unnoticed in a folder.

    In a bucket no file is torn, and finding the head takes listings: the committed version is opened as such.
    """
    return open_table(folder).version if isinstance(folder, Path) else None
