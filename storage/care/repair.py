"""Repair: remove what is damaged, so that running the index command again restores it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from storage.card import Card
from storage.card_files import card_path, first_card, read_card, write_card
from storage.care.bucket_repair import repair_bucket
from storage.care.named_files import damaged_files
from storage.care.repair_report import RepairReport
from storage.care.sound_rows import sound_rows
from storage.care.verify import VerifyReport, verify_store
from storage.commit.lease import Lease
from storage.commit.ledger import (
    Committed,
    acknowledge,
    foreign_manifests,
    manifests,
    read_committed,
    read_sums,
    write_sums,
)
from storage.durable import explain_write_errors
from storage.errors import CorruptStore
from storage.features.shards import shard_path
from storage.layout import QUARANTINE_FOLDER, TABLE_FOLDER, check_table_files, table_file
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location, exists, file_sha256
from storage.objects.location import open_location
from storage.table.lance_table import LanceTable, manifest_name
from storage.table.manifest import check_manifest
from storage.table.schema import check_schema, table_schema, with_optional_columns

__all__ = ["RepairReport", "repair_store"]


def repair_store(uri: str | Location) -> RepairReport:
    """Remove what is damaged; running the index command again restores it.

    Raises:
        StoreNotFound: there is no store.
        StoreLocked: another writer holds the lease.
        CorruptStore: no version can be read, or the card cannot, or it leads outside the store.
        OutOfSpace: the disk is full.
        NotWritable: the store is on a read-only file system, or belongs to another user.
    """
    folder = open_location(uri)
    first_card(folder)
    if isinstance(folder, BucketPath):
        return repair_bucket(folder)
    check_table_files(folder)
    for version in manifests(folder):
        path = folder / TABLE_FOLDER / "_versions" / manifest_name(version)
        check_manifest(folder, path, may_be_damaged=True)
    with Lease(folder):
        actions: list[str] = []
        quarantined: list[str] = []
        committed = _restore_head(folder, actions, quarantined)
        card = _restore_card(folder, committed, actions)
        _set_aside_damaged(folder, card, actions, quarantined)
        report = verify_store(folder)
        bad_rows = report.bad_rows
        if bad_rows or report.damaged_files or report.problems:
            committed = _rewrite_table(folder, card, report, actions, quarantined)
        for shard in report.corrupt_shards:
            _quarantine(folder, shard_path(folder, shard), quarantined)
        named = sorted({row.image_id for row in bad_rows if row.image_id is not None})
        unnamed = sum(row.image_id is None for row in bad_rows)
        return RepairReport(committed.version, actions, named, unnamed, quarantined)


def _restore_head(folder: Path, actions: list[str], quarantined: list[str]) -> Committed:
    """Quarantine manifests until an acknowledged version opens; acknowledge it if it is an older one."""
    versions = folder / TABLE_FOLDER / "_versions"
    for name in foreign_manifests(folder):
        _quarantine(folder, versions / name, quarantined)
        actions.append(f"moved the foreign file {name} aside")
    try:
        committed = read_committed(folder)
    except CorruptStore:
        committed = None
        _quarantine(folder, folder / "COMMITTED", quarantined)
        actions.append("COMMITTED could not be read: took the newest version that can be")
    sums = _restore_sums(folder, actions, quarantined)
    for version in reversed(manifests(folder)):
        path = versions / manifest_name(version)
        newer = committed is not None and version > committed.version
        if newer or not _is_readable(folder, version, sums):
            _quarantine(folder, path, quarantined)
            reason = "was never acknowledged" if newer else "cannot be read"
            actions.append(f"version {version} {reason}: moved its manifest aside")
            continue
        table = LanceTable.open(folder, version=version)
        if committed is not None and version == committed.version:
            if table.card_sha256 == committed.card_sha256:
                return committed
            actions.append("COMMITTED named another card: took the one that the version names")
        else:
            lost = ": rows committed since are gone, index again"
            actions.append(
                f"went back to version {version}" + (f" from {committed.version}{lost}" if committed else "")
            )
        return acknowledge(folder, table, known=set(sums))
    raise CorruptStore(f"{folder}: no version can be read: restore a backup, or index into a new store")


def _restore_card(folder: Path, committed: Committed, actions: list[str]) -> Card:
    """Return the card of the acknowledged version; a damaged one is written anew if card.json is the same.

    Raises:
        CorruptStore: it cannot be read, and only a backup has it.
    """
    first = first_card(folder)
    try:
        return read_card(folder, committed.card_sha256)
    except CorruptStore:
        if first.sha256 != committed.card_sha256:
            raise
    write_card(folder, first)
    actions.append(f"{card_path(folder, first.sha256).name} could not be read: wrote it anew from card.json")
    return first


def _set_aside_damaged(folder: Path, card: Card, actions: list[str], quarantined: list[str]) -> None:
    """Quarantine damaged cards and artifacts that the acknowledged version does not need."""
    for path in damaged_files(folder):
        if path.stem not in (card.sha256, *card.artifacts):
            _quarantine(folder, path, quarantined)
            actions.append(f"{path.parent.name}/{path.name} is damaged: moved it aside")


def _restore_sums(folder: Path, actions: list[str], quarantined: list[str]) -> dict[str, str]:
    """Return the recorded digests; a file of them that cannot be read is moved aside."""
    try:
        return read_sums(folder)
    except CorruptStore:
        _quarantine(folder, folder / "SHA256SUMS", quarantined)
        actions.append("SHA256SUMS could not be read: moved it aside")
        return {}


def _is_readable(folder: Path, version: int, sums: dict[str, str]) -> bool:
    name = f"{TABLE_FOLDER}/_versions/{manifest_name(version)}"
    if name in sums and file_sha256(table_file(folder, name)) != sums[name]:
        return False
    try:
        return LanceTable.open(folder, version=version).version == version
    except CorruptStore:
        return False


def _rewrite_table(
    folder: Path, card: Card, report: VerifyReport, actions: list[str], quarantined: list[str]
) -> Committed:
    """Write a version of the intact rows only, into new files."""
    bad_ids = {row.image_id for row in report.bad_rows}
    table = LanceTable.open(folder)
    check_schema(table.schema, card)
    rows = with_optional_columns(sound_rows(table, card, bad_ids), card)
    if card.format_version >= 3:
        write_card(folder, card)
    schema = table_schema(card)
    with explain_write_errors(folder / TABLE_FOLDER, rows.nbytes):
        table.replace_all(iter(rows.select(schema.names).cast(schema).to_batches(8192)), schema)
    for name in report.damaged_files:
        if "/_versions/" in name and exists(path := table_file(folder, name)):
            _quarantine(folder, path, quarantined)
    write_sums(folder)
    committed = acknowledge(folder, table, known=set(read_sums(folder)))
    actions.append(f"wrote version {committed.version} of the {committed.rows} sound rows")
    return committed


def _quarantine(folder: Path, path: Location, quarantined: list[str]) -> None:
    assert isinstance(path, Path)
    target = folder / QUARANTINE_FOLDER / f"{time.time_ns()}-{path.name}"
    with explain_write_errors(target, 0):
        target.parent.mkdir(exist_ok=True)
        os.rename(path, target)  # within one store; never a copy
    quarantined.append(f"quarantine/{target.name}")
