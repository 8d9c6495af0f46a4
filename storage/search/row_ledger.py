"""Which rows an index in memory holds, and what another version of the store changes of them.

Rows are numbered as they come. The numbers stay while LanceDB moves rows from fragment to fragment: a row is
known by its key and its checksum, which covers everything stored of it. A version is followed by comparing
fragments; of the rows, only those are read that lie in fragments which are new or had rows deleted.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.partition import Partition
from storage.table.fragments import ADDRESS, Fragment, Fragments, addresses_of, offsets_of

__all__ = ["KEY_COLUMNS", "Changes", "RowLedger", "keys_of"]

KEY_COLUMNS = ("image_id", "crc32")
_SHIFT = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Changes:
    """What another version changes.

    Attributes:
        addresses: (n,) uint64: of the new rows, in the table's order.
        keys: (n,) int64: of the new rows, see `keys_of`.
        moved: The numbers of rows that lie elsewhere.
        moved_to: Their addresses.
        gone: The numbers of rows that the other version does not have.
        fragments: Of the other version.
    """

    addresses: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.int64]
    moved: npt.NDArray[np.int64]
    moved_to: npt.NDArray[np.uint64]
    gone: npt.NDArray[np.int64]
    fragments: dict[int, Fragment]

    @property
    def removed(self) -> int:
        """How many rows are gone."""
        return len(self.gone)


@dataclass(frozen=True, eq=False)
class RowLedger:
    """The rows of one version in one partition, N of them with those that are gone.

    Attributes:
        partition: Which rows of the store.
        addresses: (N,) uint64: where in the table each lies, or lay.
        keys: (N,) int64: a hash of key and checksum, of this process.
        alive: (N,) bool: which of them this version has.
        fragments: The fragments of the version.
    """

    partition: Partition
    addresses: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.int64]
    alive: npt.NDArray[np.bool_]
    fragments: dict[int, Fragment]

    @classmethod
    def empty(cls, partition: Partition) -> RowLedger:
        """Return that of no version: every row of a version is new to it."""
        nothing = np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, bool)
        return cls(partition, *nothing, {})

    @property
    def count(self) -> int:
        """How many rows the version has in this partition."""
        return int(self.alive.sum())

    def changes(self, fragments: Fragments) -> Changes:
        """Compare with another version: read keys of the rows that are new or moved.

        Raises:
            CorruptStore: the other version cannot be read.
        """
        gone, arrived = self._compared(fragments.by_number)
        addresses, keys = self._arrivals(fragments, arrived)
        order = np.argsort(self.keys[gone], kind="stable")
        sorted_gone, sorted_keys = gone[order], self.keys[gone][order]
        at = np.searchsorted(sorted_keys, keys)
        known = np.zeros(len(keys), bool)
        inside = at < len(sorted_keys)
        known[inside] = sorted_keys[at[inside]] == keys[inside]
        moved, moved_to = sorted_gone[at[known]], addresses[known]
        stays = np.zeros(len(self.addresses), bool)
        stays[moved] = True
        return Changes(
            addresses[~known], keys[~known], moved, moved_to, gone[~stays[gone]], fragments.by_number
        )

    def changed(self, changes: Changes, kept: npt.NDArray[np.bool_]) -> RowLedger:
        """Return the ledger of the other version.

        Args:
            changes: From `changes`.
            kept: (n,) bool: which of the new rows are taken; the others are damaged.
        """
        addresses, alive = self.addresses.copy(), self.alive.copy()
        addresses[changes.moved] = changes.moved_to
        alive[changes.gone] = False
        return dataclasses.replace(
            self,
            addresses=np.concatenate([addresses, changes.addresses[kept]]),
            keys=np.concatenate([self.keys, changes.keys[kept]]),
            alive=np.concatenate([alive, np.ones(int(kept.sum()), bool)]),
            fragments=changes.fragments,
        )

    def offsets(self) -> npt.NDArray[np.int64]:
        """Return (N,) int64: each row's place in the table's order of this version; -1 where it is gone."""
        offsets = np.full(len(self.addresses), -1, np.int64)
        offsets[self.alive] = offsets_of(self.fragments, self.addresses[self.alive])
        return offsets

    def _compared(
        self, fragments: dict[int, Fragment]
    ) -> tuple[npt.NDArray[np.int64], dict[int, npt.NDArray[np.uint64]]]:
        """Return the rows whose address is gone, and the places that are new in each fragment."""
        number = (self.addresses >> _SHIFT).astype(np.int64)
        gone: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        arrived: dict[int, npt.NDArray[np.uint64]] = {}
        for each in {**self.fragments, **fragments}:
            former, newer = self.fragments.get(each), fragments.get(each)
            if former is newer:
                continue
            own = np.flatnonzero(self.alive & (number == each))
            if former is None or newer is None or former.files != newer.files or former.rows != newer.rows:
                gone.append(own)
                if newer is not None:
                    arrived[each] = newer.places()
                continue
            place = (self.addresses[own] & np.uint64(2**32 - 1)).astype(np.int64)
            bits = np.unpackbits(newer.alive, count=newer.rows, bitorder="little")
            gone.append(own[bits[place] == 0])
            back = np.unpackbits(newer.alive & ~former.alive, count=newer.rows, bitorder="little")
            if back.any():
                arrived[each] = np.flatnonzero(back).astype(np.uint64)
        return np.concatenate(gone), arrived

    def _arrivals(
        self, fragments: Fragments, arrived: dict[int, npt.NDArray[np.uint64]]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Return addresses and keys of this partition's rows at these places, in the table's order."""
        numbers = [number for number in fragments.by_number if number in arrived]
        wanted = [addresses_of(number, arrived[number]) for number in numbers]
        addresses: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        keys: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        all_wanted = np.sort(np.concatenate([*addresses, *wanted]))
        for batch in fragments.scan(numbers, KEY_COLUMNS):
            here = np.asarray(batch[ADDRESS], np.uint64)
            at = np.minimum(np.searchsorted(all_wanted, here), max(0, len(all_wanted) - 1))
            own = all_wanted[at] == here
            if self.partition.total > 1:
                own &= _inside(self.partition, batch["image_id"].to_pylist())
            addresses.append(here[own])
            keys.append(keys_of(batch.filter(pa.array(own))))
        return np.concatenate(addresses), np.concatenate(keys)


def keys_of(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return (N,) int64: a hash of each row's key and checksum, of this process."""
    pairs = zip(rows["image_id"].to_pylist(), rows["crc32"].to_pylist(), strict=True)
    return np.fromiter((hash(pair) for pair in pairs), np.int64, len(rows))


def _inside(partition: Partition, ids: Iterable[str]) -> npt.NDArray[np.bool_]:
    return np.array([zlib.crc32(key.encode()) % partition.total == partition.number for key in ids], bool)
