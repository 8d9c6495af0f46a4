"""The one writer of a store: commit, amend, delete, each acknowledged only when it is on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.card import Card
from storage.commit.lease import Lease
from storage.commit.ledger import (
    Committed,
    acknowledge,
    check_manifests,
    read_committed,
    read_sums,
    table_files,
)
from storage.durable import fault_point, name_full_disk
from storage.errors import CorruptStore, InvalidBatch
from storage.features.shards import shard_intact, shard_path
from storage.table.checks import check_amendments, check_rows
from storage.table.vectors import TABLE_FOLDER, VectorTable, add_checksums, good_rows, row_schema

__all__ = ["Writer"]

_FOLD_AT = 1 << 16


class PresentIds:
    """Which keys the table may hold, in eight bytes each: a hit may be chance, a miss is certain."""

    def __init__(self, chunks: Iterable[pa.ChunkedArray]) -> None:
        """Start from the table's key column, piece by piece."""
        pieces = [_hashes(chunk.cast(pa.binary()).to_pylist()) for chunk in chunks]
        self._sorted = np.sort(np.concatenate(pieces)) if pieces else np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def maybe(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return (N,) bool: False where the table certainly lacks the key."""
        hashes = _hashes(key.encode() for key in image_ids)
        at = np.searchsorted(self._sorted, hashes)
        found = np.zeros(len(hashes), bool)
        inside = at < len(self._sorted)
        found[inside] = self._sorted[at[inside]] == hashes[inside]
        found |= np.fromiter((int(h) in self._recent for h in hashes), bool, len(hashes))
        return found

    def add(self, image_ids: Sequence[str]) -> None:
        """Note keys that were written. Deleted keys may stay: they only cost a needless join."""
        self._recent.update(int(h) for h in _hashes(key.encode() for key in image_ids))
        if len(self._recent) > _FOLD_AT:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()


class Writer:
    """Writes to the table's head, under a lease.

    A batch of new keys is appended and only one with keys that are present is joined, so that a commit costs
    the same however many rows are stored: LanceDB's upsert reads the whole key column each time.

    Attributes:
        table: The table at its head.
        committed: What is acknowledged.
    """

    def __init__(self, folder: Path, card: Card, lease: Lease | None) -> None:
        """Open the head; acknowledge it first where a crash kept the writer before from doing so.

        Args:
            folder: The store's folder.
            card: Its card.
            lease: The lease held. Without one (tests only) every commit joins, and LanceDB's key conflict
                detection alone keeps keys unique.

        Raises:
            CorruptStore: the head is older than what is acknowledged, or is damaged.
        """
        self._folder = folder
        self._card = card
        self._lease = lease
        self._known = set(table_files(folder))
        self._present: PresentIds | None = None
        committed = read_committed(folder)
        self.table = VectorTable.open(folder)
        if committed is not None:
            check_manifests(folder, committed)
            if self.table.version < committed.version:
                raise CorruptStore(
                    f"the newest version {self.table.version} is older than the acknowledged "
                    f"{committed.version}: run placeray verify --store {folder} --repair"
                )
        if committed is None or self.table.version > committed.version:
            self.committed = self._recover(committed)
        else:
            self.committed = committed

    def commit(self, rows: pa.Table) -> Committed:
        """Upsert rows: one version.

        Raises:
            InvalidBatch: the rows may not enter; nothing is written.
            StoreLocked: the lease is lost; nothing is written.
            OutOfSpace: the disk is full; what was acknowledged before stands.
        """
        rows = check_rows(rows, self._card)
        for shard in pc.unique(rows["shard"]).to_pylist():
            if not shard_path(self._folder, shard).is_file():
                raise InvalidBatch(f"shard {shard} does not exist: write it with write_shard before its rows")
        fault_point("before_commit")
        return self._write(rows)

    def amend(self, rows: pa.Table) -> Committed:
        """Replace metadata of rows that exist; keys that do not exist are an error.

        Raises:
            InvalidBatch: the rows may not enter, or a key is not stored; nothing is written.
            StoreLocked: the lease is lost; nothing is written.
        """
        rows = check_amendments(rows, self._card)
        stored = good_rows(self.table.find("image_id", rows["image_id"].to_pylist()))
        missing = set(rows["image_id"].to_pylist()) - set(stored["image_id"].to_pylist())
        if missing:
            raise InvalidBatch(
                f"{len(missing)} rows are not stored (first: {min(missing)}): commit them first"
            )
        order = pc.index_in(stored["image_id"], rows["image_id"].combine_chunks())
        rows = rows.take(order)
        stored = stored.select(row_schema(self._card).names)
        for name in rows.column_names:
            stored = stored.set_column(
                stored.schema.get_field_index(name), stored.schema.field(name), rows[name]
            )
        return self._write(stored.cast(row_schema(self._card)))

    def delete(self, image_ids: Sequence[str]) -> int:
        """Remove rows by key and return how many there were.

        Raises:
            StoreLocked: the lease is lost; nothing is removed.
        """
        stored = self.table.find("image_id", sorted(set(image_ids)), ["image_id"])["image_id"].to_pylist()
        if stored:
            self.change(lambda: self.table.delete(stored))
        return len(stored)

    def change(self, action: Callable[[], None], *, bytes_needed: int = 1 << 20) -> Committed:
        """Run one change of the table under the lease, then acknowledge what it made.

        Raises:
            StoreLocked: the lease is lost; nothing is written.
            OutOfSpace: the disk is full.
        """
        present, self._present = self._present, None  # whatever fails below, the keys must be read anew
        if self._lease is not None:
            self._lease.check()
        with name_full_disk(self._folder / TABLE_FOLDER, bytes_needed):
            action()
            fault_point("after_lance")
            self.committed = self._acknowledge()
        self._present = present
        return self.committed

    def _write(self, rows: pa.Table) -> Committed:
        if not len(rows):
            return self.committed
        stored = add_checksums(rows)
        keys = rows["image_id"].to_pylist()
        if self._lease is None:
            return self.change(lambda: self.table.upsert(stored), bytes_needed=stored.nbytes)
        if self._present is None:
            self._present = PresentIds(piece["image_id"] for piece in self.table.scan(["image_id"]))
        # One version a batch: where any key may be there already, the whole batch is joined.
        put = self.table.upsert if self._present.maybe(keys).any() else self.table.append
        committed = self.change(lambda: put(stored), bytes_needed=stored.nbytes)
        self._present.add(keys)
        return committed

    def _acknowledge(self) -> Committed:
        return acknowledge(self._folder, self.table.version, self.table.count(), known=self._known)

    def _recover(self, committed: Committed | None) -> Committed:
        """Acknowledge a head that its writer did not live to acknowledge, after reading what is new in it."""
        before = VectorTable.open(self._folder, version=committed.version) if committed else None
        shards = _shards(self.table) - (_shards(before) if before else set())
        whole = all(shard_intact(self._folder, shard) for shard in shards)
        if not whole or any(len(good_rows(piece)) != len(piece) for piece in self.table.scan()):
            raise CorruptStore(
                f"version {self.table.version}, never acknowledged, is damaged: "
                f"run placeray verify --store {self._folder} --repair"
            )
        self._known = set(read_sums(self._folder))
        return self._acknowledge()


def _shards(table: VectorTable) -> set[str]:
    return {shard for piece in table.scan(["shard"]) for shard in pc.unique(piece["shard"]).to_pylist()}


def _hashes(keys: Iterable[bytes]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype=np.uint64)
