"""Compaction: merge small files, drop old versions, free the space of files that no version uses."""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.care.named_files import unnamed_files
from storage.commit.ledger import manifests, table_files, write_sums
from storage.commit.writer import Writer
from storage.durable import explain_write_errors
from storage.features.reader import FeatureReader
from storage.features.shards import shard_path, write_shard
from storage.layout import FEATURES_FOLDER, is_shard_name, is_temporary_shard
from storage.table.checksums import intact_rows
from storage.table.lance_table import LanceTable
from storage.table.schema import FORMER, OPTIONAL_COLUMNS, row_schema, to_records

__all__ = ["CompactReport", "compact_store", "rows_by_shard", "unreferenced_files"]

_GRACE_S = 3600.0  # a newer file may belong to a batch that is not committed yet
_REWRITE_ROWS = 64
_NEVER_S = 1e9
_MARGIN_S = 60.0


@dataclass(frozen=True)
class CompactReport:
    """The result of a compaction.

    Attributes:
        version: The version after it.
        versions_removed: Number of old versions dropped.
        shards_rewritten: Number of shards of which less than half was in use.
        files_removed: Names of the removed files: features, and cards and artifacts of dropped versions.
        bytes_freed: Their size.
    """

    version: int
    versions_removed: int
    shards_rewritten: int
    files_removed: tuple[str, ...]
    bytes_freed: int


def compact_store(folder: Path, writer: Writer, *, keep_versions_s: float) -> CompactReport:
    """Compact the store in `folder`.

    Args:
        folder: The store's folder.
        writer: The store's writer, with the lease taken.
        keep_versions_s: Versions that were the newest within this time stay readable.
    """
    rewritten = _rewrite_sparse_shards(folder, writer)
    before = manifests(folder)
    writer.change(lambda: _merge(writer.table))
    # In a second pass, so that the time the merge takes does not shift the age of versions.
    older_than_s = _cutoff_s(writer.table.versions(), keep_versions_s)
    committed = writer.change(lambda: writer.table.optimize(older_than_s=older_than_s))
    write_sums(folder, table_files(folder))
    dropped = len(set(before) - set(manifests(folder)))
    removed, freed = _remove_leftovers(folder, writer.table, min_age_s=keep_versions_s + _GRACE_S)
    return CompactReport(committed.version, dropped, rewritten, removed, freed)


def _merge(table: LanceTable) -> None:
    table.drop_leftovers(FORMER)
    table.optimize(older_than_s=_NEVER_S)


def rows_by_shard(table: LanceTable) -> dict[str, dict[int, str]]:
    """Return the rows of each shard that this version uses: image_id by row number."""
    shards: dict[str, dict[int, str]] = defaultdict(dict)
    for batch in table.scan(["image_id", "shard", "row"]):
        for image_id, shard, row in zip(
            *(batch[name].to_pylist() for name in batch.column_names), strict=True
        ):
            shards[shard][row] = image_id
    return dict(shards)


def unreferenced_files(folder: Path, used: set[str]) -> tuple[list[str], list[str]]:
    """Return the shards that are not in `used`, and the temporary files, by name in the features folder.

    Only files with names that `write_shard` gives: any other file is not placeray's to remove.
    """
    with os.scandir(folder / FEATURES_FOLDER) as entries:
        files = sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    shards = [name.removesuffix(".parquet") for name in files if name.endswith(".parquet")]
    temporary = [name for name in files if is_temporary_shard(name)]
    return [shard for shard in shards if is_shard_name(shard) and shard not in used], temporary


def _cutoff_s(versions: list[tuple[int, datetime]], keep_s: float) -> float:
    """Return the age above which LanceDB may drop versions.

    LanceDB counts from the creation of a version; readers may be pinned to it until it was superseded.
    """
    now = datetime.now(UTC)
    oldest_needed = versions[-1][1]
    for (_, created), (_, superseded) in itertools.pairwise(versions):
        if (now - superseded).total_seconds() < keep_s:
            oldest_needed = created
            break
    return (now - oldest_needed).total_seconds() + min(keep_s, _MARGIN_S)


def _rewrite_sparse_shards(folder: Path, writer: Writer) -> int:
    """Move rows out of shards of which less than half is in use; return the number of these shards."""
    reader = FeatureReader(folder, writer.card)
    sparse = [
        shard
        for shard, rows in rows_by_shard(writer.table).items()
        if shard_path(folder, shard).is_file() and 2 * len(rows) < reader.rows(shard)
    ]
    for start in range(0, len(sparse), 1000):
        stored = intact_rows(writer.table.find("shard", sparse[start : start + 1000]))
        for at in range(0, len(stored), _REWRITE_ROWS):
            _move_rows(folder, writer, reader, stored.slice(at, _REWRITE_ROWS))
    return len(sparse)


def _move_rows(folder: Path, writer: Writer, reader: FeatureReader, stored: pa.Table) -> None:
    # Copied as encoded: decoding and encoding again would lose precision each time.
    encoded = np.empty((len(stored), reader.codec.row_bytes), np.uint8)
    # An unreadable row stays where it is, for verify to report.
    readable = np.array(
        [
            reader.read(record.shard, record.row, record.image_id, encoded[i]) is None
            for i, record in enumerate(to_records(stored))
        ]
    )
    if not readable.any():
        return
    names = row_schema(writer.card, optional=OPTIONAL_COLUMNS).names
    rows = stored.filter(pa.array(readable)).select(names)
    shard = write_shard(str(folder), rows["image_id"].to_pylist(), encoded[readable])
    numbers = pa.array(range(len(rows)), pa.int32())
    rows = rows.set_column(rows.schema.get_field_index("shard"), "shard", pa.array([shard] * len(rows)))
    writer.commit(rows.set_column(rows.schema.get_field_index("row"), "row", numbers))


def _remove_leftovers(folder: Path, table: LanceTable, *, min_age_s: float) -> tuple[tuple[str, ...], int]:
    """Remove files that no version uses, and temporary ones, older than `min_age_s`."""
    shards, temporary = unreferenced_files(folder, set(rows_by_shard(table)))
    candidates = {shard: shard_path(folder, shard) for shard in shards}
    limit = time.time() - min_age_s
    candidates = {shard: path for shard, path in candidates.items() if path.lstat().st_mtime < limit}
    for version in reversed(manifests(folder)):
        if not candidates:
            break
        old = LanceTable.open(folder, version=version)
        for start in range(0, len(candidates), 1000):
            batch = sorted(candidates)[start : start + 1000]
            for shard in set(old.find("shard", batch, ["shard"])["shard"].to_pylist()):
                candidates.pop(shard, None)
    paths = list(candidates.values())
    files = [*(folder / FEATURES_FOLDER / name for name in temporary), *unnamed_files(folder)]
    paths += [path for path in files if path.lstat().st_mtime < limit]
    freed = sum(path.lstat().st_size for path in paths)
    with explain_write_errors(folder / FEATURES_FOLDER, 0):
        for path in paths:
            path.unlink()
    return tuple(path.name for path in paths), freed
