"""The single writer of a store: commit, amend, delete, each acknowledged only once it is on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
from storage.commit.present_ids import PresentIds
from storage.durable import explain_write_errors
from storage.errors import CorruptStore, InvalidBatch, repair_command
from storage.fault_points import fault_point
from storage.features.shards import shard_intact, shard_path
from storage.layout import TABLE_FOLDER, check_table_files, is_shard_name
from storage.table.checks import check_amendments, check_rows
from storage.table.checksums import add_checksums, intact_rows
from storage.table.lance_table import LanceTable
from storage.table.schema import check_schema, row_schema

__all__ = ["Writer"]


class Writer:
    """Writes to the table's head, under a lease.

    A batch of new keys is appended; only a batch with keys that may be present is upserted, so that the cost
    of a commit does not grow with the table: LanceDB's upsert reads the whole key column each time.

    Attributes:
        table: The table at its head.
        committed: The acknowledged version.
    """

    def __init__(self, folder: Path, card: Card, lease: Lease) -> None:
        """Open the head; acknowledge it first if a crash kept the previous writer from doing so.

        Args:
            folder: The store's folder.
            card: Its card.
            lease: The store's lease, taken.

        Raises:
            CorruptStore: the head is older than what is acknowledged, or is damaged, or has other columns; or
                there are links in the store.
        """
        self._folder = folder
        self._card = card
        self._lease = lease
        check_table_files(folder)
        self._synced_files = set(table_files(folder))
        self._present: PresentIds | None = None
        committed = read_committed(folder)
        self.table = LanceTable.open(folder)
        check_schema(self.table.schema, card)
        if committed is not None:
            check_manifests(folder, committed)
            if self.table.version < committed.version:
                raise CorruptStore(
                    f"the newest version {self.table.version} is older than the acknowledged "
                    f"{committed.version}: {repair_command(folder)}"
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
            OutOfSpace: the disk is full; everything acknowledged before is kept.
        """
        rows = check_rows(rows, self._card)
        for shard in pc.unique(rows["shard"]).to_pylist():
            if not is_shard_name(shard) or not shard_path(self._folder, shard).is_file():
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
        stored = intact_rows(self.table.find("image_id", rows["image_id"].to_pylist()))
        missing = set(rows["image_id"].to_pylist()) - set(stored["image_id"].to_pylist())
        if missing:
            raise InvalidBatch(
                f"{len(missing)} rows are not in the store (first: {min(missing)}): commit them first"
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
        present, self._present = self._present, None  # if anything below fails, the keys must be read again
        self._lease.check()
        with explain_write_errors(self._folder / TABLE_FOLDER, bytes_needed):
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
        if self._present is None:
            self._present = PresentIds(batch["image_id"] for batch in self.table.scan(["image_id"]))
        # One version per batch: if any key may be present, the whole batch is upserted.
        write = self.table.upsert if self._present.may_contain(keys).any() else self.table.append
        committed = self.change(lambda: write(stored), bytes_needed=stored.nbytes)
        self._present.add(keys)
        return committed

    def _acknowledge(self) -> Committed:
        return acknowledge(self._folder, self.table.version, self.table.count(), known=self._synced_files)

    def _recover(self, committed: Committed | None) -> Committed:
        """Acknowledge a head whose writer died before it could, after checking what is new in it."""
        before = LanceTable.open(self._folder, version=committed.version) if committed else None
        shards = _shards(self.table) - (_shards(before) if before else set())
        shards_intact = all(shard_intact(self._folder, shard) for shard in shards)
        if not shards_intact or any(len(intact_rows(batch)) != len(batch) for batch in self.table.scan()):
            raise CorruptStore(
                f"version {self.table.version}, never acknowledged, is damaged: "
                f"{repair_command(self._folder)}"
            )
        self._synced_files = set(read_sums(self._folder))
        return self._acknowledge()


def _shards(table: LanceTable) -> set[str]:
    return {shard for batch in table.scan(["shard"]) for shard in pc.unique(batch["shard"]).to_pylist()}
