"""Compaction: merge small files, drop old versions, free the space of files that no version uses."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from storage.card import Card
from storage.care.index_recall import INDEX_RECALL, index_recall
from storage.care.leftovers import (
    LEFTOVER_AGE_S,
    find_leftovers,
    removable_files,
    remove_leftovers,
    used_shards,
)
from storage.care.named_files import unnamed_files
from storage.commit.change_log import shorten_changes
from storage.commit.leases import confirm_lease, crashed_since
from storage.commit.ledger import Committed, manifests, table_files, write_sums
from storage.commit.version_tags import protect_tagged
from storage.commit.writer import Writer
from storage.features.open_features import AnyFeatureReader, open_features
from storage.features.shards import shard_path, write_shard
from storage.layout import ARTIFACTS_FOLDER, CARDS_FOLDER
from storage.objects.files import Location, all_exist, file_states, remove_files
from storage.objects.location import location_uri
from storage.table.checksums import intact_rows
from storage.table.open_table import Table
from storage.table.schema import FORMER, OPTIONAL_COLUMNS, row_schema, to_records

__all__ = [
    "CompactPreview",
    "CompactReport",
    "compact_store",
    "move_rows_out_of",
    "preview_compaction",
    "rows_by_shard",
]

_GRACE_S = 3600.0  # a newer card or artifact may belong to a replacement that is not committed yet
_REWRITE_ROWS = 64
_NEVER_S = 1e9
_MARGIN_S = 60.0
_MAX_SEGMENTS = 8  # each is searched apart
_INDEX_BYTES = 4 << 30  # of descriptors: the default memory of a searcher, which else searches on disk


@dataclass(frozen=True)
class CompactReport:
    """The result of a compaction.

    Attributes:
        version: The version after it.
        versions_removed: Number of old versions dropped.
        shards_rewritten: Number of shards of which less than half was in use.
        files_removed: Names of the removed files: features, and cards and artifacts of dropped versions.
        bytes_freed: Their size.
        versions_kept: Number of versions that exist now: the newest, and those that readers may still use.
        leftover_files: Number of feature files that stay although the newest version does not use them.
        leftover_bytes: Their size.
        leftovers: What is left over and when it can go, in words.
    """

    version: int
    versions_removed: int
    shards_rewritten: int
    files_removed: tuple[str, ...]
    bytes_freed: int
    versions_kept: int = 1
    leftover_files: int = 0
    leftover_bytes: int = 0
    leftovers: str = "none"


@dataclass(frozen=True)
class CompactPreview:
    """What a compaction would do.

    Attributes:
        version: The version now.
        versions: Number of versions that exist.
        shards_to_rewrite: Number of shards of which less than half is in use.
        files_to_remove: Names of the feature files that would be removed.
        bytes_to_free: Their size.
        leftover_files: Number of feature files that the newest version does not use.
        leftover_bytes: Their size.
        leftovers: What is left over and when it can go, in words.
    """

    version: int
    versions: int
    shards_to_rewrite: int
    files_to_remove: tuple[str, ...]
    bytes_to_free: int
    leftover_files: int
    leftover_bytes: int
    leftovers: str


def preview_compaction(folder: Location, table: Table, card: Card, *, min_age_s: float) -> CompactPreview:
    """Return what `compact_store` would do with feature files; changes nothing and needs no lease."""
    files = removable_files(folder, table, min_age_s=min_age_s, since=crashed_since(folder))
    left = find_leftovers(folder, used_shards(table), min_age_s=min_age_s)
    return CompactPreview(
        version=table.version,
        versions=len(manifests(folder)),
        shards_to_rewrite=len(_sparse_shards(folder, table, card)),
        files_to_remove=tuple(files),
        bytes_to_free=sum(state.size for state in files.values()),
        leftover_files=left.files,
        leftover_bytes=left.bytes,
        leftovers=str(left),
    )


def compact_store(
    folder: Location,
    writer: Writer,
    *,
    keep_versions_s: float,
    min_age_s: float = LEFTOVER_AGE_S,
) -> CompactReport:
    """Compact the store in `folder`.

    Args:
        folder: The store's folder.
        writer: The store's writer, with the lease taken.
        keep_versions_s: Versions that were the newest within this time stay readable.
        min_age_s: Age above which feature files that no version uses are removed; what a writer left that
            died is removed at once.
    """
    rewritten = _rewrite_sparse_shards(folder, writer)
    before = manifests(folder)
    writer.change(lambda: _merge(writer.table), did="compacted")
    # In a second pass, so that the time the merge takes does not shift the age of versions.
    older_than_s = _cutoff_s(writer.table.versions(), keep_versions_s)
    protect_tagged(folder, writer.table)
    committed = writer.change(lambda: writer.table.optimize(older_than_s=older_than_s), did="compacted")
    row_bytes = writer.card.descriptor_dim * (2 if writer.card.descriptor_dtype == "float16" else 4)
    if committed.rows * row_bytes > _INDEX_BYTES and not writer.table.has_index:
        committed = writer.change(writer.table.build_index, did="built the index on disk")
    committed = _checked_index(writer) or committed
    confirm_lease(writer.lease)
    write_sums(folder, table_files(folder))
    shorten_changes(folder)
    dropped = len(set(before) - set(manifests(folder)))
    since = writer.lease.crashed_since
    removed, freed = remove_leftovers(folder, writer.table, min_age_s=min_age_s, since=since)
    others, others_freed = _remove_unnamed(folder, min_age_s=keep_versions_s + _GRACE_S)
    left = find_leftovers(folder, used_shards(writer.table), min_age_s=min_age_s)
    return CompactReport(
        version=committed.version,
        versions_removed=dropped,
        shards_rewritten=rewritten,
        files_removed=removed + others,
        bytes_freed=freed + others_freed,
        versions_kept=len(manifests(folder)),
        leftover_files=left.files,
        leftover_bytes=left.bytes,
        leftovers=str(left),
    )


def _checked_index(writer: Writer) -> Committed | None:
    """Build an index of many workers anew, in this process, where it finds too little or is in many parts."""
    table = writer.table
    if not table.index_segments:
        return None
    if table.index_segments <= _MAX_SEGMENTS and index_recall(table) >= INDEX_RECALL:
        return None
    return writer.change(table.build_index, did="built the index on disk")


def _remove_unnamed(folder: Location, *, min_age_s: float) -> tuple[tuple[str, ...], int]:
    """Remove cards and artifacts of dropped versions; return their names and their size."""
    limit = time.time() - min_age_s
    parents = {name: file_states(folder / name) for name in (CARDS_FOLDER, ARTIFACTS_FOLDER)}
    removed: list[tuple[Location, int]] = []
    for path in unnamed_files(folder):
        state = parents[path.parent.name].get(path.name)
        if state is not None and state.modified_s < limit:
            removed.append((path, state.size))
    remove_files([path for path, _ in removed])
    return tuple(path.name for path, _ in removed), sum(size for _, size in removed)


def _merge(table: Table) -> None:
    table.drop_leftovers(FORMER)
    table.optimize(older_than_s=_NEVER_S)


def rows_by_shard(table: Table) -> dict[str, dict[int, str]]:
    """Return the rows of each shard that this version uses: image_id by row number."""
    shards: dict[str, dict[int, str]] = defaultdict(dict)
    for batch in table.scan(["image_id", "shard", "row"]):
        for image_id, shard, row in zip(
            *(batch[name].to_pylist() for name in batch.column_names), strict=True
        ):
            shards[shard][row] = image_id
    return dict(shards)


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


def _rewrite_sparse_shards(folder: Location, writer: Writer) -> int:
    """Move rows out of shards of which less than half is in use; return the number of these shards."""
    sparse = _sparse_shards(folder, writer.table, writer.card)
    move_rows_out_of(folder, writer, sparse)
    return len(sparse)


def move_rows_out_of(folder: Location, writer: Writer, shards: list[str]) -> None:
    """Write the local features of all rows in these shards into new ones."""
    if not shards or not writer.card.has_features:
        return
    reader = open_features(folder, writer.card)
    for start in range(0, len(shards), 1000):
        stored = intact_rows(writer.table.find("shard", shards[start : start + 1000]), writer.card)
        for at in range(0, len(stored), _REWRITE_ROWS):
            _move_rows(folder, writer, reader, stored.slice(at, _REWRITE_ROWS))


def _sparse_shards(folder: Location, table: Table, card: Card) -> list[str]:
    """Return the shards of which less than half is in use."""
    if not card.has_features:
        return []
    reader = open_features(folder, card)
    return [
        shard
        for shard, rows in rows_by_shard(table).items()
        if all_exist([shard_path(folder, shard)]) and 2 * len(rows) < reader.rows(shard)
    ]


def _move_rows(folder: Location, writer: Writer, reader: AnyFeatureReader, stored: pa.Table) -> None:
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
    shard = write_shard(location_uri(folder), rows["image_id"].to_pylist(), encoded[readable])
    numbers = pa.array(range(len(rows)), pa.int32())
    rows = rows.set_column(rows.schema.get_field_index("shard"), "shard", pa.array([shard] * len(rows)))
    writer.commit(rows.set_column(rows.schema.get_field_index("row"), "row", numbers))
