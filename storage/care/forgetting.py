"""Removal of photos from everything that a store holds: rows, features, old versions, tags and lists.

What cannot be reached from here stays: copies, backups, object versions that a bucket keeps, and what a
service still has in memory until it has moved on.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from storage.care.compaction import move_rows_out_of
from storage.care.leftovers import remove_leftovers
from storage.commit.leases import confirm_lease
from storage.commit.ledger import manifests, table_files, write_sums
from storage.commit.version_tags import protect_tagged, read_tags, remove_tag
from storage.commit.writer import Writer
from storage.errors import CorruptStore
from storage.layout import LISTS
from storage.objects.files import Location, read_bounded, write_file
from storage.table.fragments import Fragments
from storage.table.open_table import Table, open_table

__all__ = ["ForgetReport", "forget"]

_LIST_BYTES = 1 << 30


@dataclass(frozen=True)
class ForgetReport:
    """What was removed.

    Attributes:
        asked: How many photos were to go.
        deleted: How many of them the newest version had.
        version: The version after it.
        versions_removed: How many older versions were removed.
        tags_removed: Tags of versions that had, or may have had, one of the photos.
        shards_rewritten: How many shards had local features of them.
        files_removed: How many files of local features were removed.
    """

    asked: int
    deleted: int
    version: int
    versions_removed: int
    tags_removed: tuple[str, ...]
    shards_rewritten: int
    files_removed: int


def forget(writer: Writer, image_ids: Sequence[str]) -> ForgetReport:
    """Remove photos so that no file of the store holds them any more; the caller holds the lease.

    Untagged older versions are removed, whatever they hold; and tags of versions that had one of the photos,
    or whose files hold deleted rows, which may be theirs.

    Args:
        writer: The store's writer.
        image_ids: Keys, of photos in the store or deleted earlier.

    Raises:
        CorruptStore: a version cannot be read.
        OutOfSpace: the disk is full: running it again goes on.
    """
    folder, asked = writer.folder, sorted(set(image_ids))
    before = manifests(folder)
    uris, shards = _traces(folder, before, asked)
    deleted = writer.delete(asked)
    move_rows_out_of(folder, writer, sorted(shards))
    had_index = writer.table.has_index
    writer.change(writer.table.drop_deleted, did=f"forgot {len(asked)} photos")
    if had_index:  # it holds codes of deleted rows
        writer.change(writer.table.build_index, did="built the index on disk")
    tags = tuple(name for name, version in read_tags(folder).items() if _may_hold(folder, version, asked))
    for name in tags:
        remove_tag(folder, name, writer.lease)
    protect_tagged(folder, writer.table)
    writer.change(lambda: writer.table.optimize(older_than_s=0), did=f"forgot {len(asked)} photos")
    confirm_lease(writer.lease)
    write_sums(folder, table_files(folder))
    removed, _ = remove_leftovers(folder, writer.table, min_age_s=0)
    for name in LISTS:
        _drop_lines(folder / name, {*asked, *uris})
    return ForgetReport(
        asked=len(asked),
        deleted=deleted,
        version=writer.committed.version,
        versions_removed=len(set(before) - set(manifests(folder))),
        tags_removed=tags,
        shards_rewritten=len(shards),
        files_removed=len(removed),
    )


def _traces(folder: Location, versions: Sequence[int], image_ids: list[str]) -> tuple[set[str], set[str]]:
    """Return the uris and the shards of these photos in all versions."""
    uris: set[str] = set()
    shards: set[str] = set()
    for version in versions:
        rows = open_table(folder, version=version).find("image_id", image_ids, ["uri", "shard"])
        uris |= set(rows["uri"].to_pylist())
        shards |= {shard for shard in rows["shard"].to_pylist() if shard}
    return uris, shards


def _may_hold(folder: Location, version: int, image_ids: list[str]) -> bool:
    try:
        table: Table = open_table(folder, version=version)
        if len(table.find("image_id", image_ids, ["image_id"])):
            return True
        fragments = Fragments(table).by_number.values()
        return any(fragment.deletions is not None for fragment in fragments)
    except CorruptStore:
        return True


def _drop_lines(path: Location, texts: set[str]) -> None:
    """Remove the lines of a list that name one of these photos."""
    try:
        data = read_bounded(path, _LIST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    rows = list(csv.reader(io.StringIO(data, newline="")))
    kept = [row for row in rows if not texts.intersection(row)]
    if len(kept) < len(rows):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(kept)
        write_file(path, text.getvalue().encode())
