"""Repair of a store in a bucket: damaged rows are deleted, sound ones beside them written again.

The table is never overwritten as a whole: that is the one change which a fence does not keep a paused writer
from destroying.
"""

from __future__ import annotations

import time

import pyarrow as pa

from storage.care.named_files import damaged_files
from storage.care.repair_report import RepairReport
from storage.care.sound_rows import sound_rows
from storage.care.verify import VerifyReport, verify_store
from storage.commit.leases import open_lease
from storage.commit.ledger import manifests, write_sums
from storage.commit.writer import Writer
from storage.features.shards import shard_path
from storage.layout import QUARANTINE_FOLDER, TABLE_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location
from storage.table.bucket_table import BucketTable
from storage.table.lance_table import manifest_name
from storage.table.manifest import check_manifest

__all__ = ["repair_bucket"]

_MAX_BYTES = 1 << 40


def repair_bucket(location: BucketPath) -> RepairReport:
    """Remove what is damaged; running the index command again restores it.

    Raises:
        StoreLocked: another writer holds the lease.
        CorruptStore: the acknowledged version cannot be opened, or its card cannot be read.
    """
    actions: list[str] = []
    quarantined: list[str] = []
    for version in manifests(location):
        manifest = location / TABLE_FOLDER / "_versions" / manifest_name(version)
        check_manifest(location, manifest, may_be_damaged=True)
    with open_lease(location) as lease:
        writer = Writer(location, lease)
        for path in damaged_files(location):
            if path.stem not in (writer.card.sha256, *writer.card.artifacts):
                _quarantine(location, path, quarantined)
                actions.append(f"{path.parent.name}/{path.name} is damaged: moved it aside")
        report = verify_store(location)
        if report.bad_rows or report.damaged_files or report.problems:
            _replace_damaged(writer, report, actions)
        for shard in report.corrupt_shards:
            _quarantine(location, shard_path(location, shard), quarantined)
        named = sorted({row.image_id for row in report.bad_rows if row.image_id is not None})
        unnamed = sum(row.image_id is None for row in report.bad_rows)
        return RepairReport(writer.committed.version, actions, named, unnamed, quarantined)


def _replace_damaged(writer: Writer, report: VerifyReport, actions: list[str]) -> None:
    table = writer.table
    assert isinstance(table, BucketTable)
    bad = {row.image_id for row in report.bad_rows}
    sound = sound_rows(table, writer.card, bad)

    def action() -> None:
        table.drop_fragments_of(report.damaged_files)
        table.drop_unreadable_fragments()
        keys = [key for batch in table.scan(["image_id"]) for key in batch["image_id"].to_pylist()]
        twice = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
        table.delete(sorted({key for key in keys if key in bad or key in twice}))
        stays = set(keys) - bad - twice
        lost = [key not in stays for key in sound["image_id"].to_pylist()]
        again = sound.filter(pa.array(lost, pa.bool_()))
        if len(again):
            table.append(again)

    committed = writer.change(action)
    write_sums(writer.folder, sorted(table.files))
    actions.append(f"wrote version {committed.version} of the {committed.rows} sound rows")


def _quarantine(location: BucketPath, path: Location, quarantined: list[str]) -> None:
    """Copy an object aside, then remove it; there is no rename in a bucket."""
    assert isinstance(path, BucketPath)
    target = location / QUARANTINE_FOLDER / f"{time.time_ns()}-{path.name}"
    target.objects.put(target.key, path.objects.get(path.key, _MAX_BYTES).data)
    path.objects.delete([path.key])
    quarantined.append(f"{QUARANTINE_FOLDER}/{target.name}")
