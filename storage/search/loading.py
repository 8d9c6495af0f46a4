"""Loading a version of a store into memory, to search it and to follow it from there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.errors import CorruptStore
from storage.search.allocator import return_free_memory
from storage.search.approximate import ApproximateIndex
from storage.search.code_index import CodeIndex
from storage.search.descriptor_blocks import BLOCK_ROWS, DescriptorBlocks
from storage.search.disk_rows import DiskRows
from storage.search.flat import FlatIndex
from storage.search.living_searcher import LivingSearcher
from storage.search.memory_rows import MemoryRows, compact_rows
from storage.search.methods import SearchMethod
from storage.search.partition import Partition, read_partition, rows_in
from storage.search.row_ledger import Changes, RowLedger, keys_of
from storage.search.version_rows import stored_columns, usable
from storage.table.fragments import ADDRESS, Fragments
from storage.table.open_table import Table
from storage.table.schema import code_matrix, descriptor_matrix

__all__ = ["load_searcher", "searcher_of_rows"]


def searcher_of_rows(
    rows: pa.Table, card: Card, method: SearchMethod = "exact", *, degraded: bool = False
) -> LivingSearcher:
    """Index rows that are at hand; no version can follow.

    Args:
        rows: Intact rows with every column of `row_schema`.
        card: Their card.
        method: `exact`, `ivf` or `codes`.
        degraded: Whether rows had to be left out.

    Raises:
        ImportError: FAISS is not installed.
    """
    loading = _Loading(card, method, on_disk=False)
    if method == "codes":
        coded = rows.filter(rows["code"].is_valid())
        degraded |= len(coded) < len(rows)
        rows = coded
    loading.add(rows)
    index = loading.index()
    return LivingSearcher(
        *(index, MemoryRows(rows), card),
        degraded=degraded,
        by_codes=method == "codes",
        descriptors=loading.descriptors,
    )


def load_searcher(
    table: Table, card: Card, partition: Partition, method: SearchMethod, *, on_disk: bool = False
) -> LivingSearcher:
    """Load a partition of a version.

    Args:
        table: The version.
        card: Its card.
        partition: Which of its rows.
        method: `exact`, `ivf` or `codes`.
        on_disk: Leave records, and descriptors beside codes, on disk.

    Raises:
        ImportError: FAISS is not installed.
    """
    try:
        searcher = _load(table, card, partition, method, on_disk=on_disk)
    except CorruptStore:  # what can be read is searched, and the next version loaded as a whole
        rows, damaged = read_partition(table, card, partition)
        return searcher_of_rows(rows, card, method, degraded=damaged > 0)
    return_free_memory()  # of reading, which ends with `_load`
    return searcher


def _load(
    table: Table, card: Card, partition: Partition, method: SearchMethod, *, on_disk: bool
) -> LivingSearcher:
    fragments = Fragments(table)
    loading = _Loading(card, method, on_disk=on_disk)
    changes, damaged, records = _read(table, fragments, card, partition, loading)
    ledger = RowLedger.empty(partition).changed(changes, np.ones(len(changes.keys), bool))
    del changes  # a copy, which would be held while the index is built
    columns = [table.schema.field(name) for name in stored_columns(table)]
    empty = pa.schema(columns).empty_table()
    return LivingSearcher(
        loading.index(),
        DiskRows(table, card, ledger) if on_disk else MemoryRows(_joined(records, empty)),
        card,
        ledger=ledger,
        damaged=damaged,
        by_codes=method == "codes",
        descriptors=loading.descriptors,
    )


def _read(
    table: Table, fragments: Fragments, card: Card, partition: Partition, loading: _Loading
) -> tuple[Changes, npt.NDArray[np.uint64], list[pa.Table]]:
    """Give the rows of a partition to `loading`; return where they are, those left out, and their records."""
    records: list[pa.Table] = []
    addresses, keys, damaged = ([np.empty(0, kind)] for kind in (np.uint64, np.int64, np.uint64))
    for batch in fragments.scan(list(fragments.by_number), loading.columns(table)):
        if loading.unchecked:
            kept = batch["code"].is_valid().to_numpy()
        else:
            kept = usable(batch, card, by_codes=loading.by_codes)
        damaged.append(np.asarray(batch[ADDRESS], np.uint64)[~kept])
        batch = batch if kept.all() else batch.filter(pa.array(kept))
        own = rows_in(partition, batch)
        addresses.append(np.asarray(own[ADDRESS], np.uint64))
        keys.append(keys_of(own))
        own = own.drop_columns(ADDRESS)
        loading.add(own)
        if not loading.on_disk:
            records.append(compact_rows(own))
    changes = Changes(
        addresses=np.concatenate(addresses),
        keys=np.concatenate(keys),
        moved=np.empty(0, np.int64),
        moved_to=np.empty(0, np.uint64),
        gone=np.empty(0, np.int64),
        fragments=fragments.by_number,
    )
    return changes, np.concatenate(damaged), records


class _Loading:
    """An index in the making, block by block, so that nothing is in memory twice."""

    def __init__(self, card: Card, method: SearchMethod, *, on_disk: bool) -> None:
        self._card, self._method = card, method
        self.on_disk, self.by_codes = on_disk, method == "codes"
        self.unchecked = method == "codes" and on_disk  # records are read and checked for the answers
        nothing = np.empty((0, card.descriptor_dim), card.descriptor_dtype)
        self._index: FlatIndex | ApproximateIndex
        self._index = ApproximateIndex(nothing) if method == "ivf" else FlatIndex(nothing)
        self._codes: list[npt.NDArray[np.uint8]] = []
        self._waiting: list[npt.NDArray[Any]] = []
        self._waiting_rows = 0
        self.descriptors: DescriptorBlocks | None = None
        if method == "codes" and not on_disk:
            self.descriptors = DescriptorBlocks(card.descriptor_dim, card.descriptor_dtype, unit=False)

    def columns(self, table: Table) -> list[str]:
        return ["image_id", "crc32", "code"] if self.unchecked else stored_columns(table)

    def add(self, rows: pa.Table) -> None:
        if self._method == "codes":
            self._codes.append(code_matrix(rows))
        if not self.unchecked:
            for start in range(0, len(rows), BLOCK_ROWS):
                self._waiting.append(descriptor_matrix(rows.slice(start, BLOCK_ROWS)))
                self._waiting_rows += len(self._waiting[-1])
                if self._waiting_rows >= BLOCK_ROWS:
                    self._flush()

    def index(self) -> FlatIndex | ApproximateIndex | CodeIndex:
        self._flush()
        if self._method == "codes":
            assert self._card.code_bits is not None
            return CodeIndex(self._codes, sum(map(len, self._codes)), bits=self._card.code_bits)
        everything = np.ones(self._index.count, bool)
        return self._index.extended(everything) if self._index.extension_due(everything) else self._index

    def _flush(self) -> None:
        if not self._waiting:
            return
        stored = np.concatenate(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        if self._method == "codes":
            assert self.descriptors is not None
            self.descriptors = self.descriptors.grown(stored)
        else:
            self._index = self._index.grown(stored)


def _joined(records: list[pa.Table], empty: pa.Table) -> pa.Table:
    if not records:
        return compact_rows(empty)
    schema_of: Iterator[pa.Schema] = (each.schema for each in records)
    assert len({str(schema) for schema in schema_of}) == 1
    return pa.concat_tables(records)
