"""The fragments of one version of the table: which rows each holds, and reading some of them.

Two versions share the fragments that did not change. LanceDB gives a row an address, the number of its
fragment and its place in it, which it keeps until its fragment is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.table.bucket_table import BucketTable
from storage.table.lance_table import SCAN_ROWS, read_errors_as_corruption
from storage.table.open_table import Table, dataset_of

__all__ = ["ADDRESS", "Fragment", "Fragments", "addresses_of", "offsets_of"]

ADDRESS = "_rowaddr"
_SHIFT = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Fragment:
    """One fragment of a version.

    Attributes:
        files: Names of its data files.
        deletions: Name of the file of its deleted rows, or None.
        alive: (rows / 8,) uint8: a bit for each row it was written with, set unless the row is deleted.
        rows: How many that are.
    """

    files: tuple[str, ...]
    deletions: str | None
    alive: npt.NDArray[np.uint8]
    rows: int

    def places(self) -> npt.NDArray[np.uint64]:
        """Return the places of its rows, without the deleted ones."""
        bits = np.unpackbits(self.alive, count=self.rows, bitorder="little")
        return np.flatnonzero(bits).astype(np.uint64)


class Fragments:
    """The fragments of an open version.

    Attributes:
        by_number: Each by its number, in the table's order.
    """

    def __init__(self, table: Table, former: dict[int, Fragment] | None = None) -> None:
        """List them.

        Args:
            table: The version.
            former: Those of another version; what is unchanged is not read again.

        Raises:
            CorruptStore: the version cannot be read.
        """
        self._table = table
        with _explained(table):
            self._dataset = dataset_of(table)
            found = {each.fragment_id: each for each in self._dataset.get_fragments()}
            self.by_number = {
                number: self._read(each, (former or {}).get(number)) for number, each in found.items()
            }

    def scan(self, numbers: Sequence[int], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of some fragments in batches, with the column `ADDRESS`.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        if not numbers:
            return
        with _explained(self._table):
            scanner = self._dataset.scanner(
                columns=list(columns),
                fragments=[self._dataset.get_fragment(number) for number in numbers],
                with_row_address=True,
                batch_size=SCAN_ROWS,
            )
            for batch in scanner.to_batches():
                yield pa.Table.from_batches([batch])

    def _read(self, fragment: Any, former: Fragment | None) -> Fragment:
        metadata = fragment.metadata
        files = tuple(file.path for file in metadata.files)
        deletion = metadata.deletion_file
        deletions = None if deletion is None else str(deletion.path(metadata.id))
        if former is not None and (former.files, former.deletions) == (files, deletions):
            return former
        rows = int(metadata.physical_rows)
        alive = np.ones(rows, bool)
        if deletions is not None:
            scanner = self._dataset.scanner(columns=[], fragments=[fragment], with_row_address=True)
            kept = np.asarray(scanner.to_table()[ADDRESS], np.uint64) & np.uint64(2**32 - 1)
            alive[:] = False
            alive[kept.astype(np.int64)] = True
        return Fragment(files, deletions, np.packbits(alive, bitorder="little"), rows)


def addresses_of(number: int, places: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the addresses of places in a fragment."""
    return (np.uint64(number) << _SHIFT) | places


def offsets_of(fragments: dict[int, Fragment], addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return (N,) int64: the place in the table's order of each of N rows.

    Args:
        fragments: Of the version, in the table's order.
        addresses: (N,) uint64, none of them of a deleted row.
    """
    numbers = (addresses >> _SHIFT).astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    offsets = np.empty(len(addresses), np.int64)
    start = 0
    for number, fragment in fragments.items():
        here = order[np.searchsorted(ordered, number) : np.searchsorted(ordered, number, side="right")]
        places = fragment.places()
        offsets[here] = start + np.searchsorted(places, addresses[here] & np.uint64(2**32 - 1))
        start += len(places)
    return offsets


def _explained(table: Table) -> Any:
    if isinstance(table, BucketTable):
        return table.explained()
    assert isinstance(table.folder, Path)
    return read_errors_as_corruption(table.folder)
