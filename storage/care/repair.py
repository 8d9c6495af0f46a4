"""Repair: remove what is damaged, so that running the index command again restores it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.card import Card, read_card
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
from storage.errors import CorruptStore
from storage.features.shards import shard_path
from storage.table.checksums import intact_rows
from storage.table.lance_table import TABLE_FOLDER, LanceTable, manifest_name
from storage.table.salvage import readable_batches
from storage.table.schema import table_schema
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
        CorruptStore: no version can be read, or the card cannot.
    """
    folder = local_folder(uri)
    card = read_card(folder)
    with Lease(folder):
        actions: list[str] = []
        quarantined: list[str] = []
        committed = _restore_head(folder, actions, quarantined)
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
    sums = read_sums(folder)
    for version in reversed(manifests(folder)):
        path = versions / manifest_name(version)
        newer = committed is not None and version > committed.version
        if newer or not _is_readable(folder, version, sums):
            _quarantine(folder, path, quarantined)
            reason = "was never acknowledged" if newer else "cannot be read"
            actions.append(f"version {version} {reason}: moved its manifest aside")
            continue
        if committed is not None and version == committed.version:
            return committed
        actions.append(
            f"went back to version {version}"
            + (f" from {committed.version}: rows committed since are gone, index again" if committed else "")
        )
        table = LanceTable.open(folder, version=version)
        return acknowledge(folder, version, table.count(), known=set(sums))
    raise CorruptStore(f"{folder}: no version can be read: restore a backup, or index into a new store")


def _is_readable(folder: Path, version: int, sums: dict[str, str]) -> bool:
    name = f"{TABLE_FOLDER}/_versions/{manifest_name(version)}"
    if name in sums and file_sha256(folder / name) != sums[name]:
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
    rows = _intact_rows(table, bad_ids)
    schema = table_schema(card)
    table.replace_all(iter(rows.cast(schema).to_batches(8192)), schema)
    for name in report.damaged_files:
        if "/_versions/" in name and (folder / name).is_file():
            _quarantine(folder, folder / name, quarantined)
    write_sums(folder)
    committed = acknowledge(folder, table.version, table.count(), known=set(read_sums(folder)))
    actions.append(f"wrote version {committed.version} of the {committed.rows} sound rows")
    return committed


def _intact_rows(table: LanceTable, bad_ids: set[str | None]) -> pa.Table:
    """Return the intact rows whose key is not in `bad_ids`; of equal keys the latest."""
    batches = []
    for batch, _ in readable_batches(table):
        batch = intact_rows(batch)
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
    target = folder / "quarantine" / f"{time.time_ns()}-{path.name}"
    target.parent.mkdir(exist_ok=True)
    shutil.move(path, target)
    quarantined.append(f"quarantine/{target.name}")
