"""Upgrade of a store of an older format to the newest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storage.card_files import first_card
from storage.commit.leases import open_lease
from storage.commit.writer import Writer
from storage.objects.location import open_location
from storage.search.snapshot import newest_snapshot

__all__ = ["UpgradeReport", "upgrade_store"]


@dataclass(frozen=True)
class UpgradeReport:
    """The result of an upgrade.

    Attributes:
        format_before: Format version before it.
        format: Format version after it.
        columns_added: The columns that the table gained; no row has a value in them yet.
        rows: Number of rows, which are as they were.
        version: The acknowledged version after it.
    """

    format_before: int
    format: int
    columns_added: tuple[str, ...]
    rows: int
    version: int


def upgrade_store(uri: str | Path) -> UpgradeReport:
    """Bring a store to the newest format, or complete an upgrade that was interrupted; takes the lease.

    No row and no vector changes. Older versions of placeray refuse the store from then on.

    Raises:
        StoreNotFound: there is no store.
        StoreLocked: another writer holds it.
        CardMismatch: the store has a newer format.
        CorruptStore: the store cannot be read.
        OutOfSpace: the disk is full; running it again completes the upgrade.
        NotWritable: the store is on a read-only file system, or belongs to another user.
    """
    folder = open_location(uri)
    before = first_card(folder).format_version
    columns = newest_snapshot(folder).table.schema.names
    with open_lease(folder) as lease:
        writer = Writer(folder, lease)
        committed = writer.upgrade()
        added = [name for name in writer.table.schema.names if name not in columns]
        return UpgradeReport(
            before, writer.card.format_version, tuple(added), committed.rows, committed.version
        )
