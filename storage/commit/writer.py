"""The single writer of a store: commit, amend, delete, each acknowledged only once it is on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from storage.card import FORMAT_VERSION
from storage.card_files import first_card, read_card, write_card, write_first_card
from storage.commit.acknowledgement import open_acknowledger
from storage.commit.change_log import log_change
from storage.commit.current_card import card_of, check_table
from storage.commit.leases import StoreLease
from storage.commit.ledger import Committed, check_manifests, read_committed
from storage.commit.present_ids import PresentIds
from storage.durable import explain_write_errors
from storage.errors import CorruptStore, InvalidBatch, repair_command
from storage.fault_points import fault_point
from storage.features.shards import shard_intact, shard_path
from storage.layout import TABLE_FOLDER, check_table_files, is_shard_name
from storage.objects.files import Location, all_exist
from storage.table.checks import check_amendments, check_rows
from storage.table.checksums import add_checksums, checksums_match, intact_rows
from storage.table.open_table import Table, open_table
from storage.table.schema import OPTIONAL_COLUMNS, check_schema, optional_schema, row_schema

__all__ = ["Writer"]


class Writer:
    """Writes to the table's head, under a lease.

    A batch of new keys is appended; only a batch with keys that may be present is upserted, so that the cost
    of a commit does not grow with the table: LanceDB's upsert reads the whole key column each time.

    Attributes:
        folder: The store's folder.
        lease: The store's lease.
        table: The table at its head.
        card: The card of the acknowledged version.
        committed: The acknowledged version.
    """

    def __init__(self, folder: Location, lease: StoreLease) -> None:
        """Open the head; acknowledge it first if a crash kept the previous writer from doing so.

        An upgrade of the format that a crash interrupted is completed.

        Args:
            folder: The store's folder.
            lease: The store's lease, taken.

        Raises:
            CorruptStore: the head is older than what is acknowledged, or is damaged, or has other columns; or
                there are links in the store.
        """
        self.folder = folder
        self.lease = lease
        first = first_card(folder)
        check_table_files(folder)
        self._acknowledger = open_acknowledger(folder, lease)
        self._present: PresentIds | None = None
        committed = read_committed(folder)
        self.table: Table = self._acknowledger.open_head()
        self.card = card_of(folder, self.table.card_sha256, first)
        check_schema(self.table.schema, self.card)
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
            check_table(self.table, committed, self.card)
            self._acknowledger.follow(self.table, committed)
            self.committed = committed
        if self.card.format_version >= 3 and self.table.card_sha256 is None:
            self._complete_format()

    def commit(self, rows: pa.Table) -> Committed:
        """Upsert rows: one version.

        Raises:
            InvalidBatch: the rows may not enter; nothing is written.
            StoreLocked: the lease is lost; nothing is written.
            OutOfSpace: the disk is full; everything acknowledged before is kept.
        """
        rows = check_rows(rows, self.card)
        if self.card.has_features:
            self._check_shards(pc.unique(rows["shard"]).to_pylist())
        fault_point("before_commit")
        return self._write(rows, did=f"wrote {len(rows)} rows")

    def amend(self, rows: pa.Table) -> Committed:
        """Replace metadata of rows that exist; keys that do not exist are an error.

        Raises:
            InvalidBatch: the rows may not enter, or a key is not stored; nothing is written.
            StoreLocked: the lease is lost; nothing is written.
        """
        rows = check_amendments(rows, self.card)
        stored = intact_rows(self.table.find("image_id", rows["image_id"].to_pylist()), self.card)
        missing = set(rows["image_id"].to_pylist()) - set(stored["image_id"].to_pylist())
        if missing:
            raise InvalidBatch(
                f"{len(missing)} rows are not in the store (first: {min(missing)}): commit them first"
            )
        order = pc.index_in(stored["image_id"], rows["image_id"].combine_chunks())
        rows = rows.take(order)
        schema = row_schema(self.card, optional=OPTIONAL_COLUMNS)
        stored = stored.select(schema.names)
        for name in rows.column_names:
            stored = stored.set_column(
                stored.schema.get_field_index(name), stored.schema.field(name), rows[name]
            )
        return self._write(stored.cast(schema), did=f"changed metadata of {len(stored)} rows")

    def delete(self, image_ids: Sequence[str]) -> int:
        """Remove rows by key and return how many there were.

        Raises:
            StoreLocked: the lease is lost; nothing is removed.
        """
        stored = self.table.find("image_id", sorted(set(image_ids)), ["image_id"])["image_id"].to_pylist()
        if stored:
            self.change(lambda: self.table.delete(stored), did=f"deleted {len(stored)} rows")
        return len(stored)

    def upgrade(self) -> Committed:
        """Bring the store to the newest format, by columns without values; rows and vectors stay as they are.

        Raises:
            StoreLocked: the lease is lost; nothing is written.
            OutOfSpace: the disk is full; running it again completes the upgrade.
        """
        if self.card.format_version < FORMAT_VERSION:
            self.lease.check()
            # First the card: from then on older versions of placeray leave the store alone.
            write_first_card(self.folder, self.card.upgraded())
            fault_point("after_card")
            self.card = self.card.upgraded()
            self._complete_format()
        return self.committed

    def check_lease(self) -> None:
        """Check that the lease is still held.

        Raises:
            StoreLocked: another writer took it over; nothing may be written.
        """
        self.lease.check()

    def forget_keys(self) -> None:
        """Read the keys again before the next commit: the table has other rows than were written."""
        self._present = None

    def change(
        self, action: Callable[[], None], *, did: str = "changed", bytes_needed: int = 1 << 20
    ) -> Committed:
        """Run one change of the table under the lease, then acknowledge what it made.

        Args:
            action: What to do.
            did: What it did, in words, for the store's history.
            bytes_needed: For the message, should the disk be full.

        Raises:
            StoreLocked: the lease is lost; nothing is written.
            OutOfSpace: the disk is full.
        """
        present, self._present = self._present, None  # if anything below fails, the keys must be read again
        self.lease.check()
        with explain_write_errors(self.folder / TABLE_FOLDER, bytes_needed):
            action()
            fault_point("after_lance")
            self.lease.check()  # it may have been lost meanwhile: then the version stays unacknowledged
            before = self.committed.version
            self.committed = self._acknowledge()
        if self.committed.version != before:
            log_change(self.folder, self.committed.version, did)
        self._present = present
        return self.committed

    def _check_shards(self, shards: list[str]) -> None:
        named = [shard for shard in shards if is_shard_name(shard)]
        if len(named) == len(shards) and all_exist([shard_path(self.folder, shard) for shard in shards]):
            return
        for shard in shards:
            if shard not in named or not all_exist([shard_path(self.folder, shard)]):
                raise InvalidBatch(f"shard {shard} does not exist: write it with write_shard before its rows")

    def _write(self, rows: pa.Table, *, did: str) -> Committed:
        if not len(rows):
            return self.committed
        stored = add_checksums(rows, self.card)
        keys = rows["image_id"].to_pylist()
        if self._present is None:
            self._present = PresentIds(batch["image_id"] for batch in self.table.scan(["image_id"]))
        # One version per batch: if any key may be present, the whole batch is upserted.
        write = self.table.upsert if self._present.may_contain(keys).any() else self.table.append

        def action() -> None:
            self.table.drop_leftovers()  # an unfinished replacement would not know these rows
            write(stored)

        committed = self.change(action, did=did, bytes_needed=stored.nbytes)
        self._present.add(keys)
        return committed

    def _complete_format(self) -> None:
        """Add the columns of the card's format, and let versions name their card from now on."""
        digest = write_card(self.folder, self.card)

        def action() -> None:
            names = self.table.schema.names
            new = [field for field in optional_schema(self.card) if field.name not in names]
            if new:
                self.table.add_columns(pa.schema(new))
            fault_point("after_columns")
            self.table.name_card(digest)

        self.change(action, did=f"upgraded to format {self.card.format_version}")

    def _acknowledge(self) -> Committed:
        committed = self._acknowledger.acknowledge(self.table)
        if committed.card_sha256 not in (None, self.card.sha256):
            self.card = read_card(self.folder, committed.card_sha256)
        return committed

    def _recover(self, committed: Committed | None) -> Committed:
        """Acknowledge a head whose writer died before it could, after checking what is new in it."""
        before = open_table(self.folder, version=committed.version) if committed else None
        shards = _shards(self.table) - (_shards(before) if before else set())
        shards_intact = all(shard_intact(self.folder, shard) for shard in shards)
        rows_intact = all(checksums_match(batch, self.card).all() for batch in self.table.scan())
        if not shards_intact or not rows_intact:
            raise CorruptStore(
                f"version {self.table.version}, never acknowledged, is damaged: {repair_command(self.folder)}"
            )
        self._acknowledger.distrust()
        recovered = self._acknowledge()
        log_change(self.folder, recovered.version, "acknowledged what a writer that died had written")
        return recovered


def _shards(table: Table) -> set[str]:
    return {
        shard for batch in table.scan(["shard"]) for shard in pc.unique(batch["shard"]).to_pylist() if shard
    }
