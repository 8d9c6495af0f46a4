"""Search in memory in one version of a store, which becomes search in the next without building it again.

New rows join the index at once, rows that are gone are left out, and what takes time is done aside. Versions
share descriptors, codes and records. Where LanceDB only moved rows, nothing changes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.errors import CorruptStore, InvalidBatch
from storage.records import Candidate
from storage.search.aside import Aside
from storage.search.descriptor_blocks import DescriptorBlocks
from storage.search.disk_rows import DiskRows
from storage.search.half_precision import widened
from storage.search.memory_rows import MemoryRows
from storage.search.ranking import rank_rows
from storage.search.row_filter import RowFilter
from storage.search.row_ledger import Changes, RowLedger
from storage.search.vector_index import Mask, VectorIndex
from storage.search.version_rows import rows_at, usable
from storage.table.fragments import Fragment, Fragments
from storage.table.open_table import Table
from storage.table.schema import code_matrix, descriptor_matrix

__all__ = ["RERANKED", "LivingSearcher"]

RERANKED = 100  # candidates by codes at least that are ordered by their descriptors
_KEPT_MASKS = 8
_FEW_ROWS = 4096  # with so few numbers those of rows that are gone do not matter


class LivingSearcher:
    """Searches one version; safe to share between threads.

    Attributes:
        count: How many rows it searches.
        by_codes: Whether the nearest are found by codes, to be ordered by descriptor.
    """

    def __init__(
        self,
        index: VectorIndex,
        rows: MemoryRows | DiskRows,
        card: Card,
        *,
        ledger: RowLedger | None = None,
        damaged: npt.NDArray[np.uint64] | None = None,
        degraded: bool = False,
        by_codes: bool = False,
        descriptors: DescriptorBlocks | None = None,
        aside: Aside[VectorIndex] | None = None,
    ) -> None:
        """Search what is loaded; see `storage.search.loading`.

        Args:
            index: Of all rows that the ledger numbers.
            rows: Their records.
            card: Of the version.
            ledger: Which rows the version has. Without one all of them, and no other version can follow.
            damaged: Addresses of the rows that had to be left out.
            degraded: Whether rows had to be left out, where their addresses are not known.
            by_codes: Whether the index is of codes.
            descriptors: Beside codes, unless they are read from disk with the records.
            aside: An extended index in the making, of one that this one has grown from.
        """
        self._index, self._rows, self._card = index, rows, card
        self._ledger, self._aside = ledger, aside
        self._damaged = np.empty(0, np.uint64) if damaged is None else damaged
        self._degraded = degraded or len(self._damaged) > 0
        self.by_codes, self._descriptors = by_codes, descriptors
        alive = np.ones(index.count, bool) if ledger is None else ledger.alive
        self.count = int(alive.sum())
        self._alive: Mask | None = None if self.count == len(alive) else alive
        self._masks: OrderedDict[RowFilter, tuple[Mask, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def degraded(self) -> bool:
        """Whether rows had to be left out because they are damaged."""
        return self._degraded or (isinstance(self._rows, DiskRows) and self._rows.degraded)

    @property
    def recall(self) -> float:
        """Recall of the index against exact search, measured on its own rows."""
        return self._index.recall

    def search(
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[list[Candidate]]:
        """Return up to k candidates per query, best first by similarity, ties by image_id.

        By codes, the nearest by Hamming distance, at least 100, are ordered by the cosine similarity of their
        descriptors; the Hamming distance is then dropped.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query.
            codes: (B, code_bits / 8) uint8, for search by codes.
            within: Which rows may be found; default: all.

        Raises:
            CorruptStore: records are on disk, and cannot be read.
        """
        allowed, count = self._left(within)
        if not count or not len(descriptors):
            return [[] for _ in descriptors]
        queries: npt.NDArray[Any] = _given(codes, len(descriptors)) if self.by_codes else descriptors
        wanted = min(max(k, RERANKED) if self.by_codes else k, count)
        nearest = self._newest_index().search(queries, wanted, allowed)
        return [
            self._ranked(query, ids[ids >= 0], k) for query, ids in zip(descriptors, nearest, strict=True)
        ]

    def considered(self, within: RowFilter | None) -> int:
        """Return how many rows a filter leaves; all of them without one.

        Raises:
            CorruptStore: the columns that it reads are on disk, and cannot be read.
        """
        return self._left(within)[1]

    def followed(self, table: Table, card: Card) -> LivingSearcher | None:
        """Return a searcher of another version, made of this one and what differs.

        Args:
            table: The version.
            card: Its card.

        Returns:
            None where it must be loaded as a whole: its descriptors were made otherwise, it has other
            columns, most rows are others, or files are damaged.
        """
        if self._ledger is None or not _alike(self._card, card):
            return None
        try:
            fragments = Fragments(table, self._ledger.fragments)
            changes = self._ledger.changes(fragments)
            numbers = len(self._ledger.alive) + len(changes.addresses)
            rows_after = self.count - changes.removed + len(changes.addresses)
            if numbers > _FEW_ROWS and 2 * rows_after < numbers:
                return None
            return self._changed(table, card, changes, rows_at(table, fragments, changes))
        except CorruptStore:
            return None

    @property
    def extending(self) -> bool:
        """Whether further rows are being taken into the index, aside."""
        return self._aside is not None

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is done aside; return whether that is so."""
        aside = self._aside
        done = aside is None or aside.wait(timeout_s)
        self._newest_index()
        return done

    def _changed(self, table: Table, card: Card, changes: Changes, rows: pa.Table) -> LivingSearcher | None:
        assert self._ledger is not None
        kept = usable(rows, card, by_codes=self.by_codes)
        ledger, new = self._ledger.changed(changes, kept), rows.filter(pa.array(kept))
        with self._lock:
            index, aside = self._index, self._aside
        records: MemoryRows | DiskRows
        if isinstance(self._rows, DiskRows):
            records = self._rows.followed(table, card, ledger, new)
        elif len(new):
            columns = [name for name in new.column_names if name in self._rows.schema.names]
            if len(columns) < len(self._rows.schema):
                return None
            records = self._rows.grown(new.select(columns))
        else:
            records = self._rows
        descriptors = self._descriptors
        if len(new):
            index = index.grown(code_matrix(new) if self.by_codes else descriptor_matrix(new))
            descriptors = None if descriptors is None else descriptors.grown(descriptor_matrix(new))
        damaged = np.concatenate([_present(self._damaged, changes.fragments), changes.addresses[~kept]])
        after = LivingSearcher(
            *(index, records, card),
            ledger=ledger,
            damaged=damaged,
            by_codes=self.by_codes,
            descriptors=descriptors,
            aside=aside,
        )
        after._extend_if_due()
        return after

    def _extend_if_due(self) -> None:
        """Start to take further rows in, aside, unless that is being done."""
        index = self._newest_index()
        assert self._ledger is not None
        alive = self._ledger.alive
        if self._aside is None and index.extension_due(alive):
            self._aside = Aside(lambda: index.extended(alive), what="extending the index")

    def _newest_index(self) -> VectorIndex:
        """Return the index, with what was done aside meanwhile."""
        aside = self._aside
        if aside is None or not aside.done:
            return self._index
        with self._lock:
            if self._aside is aside:
                extended = aside.result
                if extended is not None and extended.count <= self._index.count:
                    self._index = extended.joined(self._index)
                self._aside = None
        return self._index

    def _left(self, within: RowFilter | None) -> tuple[Mask | None, int]:
        """Return which rows may be found, None for all, and how many they are."""
        if within is None:
            return self._alive, self.count
        found = self._masks.get(within)
        if found is None:
            mask = self._rows.left(within)
            if self._alive is not None:
                mask = mask & self._alive
            found = self._masks[within] = (mask, int(mask.sum()))
            if len(self._masks) > _KEPT_MASKS:
                self._masks.pop(next(iter(self._masks)), None)
        return found

    def _ranked(self, query: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int) -> list[Candidate]:
        rows = self._rows.take(ids)
        if isinstance(self._rows, DiskRows):
            return rank_rows(rows, widened(descriptor_matrix(rows)), query, k)
        source: Any = self._index if self._descriptors is None else self._descriptors
        return rank_rows(rows, source.reconstruct(ids), query, k)


def _alike(card: Card, other: Card) -> bool:
    """Return whether descriptors and codes of two cards can be searched together."""
    names = ("aggregation_sha256", "descriptor_dim", "descriptor_dtype", "code_bits", "weights_sha256")
    return all(getattr(card, name) == getattr(other, name) for name in names)


def _present(addresses: npt.NDArray[np.uint64], fragments: dict[int, Fragment]) -> npt.NDArray[np.uint64]:
    """Return those of some addresses that a version still has."""
    kept = [
        address
        for address in addresses.tolist()
        if (fragment := fragments.get(address >> 32)) is not None
        and address & (2**32 - 1) < fragment.rows
        and fragment.alive[(address & (2**32 - 1)) // 8] >> (address & 7) & 1
    ]
    return np.array(kept, np.uint64)


def _given(codes: npt.NDArray[np.uint8] | None, count: int) -> npt.NDArray[np.uint8]:
    if codes is None or len(codes) != count:
        raise InvalidBatch("search by codes needs a code for each query: extract them with the store's model")
    return np.ascontiguousarray(codes)
