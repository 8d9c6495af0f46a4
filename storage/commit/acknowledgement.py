"""How a version becomes the acknowledged one: by fsync and rename, or in a bucket by compare-and-swap."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from pathlib import Path
from typing import TypeAlias

from storage.commit.bucket_lease import BucketLease
from storage.commit.bucket_sums import add_sums
from storage.commit.bucket_tags import claim_bucket_tags
from storage.commit.leases import StoreLease
from storage.commit.ledger import Committed, acknowledge, parse_committed, read_sums, table_files
from storage.errors import CorruptStore, StoreLocked, repair_command
from storage.fault_points import fault_point
from storage.layout import TABLE_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location
from storage.objects.protocol import ByteRange, ConditionFailed
from storage.table.bucket_table import BucketTable
from storage.table.lance_table import LanceTable, manifest_name
from storage.table.open_table import Table

__all__ = ["Acknowledger", "BucketAcknowledger", "LocalAcknowledger", "open_acknowledger"]

_COMMITTED_BYTES = 1 << 16
_FENCE_TRIES = 5
_MAX_FILE_BYTES = 1 << 40


class LocalAcknowledger:
    """Acknowledges versions of a store in a folder: flushes the new files, then replaces COMMITTED."""

    def __init__(self, folder: Path) -> None:
        """Take every file that is there for flushed."""
        self._folder = folder
        self._known = set(table_files(folder))

    def open_head(self) -> LanceTable:
        """Open the newest version, for writing."""
        return LanceTable.open(self._folder)

    def follow(self, table: Table, committed: Committed) -> None:
        """Start from a head that is acknowledged: nothing of it is recorded again."""

    def distrust(self) -> None:
        """Take only what is recorded for flushed: the head was never acknowledged."""
        self._known = set(read_sums(self._folder))

    def restart(self) -> None:
        """Take nothing for flushed or recorded: the table is new."""
        self._known = set()

    def acknowledge(self, table: Table) -> Committed:
        """Acknowledge a version; see `storage.commit.ledger.acknowledge`."""
        assert isinstance(table, LanceTable)
        return acknowledge(self._folder, table, known=self._known)


class BucketAcknowledger:
    """Acknowledges versions of a store in a bucket: COMMITTED is replaced only in the state it is known in.

    After a holder that did not release its lease, COMMITTED gets the new epoch first, so that the former
    holder can acknowledge nothing more, then the tags; then the table is fenced, so that it can commit
    nothing either.
    """

    def __init__(self, location: BucketPath, lease: BucketLease) -> None:
        """Read COMMITTED, and claim it where the former holder may still be alive."""
        self._location, self._lease = location, lease
        self._known: set[str] = set()
        self._tag: str | None = None
        self._acknowledged_version: int | None = None
        self._committed: Committed | None = None
        path = location / "COMMITTED"
        with contextlib.suppress(FileNotFoundError):
            data, self._tag = path.objects.get(path.key, _COMMITTED_BYTES)
            committed = parse_committed(location, data)
            self._acknowledged_version = committed.version
            if lease.seized:
                self._replace(committed)
                claim_bucket_tags(location, lease.epoch)

    def open_head(self) -> BucketTable:
        """Open the newest version, for writing; fence it where the former holder may still be alive.

        A version that went back to an older one and was never acknowledged is not adopted: its writer may
        have been paused before, and committed it on top of what others have acknowledged since.
        """
        table = self._fenced() if self._lease.seized and self._tag is not None else self._head()
        acknowledged = self._acknowledged_version
        if acknowledged is not None and table.restored_by_others(acknowledged, self._lease.epoch):
            table.restore(acknowledged, self._lease.epoch)
        return table

    def _head(self) -> BucketTable:
        return BucketTable.open(self._location)

    def _fenced(self) -> BucketTable:
        for tries_left in range(_FENCE_TRIES, 0, -1):
            table = self._head()
            try:
                table.fence(self._lease.epoch)
                break
            except StoreLocked:  # the former holder committed since the table was opened
                if tries_left == 1:
                    raise
                self._lease.check()
        return table

    def follow(self, table: Table, committed: Committed) -> None:
        """Start from a head that is acknowledged: nothing of it is recorded again."""
        assert isinstance(table, BucketTable)
        self._known, self._committed = table.files, committed

    def distrust(self) -> None:
        """Take only what is recorded for known: the head was never acknowledged."""
        self._known = set(read_sums(self._location))

    def restart(self) -> None:
        """Take nothing for recorded: the table is new."""
        self._known = set()

    def acknowledge(self, table: Table) -> Committed:
        """Record the digests of a version's new files, then let COMMITTED name it.

        Raises:
            StoreLocked: another writer has taken over; the version stays unacknowledged.
        """
        assert isinstance(table, BucketTable)
        if self._committed is not None and self._committed.version == table.version:
            return self._committed  # nothing changed
        files = table.files
        manifest = f"{TABLE_FOLDER}/_versions/{manifest_name(table.version)}"
        sums = self._digests(sorted(files - self._known))
        add_sums(self._location, table.version, "".join(f"{value}  {name}\n" for name, value in sums.items()))
        fault_point("after_sync")
        committed = Committed(table.version, table.count(), sums[manifest], table.card_sha256)
        self._replace(committed)
        fault_point("after_committed")
        self._known, self._committed = files, committed
        return committed

    def _digests(self, names: list[str]) -> dict[str, str]:
        contents = self._location.objects.get_ranges([ByteRange(name, 0, _MAX_FILE_BYTES) for name in names])
        sums = {}
        for name, data in zip(names, contents, strict=True):
            if data is None:
                raise CorruptStore(
                    f"{self._location}/{name} was written and is not there: check the bucket's rules of "
                    f"expiry, then {repair_command(self._location)}"
                )
            sums[name] = hashlib.sha256(data).hexdigest()
        return sums

    def _replace(self, committed: Committed) -> None:
        values = {name: value for name, value in committed.__dict__.items() if value is not None}
        # The nonce tells this writer's own object after an answer was lost.
        values |= {"epoch": self._lease.epoch, "nonce": secrets.token_hex(8)}
        data = (json.dumps(values, sort_keys=True) + "\n").encode()
        path = self._location / "COMMITTED"
        fault_point("before_committed")
        try:
            if self._tag is None:
                self._tag = path.objects.put_if_absent(path.key, data)
            else:
                self._tag = path.objects.put_if_match(path.key, data, self._tag)
        except ConditionFailed:
            raise StoreLocked(
                f"{self._location} was taken over by another writer; nothing was acknowledged: run the same "
                "command again when it is done"
            ) from None


Acknowledger: TypeAlias = LocalAcknowledger | BucketAcknowledger


def open_acknowledger(location: Location, lease: StoreLease) -> Acknowledger:
    """Return what acknowledges the versions of a store, whose lease is taken."""
    if isinstance(location, Path):
        return LocalAcknowledger(location)
    assert isinstance(lease, BucketLease)
    return BucketAcknowledger(location, lease)
