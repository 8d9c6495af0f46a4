"""Repair: remove what is damaged, so that running the index command again restores it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.card import Card
from storage.card_files import card_path, first_card, read_card, write_card
from storage.care.named_files import damaged_files
from storage.care.verify import VerifyReport, verify_store
from storage.commit.lease import Lease
from storage.commit.ledger import (
    Committed,
    acknowledge,
    file_sha256,
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
from storage.table.checksums import intact_rows
from storage.table.lance_table import LanceTable, manifest_name
from storage.table.manifest import check_manifest
from storage.table.salvage import readable_batches
from storage.table.schema import check_schema, table_schema, with_optional_columns
from storage.uri import local_folder

__all__ = ["RepairReport", "repair_store"]


@dataclass(frozen=True)
class RepairReport:
    """The result of a repair.

    Attributes:
        version: The acknowledged version after it.
        actions: A sentence per step taken.
        removed: Keys of the removed rows: index their images again.
        removed_unnamed: Number of further removed rows, whose keys could not be read.
        quarantined: Files moved to `<store>/quarantine/`.
    """

    version: int
    actions: list[str]
    removed: list[str]
    removed_unnamed: int
    quarantined: list[str]


def repair_store(uri: str | Path) -> RepairReport:
    """Remove what is damaged; running the index command again restores it.

    Raises:
        StoreNotFound: there is no store.
        StoreLocked: another writer holds the lease.
        CorruptStore: no version can be read, or the card cannot, or it leads outside the store.
        OutOfSpace: the disk is full.
        NotWritable: the store is on a read-only file system, or belongs to another user.
    """
    folder = local_folder(uri)
    first_card(folder)
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
    rows = with_optional_columns(_intact_rows(table, card, bad_ids), card)
    if card.format_version >= 3:
        write_card(folder, card)
    schema = table_schema(card)
    with explain_write_errors(folder / TABLE_FOLDER, rows.nbytes):
        table.replace_all(iter(rows.select(schema.names).cast(schema).to_batches(8192)), schema)
    for name in report.damaged_files:
        if "/_versions/" in name and (path := table_file(folder, name)).is_file():
            _quarantine(folder, path, quarantined)
    write_sums(folder)
    committed = acknowledge(folder, table, known=set(read_sums(folder)))
    actions.append(f"wrote version {committed.version} of the {committed.rows} sound rows")
    return committed


def _intact_rows(table: LanceTable, card: Card, bad_ids: set[str | None]) -> pa.Table:
    """Return the intact rows whose key is not in `bad_ids`; of equal keys the latest."""
    batches = []
    for batch, _ in readable_batches(table):
        batch = intact_rows(batch, card)
        keys = batch["image_id"].to_pylist()
        batches.append(batch.filter(pa.array([key not in bad_ids for key in keys], pa.bool_())))
    rows = pa.concat_tables(batches)
    latest: dict[str, int] = {}
    stored_at = rows["indexed_at"].to_pylist()
    for i, key in enumerate(rows["image_id"].to_pylist()):
        if key not in latest or stored_at[i] >= stored_at[latest[key]]:
            latest[key] = i
    return rows.take(pa.array(sorted(latest.values()), pa.int64()))


def _quarantine(folder: Path, path: Path, quarantined: list[str]) -> None:
    target = folder / QUARANTINE_FOLDER / f"{time.time_ns()}-{path.name}"
    with explain_write_errors(target, 0):
        target.parent.mkdir(exist_ok=True)
        os.rename(path, target)  # within one store; never a copy
    quarantined.append(f"quarantine/{target.name}")
