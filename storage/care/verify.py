"""Reading everything to find damage, and taking the damage out so that indexing again heals it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.card import Card, read_card
from storage.care.compaction import unreferenced_files
from storage.commit.ledger import (
    Committed,
    check_manifests,
    file_sha256,
    read_committed,
    read_sums,
)
from storage.errors import CorruptStore
from storage.features.reader import FeatureReader
from storage.features.shards import shard_intact, shard_path
from storage.table.checksums import checksums_match
from storage.table.lance_table import LanceTable
from storage.table.salvage import readable_batches
from storage.uri import local_folder

__all__ = ["BadRow", "VerifyReport", "verify_store"]


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


def verify_store(uri: str | Path) -> VerifyReport:
    """Check every checksum, descriptor, feature row and file of a store, also of one that cannot be opened.

    Raises:
        StoreNotFound: there is no store.
        CardMismatch: the store is of a newer format.
        CorruptStore: the card cannot be read.
    """
    folder = local_folder(uri)
    card = read_card(folder)
    try:
        committed = read_committed(folder)
        if committed is None:
            return VerifyReport(problems=["COMMITTED is missing"])
        check_manifests(folder, committed)
        if LanceTable.open(folder).version < committed.version:
            return VerifyReport(problems=["the head is older than the acknowledged version"])
        table = LanceTable.open(folder, version=committed.version)
    except CorruptStore as error:
        return VerifyReport(problems=[str(error)])
    report = VerifyReport(version=committed.version, rows=committed.rows)
    report.damaged_files.extend(_damaged_files(folder))
    _check_table(folder, card, table, committed, report)
    return report


def _damaged_files(folder: Path) -> Iterator[str]:
    for name, digest in read_sums(folder).items():
        # A file that is gone was dropped with its version; were it needed, reading the rows would fail.
        if (folder / name).is_file() and file_sha256(folder / name) != digest:
            yield name


def _check_table(
    folder: Path, card: Card, table: LanceTable, committed: Committed, report: VerifyReport
) -> None:
    found: Counter[str] = Counter()
    shards: dict[str, list[tuple[int, str]]] = {}
    total = 0
    for piece, unreadable in readable_batches(table):
        total += unreadable + len(piece)
        report.bad_rows.extend([BadRow(None, "the row cannot be read")] * unreadable)
        good = _check_rows(piece, report)
        sound = piece.filter(pa.array(good)).select(["image_id", "shard", "row"]).to_pydict()
        keys = sound["image_id"]
        found.update(keys)
        for key, shard, row in zip(keys, sound["shard"], sound["row"], strict=True):
            shards.setdefault(shard, []).append((row, key))
    if total != committed.rows:
        report.problems.append(f"the table has {total} rows, acknowledged were {committed.rows}")
    twice = [key for key, times in found.items() if times > 1]
    if twice:
        report.problems.append(f"{len(twice)} keys are stored twice (first: {min(twice)})")
    _check_shards(folder, card, shards, report)


def _check_rows(piece: pa.Table, report: VerifyReport) -> np.ndarray:
    """Report rows that fail their checksum; return (N,) bool, True for the others."""
    good = checksums_match(piece)
    for i in np.flatnonzero(~good):
        key = piece["image_id"].cast(pa.binary())[int(i)].as_py()
        text = None if key is None else key.decode(errors="replace")
        report.bad_rows.append(BadRow(text, "the row fails its checksum"))
    return good


def _check_shards(
    folder: Path, card: Card, shards: dict[str, list[tuple[int, str]]], report: VerifyReport
) -> None:
    try:
        reader = FeatureReader(folder, card)
    except CorruptStore as error:
        report.problems.append(str(error))
        return
    out = np.empty(reader.codec.row_bytes, np.uint8)
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
    orphans, temporary = unreferenced_files(folder, set(shards))
    report.orphan_shards.extend(orphans)
    report.temp_files.extend(temporary)
