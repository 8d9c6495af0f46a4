"""Verification: read everything and report damage."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from storage.card import Card
from storage.card_files import first_card
from storage.care.leftovers import measure_files, unreferenced_files
from storage.care.named_files import problems_of
from storage.care.shard_check import ShardChecker
from storage.commit.current_card import card_of, check_table
from storage.commit.ledger import (
    Committed,
    check_manifests,
    foreign_sums,
    read_committed,
    read_sums,
)
from storage.errors import CorruptStore
from storage.layout import check_table_files, is_shard_name, table_file
from storage.objects.files import Location, file_sha256
from storage.objects.location import open_location
from storage.table.checksums import checksums_match
from storage.table.open_table import Table, open_table
from storage.table.salvage import readable_batches

__all__ = ["BadRow", "VerifyReport", "verify_store"]


@dataclass(frozen=True)
class BadRow:
    """A row that must not be returned by a search.

    Attributes:
        image_id: Its key as far as it can be read; None if it cannot.
        reason: What is wrong.
    """

    image_id: str | None
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """The result of reading a whole store.

    Attributes:
        version: The acknowledged version that was read; None if none can be.
        rows: Number of rows checked.
        problems: Damage to the table as a whole.
        bad_rows: Rows that are damaged, or whose features are.
        missing_shards: Shards that rows refer to and that do not exist.
        corrupt_shards: Shards that fail a checksum.
        orphan_shards: Shards that no row of the version refers to: garbage or work in progress, not an error.
        temp_files: Temporary files; not an error either.
        damaged_files: Files of the table that differ from their recorded digest.
        damaged_artifacts: Cards and artifacts that are damaged or missing, a sentence each.
        leftover_bytes: Size of the orphaned shards and temporary files.
        leftovers: How much that is and when `compact` removes it, in words.
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
    damaged_artifacts: list[str] = field(default_factory=list)
    leftover_bytes: int = 0
    leftovers: str = "none"

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged or missing."""
        damaged_rows = self.bad_rows or self.missing_shards or self.corrupt_shards
        return not (self.problems or damaged_rows or self.damaged_files or self.damaged_artifacts)


def verify_store(uri: str | Location) -> VerifyReport:
    """Check every checksum, descriptor, feature row and file of a store, even if it cannot be opened.

    Raises:
        StoreNotFound: there is no store.
        CardMismatch: the store has a newer format.
        CorruptStore: the card cannot be read, or there are links in the store.
        NotReadable: this user may not read the store.
    """
    folder = open_location(uri)
    first = first_card(folder)
    check_table_files(folder)
    try:
        committed = read_committed(folder)
        if committed is None:
            return VerifyReport(problems=["COMMITTED is missing"])
        check_manifests(folder, committed)
        if open_table(folder).version < committed.version:
            return VerifyReport(problems=["the head is older than the acknowledged version"])
        table = open_table(folder, version=committed.version)
        card = card_of(folder, committed.card_sha256, first)
        check_table(table, committed, card)
    except CorruptStore as error:
        return VerifyReport(problems=[str(error)])
    report = VerifyReport(version=committed.version, rows=committed.rows)
    report.damaged_files.extend(_damaged_files(folder))
    report.damaged_artifacts.extend(problems_of(folder, card))
    foreign = foreign_sums(folder)
    if foreign:
        report.problems.append(
            f"SHA256SUMS names {len(foreign)} files that are not the table's (first: {min(foreign)[:80]!r})"
        )
    _check_table(folder, card, table, committed, report)
    left = measure_files(folder, report.orphan_shards, report.temp_files)
    return replace(report, leftover_bytes=left.bytes, leftovers=str(left))


def _damaged_files(folder: Location) -> Iterator[str]:
    for name, digest in read_sums(folder).items():
        # A missing file was dropped with its version; if it were needed, reading the rows would fail.
        with contextlib.suppress(FileNotFoundError):
            if file_sha256(table_file(folder, name)) != digest:
                yield name


def _check_table(
    folder: Location, card: Card, table: Table, committed: Committed, report: VerifyReport
) -> None:
    key_counts: Counter[str] = Counter()
    shards: dict[str, list[tuple[int, str]]] = {}
    total = 0
    for batch, unreadable in readable_batches(table):
        total += unreadable + len(batch)
        report.bad_rows.extend([BadRow(None, "the row cannot be read")] * unreadable)
        is_intact = _check_rows(batch, card, report)
        intact = batch.filter(pa.array(is_intact)).select(["image_id", "shard", "row"]).to_pydict()
        keys = intact["image_id"]
        key_counts.update(keys)
        for key, shard, row in zip(keys, intact["shard"], intact["row"], strict=True):
            shards.setdefault(shard, []).append((row, key))
    if total != committed.rows:
        report.problems.append(f"the table has {total} rows, but {committed.rows} were acknowledged")
    duplicates = [key for key, count in key_counts.items() if count > 1]
    if duplicates:
        report.problems.append(f"{len(duplicates)} keys are stored more than once (first: {min(duplicates)})")
    _check_shards(folder, card, shards, report)


def _check_rows(batch: pa.Table, card: Card, report: VerifyReport) -> np.ndarray:
    """Report rows that fail their checksum; return (N,) bool, True for the others."""
    is_intact = checksums_match(batch, card)
    for i in np.flatnonzero(~is_intact):
        key = batch["image_id"].cast(pa.binary())[int(i)].as_py()
        text = None if key is None else key.decode(errors="replace")
        report.bad_rows.append(BadRow(text, "the row fails its checksum"))
    return is_intact


def _check_shards(
    folder: Location, card: Card, shards: dict[str, list[tuple[int, str]]], report: VerifyReport
) -> None:
    try:
        checker = ShardChecker(folder, card)
    except CorruptStore as error:
        report.problems.append(str(error))
        return
    if not card.has_features:
        shards.pop("", None)
    for shard, rows in sorted(shards.items()):
        if not is_shard_name(shard):
            report.bad_rows.extend(
                BadRow(key, "its shard has no name that placeray gives") for _, key in rows
            )
            continue
        checked = checker.check(shard, sorted(rows))
        if checked is None:
            report.missing_shards.append(shard)
            report.bad_rows.extend(BadRow(key, "its shard is missing") for _, key in rows)
            continue
        reasons = checked.reasons
        bad = [BadRow(key, f"features: {reason}") for key, reason in reasons if reason is not None]
        if not checked.intact:
            # The file is replaced as a whole, whichever part of it is damaged.
            report.corrupt_shards.append(shard)
            bad = [BadRow(key, f"features: {reason or 'the shard is damaged'}") for key, reason in reasons]
        report.bad_rows.extend(bad)
    orphans, temporary = unreferenced_files(folder, set(shards))
    report.orphan_shards.extend(orphans)
    report.temp_files.extend(temporary)
