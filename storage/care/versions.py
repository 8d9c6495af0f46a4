"""The versions of a store that can be gone back to, and going back to one.

Going back makes a new version with the rows and the card of an old one, so that numbers only grow.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.care.leftovers import used_shards
from storage.commit.bucket_lease import BucketLease
from storage.commit.change_log import LoggedChange, read_changes
from storage.commit.ledger import Committed
from storage.commit.version_tags import NoSuchVersion, read_tags, tagged_version
from storage.commit.writer import Writer
from storage.errors import CorruptStore
from storage.features.shards import shard_path
from storage.objects.files import Location, all_exist
from storage.search.snapshot import newest_snapshot
from storage.table.lance_table import LanceTable
from storage.table.open_table import Table, open_table
from storage.table.schema import FORMER, NEXT

__all__ = ["StoreVersion", "list_versions", "resolve_version", "roll_back"]


@dataclass(frozen=True)
class StoreVersion:
    """A version that is there.

    Attributes:
        version: Its number.
        at: When it was made, as an ISO time in UTC.
        rows: How many rows it has.
        rows_changed: How many more than the version listed before; None for the first.
        change: What made it, in words; empty where that was not noted.
        by: Who, as user@host; empty where that was not noted.
        tags: Names that were given to it.
        newest: Whether it is the one that answers.
    """

    version: int
    at: str
    rows: int
    rows_changed: int | None
    change: str
    by: str
    tags: tuple[str, ...]
    newest: bool


def list_versions(folder: Location) -> list[StoreVersion]:
    """Return the versions that can be gone back to, oldest first: acknowledged ones that still exist.

    Raises:
        StoreNotFound: there is no store.
        CorruptStore: it cannot be read.
    """
    newest = newest_snapshot(folder)
    changes, tags = read_changes(folder), read_tags(folder)
    first_noted = min(changes, default=newest.version)
    listed: list[StoreVersion] = []
    for number, at in newest.table.versions():
        named = tuple(sorted(tag for tag, version in tags.items() if version == number))
        noted = number in changes or number == newest.version or bool(named)
        # From before changes were noted: what lies inside of one commit is told by its columns.
        table = _opened(folder, number) if number <= newest.version else None
        if table is None or not (noted or (number < first_noted and _whole(table))):
            continue
        rows, change = table.count(), changes.get(number, LoggedChange(number, "", "", ""))
        more = rows - listed[-1].rows if listed else None
        when = at.isoformat(timespec="seconds")
        listed.append(
            StoreVersion(
                *(number, when, rows, more, change.change, change.by, named), number == newest.version
            )
        )
    return listed


def resolve_version(folder: Location, wanted: str) -> int:
    """Return the number of a version, given as that or as a tag.

    Raises:
        NoSuchVersion: it is not there.
    """
    if not (wanted.isascii() and wanted.isdigit()):
        return tagged_version(folder, wanted)
    there = [each.version for each in list_versions(folder)]
    if int(wanted[:20]) not in there:
        raise NoSuchVersion(
            f"{folder} has no version {wanted[:20]} any more; there are {_words(there)}: see placeray "
            f"history --store {folder}"
        )
    return int(wanted)


def roll_back(writer: Writer, version: int) -> Committed:
    """Make a new version with the rows and the card of an old one, and return it.

    Raises:
        NoSuchVersion: the version cannot be had.
        StoreLocked: the lease is lost.
    """
    folder, table = writer.folder, writer.table
    if version == writer.committed.version:
        return writer.committed
    old = open_table(folder, version=version)
    if old.card_sha256 is None and table.card_sha256 is not None:
        raise NoSuchVersion(f"version {version} is of an older format: index into a new store instead")
    shards = sorted(used_shards(old))
    if not all_exist([shard_path(folder, shard) for shard in shards]):
        raise NoSuchVersion(f"features of version {version} are no longer there: choose a newer one")
    committed = writer.change(lambda: _restore(writer, version), did=f"rolled back to version {version}")
    writer.forget_keys()
    return committed


def _restore(writer: Writer, version: int) -> None:
    if isinstance(writer.table, LanceTable):
        writer.table.restore(version)
    else:
        assert isinstance(writer.lease, BucketLease)
        writer.table.restore(version, writer.lease.epoch)


def _opened(folder: Location, version: int) -> Table | None:
    try:
        return open_table(folder, version=version)
    except CorruptStore:
        return None


def _whole(table: Table) -> bool:
    return not any(name.endswith((NEXT, FORMER)) for name in table.schema.names)


def _words(numbers: list[int]) -> str:
    shown = [str(number) for number in numbers[-8:]]
    return ("..., " if len(numbers) > len(shown) else "") + ", ".join(shown)
