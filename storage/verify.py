"""Reading everything to find damage, and taking the damage out so that indexing again heals it."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.card import Card
from storage.compaction import leftovers
from storage.durable import local_folder
from storage.errors import CorruptStore, StoreNotFound
from storage.features import FeatureReader, shard_intact, shard_path
from storage.lease import Lease
from storage.ledger import (
    Committed,
    acknowledge,
    check_manifests,
    file_sha256,
    foreign_manifests,
    manifests,
    read_committed,
    read_sums,
    write_sums,
)
from storage.search import readable_pieces
from storage.vectors import TABLE_FOLDER, VectorTable, manifest_name, row_crc32, table_schema

__all__ = ["BadRow", "RepairReport", "VerifyReport", "repair_store", "verify_store"]


@dataclass(frozen=True)
class BadRow:
    """A row that may not be answered.

    Attributes:
        image_id: Its key as far as it can be read; None where it cannot.
        reason: What is wrong.
    """

    image_id: str | None
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What a full read found.

    Attributes:
        version: The acknowledged version that was read; None where none can be.
        rows: How many rows were checked.
        problems: What is wrong with the table as a whole.
        bad_rows: Rows that are damaged, or whose features are.
        missing_shards: Shards that rows name and that do not exist.
        corrupt_shards: Shards that fail a checksum.
        orphan_shards: Shards that no row of the version names: garbage or work in progress, no error.
        temp_files: Temporary files: the same.
        damaged_files: Files of the table that differ from their recorded digest.
    """

    version: int | None = None
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    missing_shards: list[str] = field(default_factory=list)
    corrupt_shards: list[str] = field(default_factory=list)
    orphan_shards: list[str] = field(default_factory=list)
    temp_files: list[str] = field(default_factory=list)
    damaged_files: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged or missing."""
        found = (self.problems, self.bad_rows, self.missing_shards, self.corrupt_shards, self.damaged_files)
        return not any(found)


@dataclass(frozen=True)
class RepairReport:
    """What a repair did.

    Attributes:
        version: The acknowledged version after it.
        actions: Each step taken, in words.
        removed: Keys of the rows taken out: index their images again.
        removed_unnamed: How many more were taken out whose key could not be read.
        quarantined: Files moved to `<store>/quarantine/`.
    """

    version: int
    actions: list[str]
    removed: list[str]
    removed_unnamed: int
    quarantined: list[str]


def verify_store(uri: str | Path) -> VerifyReport:
    """Check every checksum, descriptor, feature row and file of a store, also of one that cannot be opened.

    Raises:
        StoreNotFound: there is no store.
        CardMismatch: the store is of a newer format.
        CorruptStore: the card cannot be read.
    """
    folder = local_folder(uri)
    card = _card(folder)
    try:
        committed = read_committed(folder)
        if committed is None:
            return VerifyReport(problems=["COMMITTED is missing"])
        check_manifests(folder, committed)
        if VectorTable.open(folder).version < committed.version:
            return VerifyReport(problems=["the head is older than the acknowledged version"])
        table = VectorTable.open(folder, version=committed.version)
    except CorruptStore as error:
        return VerifyReport(problems=[str(error)])
    report = VerifyReport(version=committed.version, rows=committed.rows)
    report.damaged_files.extend(_damaged_files(folder))
    _check_table(folder, card, table, committed, report)
    return report


def repair_store(uri: str | Path) -> RepairReport:
    """Take out what is damaged; running the index command again restores it.

    Raises:
        StoreNotFound: there is no store.
        StoreLocked: a writer is at work.
        CorruptStore: no version can be read, or the card cannot.
    """
    folder = local_folder(uri)
    card = _card(folder)
    with Lease(folder):
        actions: list[str] = []
        quarantined: list[str] = []
        committed = _restore_head(folder, actions, quarantined)
        report = verify_store(folder)
        bad = report.bad_rows
        if bad or report.damaged_files or report.problems:
            committed = _rewrite_table(folder, card, report, actions, quarantined)
        for shard in report.corrupt_shards:
            _quarantine(folder, shard_path(folder, shard), quarantined)
        named = sorted({row.image_id for row in bad if row.image_id is not None})
        unnamed = sum(row.image_id is None for row in bad)
        return RepairReport(committed.version, actions, named, unnamed, quarantined)


def _card(folder: Path) -> Card:
    if not (folder / "card.json").is_file():
        raise StoreNotFound(f"{folder} holds no store: make one with placeray index SOURCE --store {folder}")
    return Card.from_json((folder / "card.json").read_text(errors="replace"))


def _damaged_files(folder: Path) -> Iterator[str]:
    for name, digest in read_sums(folder).items():
        # A file that is gone was dropped with its version; were it needed, reading the rows would fail.
        if (folder / name).is_file() and file_sha256(folder / name) != digest:
            yield name


def _check_table(
    folder: Path, card: Card, table: VectorTable, committed: Committed, report: VerifyReport
) -> None:
    found: Counter[str] = Counter()
    shards: dict[str, list[tuple[int, str]]] = {}
    total = 0
    for piece, unreadable in readable_pieces(table):
        total += unreadable + len(piece)
        report.bad_rows.extend([BadRow(None, "the row cannot be read")] * unreadable)
        good = _check_rows(piece, report)
        keys = (
            piece["image_id"].to_pylist()
            if good.all()
            else piece.filter(pa.array(good))["image_id"].to_pylist()
        )
        places = piece.filter(pa.array(good)).select(["shard", "row"]).to_pydict()
        found.update(keys)
        for key, shard, row in zip(keys, places["shard"], places["row"], strict=True):
            shards.setdefault(shard, []).append((row, key))
    if total != committed.rows:
        report.problems.append(f"the table has {total} rows, acknowledged were {committed.rows}")
    twice = [key for key, times in found.items() if times > 1]
    if twice:
        report.problems.append(f"{len(twice)} keys are stored twice (first: {min(twice)})")
    _check_shards(folder, card, shards, report)


def _check_rows(piece: pa.Table, report: VerifyReport) -> np.ndarray:
    """Report rows that fail their checksum; return (N,) bool, True for the others."""
    if not len(piece):
        return np.ones(0, dtype=bool)
    good = (row_crc32(piece) == np.asarray(piece["crc32"].fill_null(0))) & ~np.asarray(
        piece["crc32"].is_null()
    )
    for i in np.flatnonzero(~good):
        key = piece["image_id"].cast(pa.binary())[int(i)].as_py()
        text = None if key is None else key.decode(errors="replace")
        report.bad_rows.append(BadRow(text, "the row fails its checksum"))
    return np.asarray(good)


def _check_shards(
    folder: Path, card: Card, shards: dict[str, list[tuple[int, str]]], report: VerifyReport
) -> None:
    reader = FeatureReader(folder, card)
    out = np.empty((card.grid_height, card.grid_width, card.feature_dim), np.float16)
    for shard, rows in sorted(shards.items()):
        path = shard_path(folder, shard)
        if not path.is_file():
            report.missing_shards.append(shard)
            report.bad_rows.extend(BadRow(key, "its shard is missing") for _, key in rows)
            continue
        reasons = [(key, reader.read(shard, row, key, out)) for row, key in sorted(rows)]
        bad = [BadRow(key, f"features: {reason}") for key, reason in reasons if reason is not None]
        if not shard_intact(folder, shard):
            # Its file is replaced as a whole, whatever part of it the damage hit.
            report.corrupt_shards.append(shard)
            bad = [BadRow(key, f"features: {reason or 'the shard is damaged'}") for key, reason in reasons]
        report.bad_rows.extend(bad)
    orphans, temporary = leftovers(folder, set(shards))
    report.orphan_shards.extend(orphans)
    report.temp_files.extend(temporary)


def _restore_head(folder: Path, actions: list[str], quarantined: list[str]) -> Committed:
    """Move manifests aside until an acknowledged version opens; acknowledge it where that is another."""
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
        if newer or not _opens(folder, version, sums):
            _quarantine(folder, path, quarantined)
            why = "was never acknowledged" if newer else "cannot be read"
            actions.append(f"version {version} {why}: moved its manifest aside")
            continue
        if committed is not None and version == committed.version:
            return committed
        actions.append(
            f"went back to version {version}"
            + (f" from {committed.version}: rows committed since are gone, index again" if committed else "")
        )
        table = VectorTable.open(folder, version=version)
        return acknowledge(folder, version, table.count(), known=set(sums))
    raise CorruptStore(f"{folder}: no version can be read: restore a backup, or index into a new store")


def _opens(folder: Path, version: int, sums: dict[str, str]) -> bool:
    name = f"{TABLE_FOLDER}/_versions/{manifest_name(version)}"
    if name in sums and file_sha256(folder / name) != sums[name]:
        return False
    try:
        return VectorTable.open(folder, version=version).version == version
    except CorruptStore:
        return False


def _rewrite_table(
    folder: Path, card: Card, report: VerifyReport, actions: list[str], quarantined: list[str]
) -> Committed:
    """Write a version of only the sound rows into new files."""
    bad = {row.image_id for row in report.bad_rows}
    table = VectorTable.open(folder)
    keep = _sound_rows(table, bad)
    schema = table_schema(card)
    table.replace_all(iter(keep.cast(schema).to_batches(8192)), schema)
    for name in report.damaged_files:
        if "/_versions/" in name and (folder / name).is_file():
            _quarantine(folder, folder / name, quarantined)
    write_sums(folder)
    committed = acknowledge(folder, table.version, table.count(), known=set(read_sums(folder)))
    actions.append(f"wrote version {committed.version} of the {committed.rows} sound rows")
    return committed


def _sound_rows(table: VectorTable, bad: set[str | None]) -> pa.Table:
    """Return the rows whose checksum holds and whose key is not in `bad`; of equal keys the latest."""
    pieces = []
    for piece, _ in readable_pieces(table):
        good = (
            (row_crc32(piece) == np.asarray(piece["crc32"].fill_null(0))) if len(piece) else np.ones(0, bool)
        )
        piece = piece.filter(pa.array(good, pa.bool_()))
        keys = piece["image_id"].to_pylist()
        pieces.append(piece.filter(pa.array([key not in bad for key in keys], pa.bool_())))
    rows = pa.concat_tables(pieces)
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
