"""The LanceDB table of records and descriptors; the only module that imports lancedb."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.index import HnswSq, IvfRq

from storage.card import Card
from storage.errors import CorruptStore, NotReadable, StoreError, repair_command
from storage.layout import TABLE_FOLDER
from storage.table.index_segments import SEGMENTED_INDEX, index_names, tidy, using
from storage.table.index_trial import trial_version
from storage.table.manifest import check_manifest
from storage.table.schema import CARD_KEY, FORMER, NEXT, STORED_COLUMNS, card_digest, table_schema

__all__ = [
    "EVERY_LIST",
    "HEAD_CACHE_BYTES",
    "LIST_ROWS",
    "SCAN_ROWS",
    "LanceTable",
    "in_clause",
    "manifest_name",
    "read_errors_as_corruption",
]

SCAN_ROWS = 8192
_NEVER = timedelta(days=20_000)
LIST_ROWS = 8192  # of LanceDB's index; its own default
# More than any index has. The nearest of whitened descriptors lie in any list: with four fifths of the lists
# a search finds 0.8 of the ten nearest (docs/explanation/benchmarks.md, Search).
EVERY_LIST = 1 << 16
# What a head keeps of the files it read. LanceDB would keep the manifest of each version that it made, up to
# 1 GiB: 800 commits leave 160 MiB. This holds what commits read of a table of a thousand files, about 70 kB
# each.
HEAD_CACHE_BYTES = 64 << 20


def manifest_name(version: int) -> str:
    """Return the file name of a version's manifest; LanceDB counts down so that the newest sorts first."""
    return f"{2**64 - 1 - version:020d}.manifest"


class LanceTable:
    """One version of the table; opened without a version, its head, for writing.

    Attributes:
        folder: The store's folder.
    """

    def __init__(self, folder: Path, table: Any) -> None:
        """Wrap an open table; use `create` or `open`."""
        self.folder = folder
        self._table = table

    @classmethod
    def create(cls, folder: Path, card: Card) -> LanceTable:
        """Create the empty table, or open the existing one."""
        return cls(folder, _head(folder).create_table("records", schema=table_schema(card), exist_ok=True))

    @classmethod
    def open(cls, folder: Path, *, version: int | None = None) -> LanceTable:
        """Open the table at `version`, read-only, or at its head.

        Raises:
            CorruptStore: there is no such version, or a manifest cannot be read or leads outside the store.
        """
        which = "the newest version" if version is None else f"version {version}"
        with read_errors_as_corruption(folder, f"{which} cannot be opened"):
            database = _head(folder) if version is None else lancedb.connect(os.fspath(folder))
            table = cls(folder, database.open_table("records", version=version))
            opened = table.version
        check_manifest(folder, folder / TABLE_FOLDER / "_versions" / manifest_name(opened))
        return table

    @property
    def version(self) -> int:
        """The version that is open."""
        return int(self._table.version)

    @property
    def schema(self) -> pa.Schema:
        """The stored columns, with those of an unfinished replacement of the descriptors."""
        return self._table.schema

    @property
    def card_sha256(self) -> str | None:
        """Digest of the card that this version names; None: that of card.json."""
        return card_digest(self.schema)

    @property
    def has_index(self) -> bool:
        """Whether this version has a LanceDB index on the descriptors."""
        return any("descriptor" in index.columns for index in self._table.list_indices())

    @property
    def index_segments(self) -> int:
        """Of how many segments the index by many workers is; 0 without one."""
        import lance

        dataset = lance.dataset(self.folder / TABLE_FOLDER, version=self.version)
        return index_names(dataset).get(SEGMENTED_INDEX, 0)

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._table.count_rows())

    def versions(self) -> list[tuple[int, datetime]]:
        """Return every existing version with the time of its creation, oldest first."""
        versions = self._table.list_versions()
        return sorted((int(v["version"]), v["timestamp"].astimezone(UTC)) for v in versions)

    def scan(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows in batches, in the table's order.

        Args:
            columns: Their names; default: every column of a row.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        query = self._table.search().select(self._columns(columns))
        with read_errors_as_corruption(self.folder):
            for batch in query.to_batches(SCAN_ROWS):
                yield pa.Table.from_batches([batch])

    def take(self, offsets: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows at these offsets in the table's order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        query = self._table.take_offsets(list(offsets)).select(self._columns(columns))
        with read_errors_as_corruption(self.folder):
            return query.to_arrow()

    def find(self, column: str, values: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows whose text `column` is one of `values`, in the table's order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        tables = []
        for start in range(0, max(1, len(values)), 1000):
            query = self._table.search().where(in_clause(column, values[start : start + 1000]))
            with read_errors_as_corruption(self.folder):
                tables.append(query.select(self._columns(columns)).to_arrow())
        return pa.concat_tables(tables)

    def missing(self, column: str) -> list[str]:
        """Return the keys of the rows that have no value in `column`, in the table's order.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        query = self._table.search().where(f"{column} IS NULL").select(["image_id"])
        with read_errors_as_corruption(self.folder):
            return list(query.to_arrow()["image_id"].to_pylist())

    def append(self, rows: pa.Table) -> None:
        """Add rows whose keys are not in the table yet: one version."""
        self._table.add(rows)

    def upsert(self, rows: pa.Table) -> None:
        """Replace rows of the same key and add the others: one version."""
        merge = self._table.merge_insert("image_id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    def delete(self, image_ids: Sequence[str]) -> None:
        """Remove rows by key: one version per thousand."""
        for start in range(0, len(image_ids), 1000):
            self._table.delete(in_clause("image_id", image_ids[start : start + 1000]))

    def update(self, rows: pa.Table) -> None:
        """Replace the columns of `rows`, image_id among them, in rows of the same key: one version."""
        self._table.merge_insert("image_id").when_matched_update_all().execute(rows)

    def add_columns(self, fields: pa.Schema) -> None:
        """Add columns without values: one version."""
        self._table.add_columns(fields)

    def drop_columns(self, names: Sequence[str]) -> None:
        """Drop columns: one version."""
        self._table.drop_columns(list(names))

    def rename_columns(self, names: dict[str, str]) -> None:
        """Rename columns, in this order: one version."""
        self._table.alter_columns(*({"path": old, "rename": new} for old, new in names.items()))

    def name_card(self, sha256: str) -> None:
        """Let this and later versions name their card: one version."""
        self._table.update_field_metadata({"path": "descriptor", "metadata": {CARD_KEY: sha256}})

    def drop_leftovers(self, *ends: str) -> None:
        """Drop the columns that a replacement of the descriptors left, if there are any: one version.

        Args:
            ends: Ends of their names; default: NEXT and FORMER.
        """
        leftovers = [name for name in self.schema.names if name.endswith(ends or (NEXT, FORMER))]
        if leftovers:
            self.drop_columns(leftovers)

    def replace_all(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Write a version of exactly these rows; earlier versions stay."""
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        self._table = _head(self.folder).create_table("records", reader, schema=schema, mode="overwrite")

    def build_index(self) -> None:
        """Build LanceDB's index on the descriptors (cosine): IVF_RQ with two bits per dimension.

        IVF_RQ needs a multiple of eight dimensions; otherwise IVF_HNSW_SQ.
        """
        config: HnswSq | IvfRq = HnswSq(distance_type="cosine")
        if self.schema.field("descriptor").type.list_size % 8 == 0:
            config = IvfRq(distance_type="cosine", num_bits=2, target_partition_size=LIST_ROWS)
        self._table.create_index("descriptor", config=config, replace=True)
        for index in self._table.list_indices():
            if index.name == SEGMENTED_INDEX:  # one is enough
                self._table.drop_index(index.name)

    def trying(self, segment: Any) -> LanceTable:
        """Return a detached version that has a segment as its index; `forget_trials` removes it."""
        import lance

        dataset = lance.dataset(self.folder / TABLE_FOLDER, version=self.version)
        made = trial_version(dataset, segment)
        database = lancedb.connect(os.fspath(self.folder))
        return LanceTable(self.folder, database.open_table("records", version=made.version))

    def use_segments(self, segments: Sequence[Any]) -> None:
        """Let parts of `storage.table.index_segments` be the index on the descriptors: one version."""
        import lance

        dataset = lance.dataset(self.folder / TABLE_FOLDER)
        change = using(dataset, segments)
        lance.LanceDataset.commit(dataset, change, read_version=dataset.version, max_retries=0)
        self._table.checkout_latest()

    def nearest(self, descriptor: npt.NDArray[np.float32], k: int, *, where: str | None = None) -> pa.Table:
        """Return about the k nearest rows by cosine distance, through the index if this version has one.

        Every list of the index is read.

        Args:
            descriptor: (D,) float32, unit L2 norm.
            k: Number of rows.
            where: An SQL condition that they meet.
        """
        query = self._table.search(descriptor, vector_column_name="descriptor").distance_type("cosine")
        query = query.nprobes(EVERY_LIST).ef(max(64, 4 * k))
        if where is not None:
            query = query.where(where, prefilter=True)
        with read_errors_as_corruption(self.folder):
            return query.refine_factor(4).limit(k).to_arrow()

    def optimize(self, *, older_than_s: float) -> None:
        """Merge small files, update the index, and drop versions older than `older_than_s` without a tag."""
        import lance

        folder = self.folder / TABLE_FOLDER
        if SEGMENTED_INDEX in index_names(lance.dataset(folder)):
            tidy(lance.dataset(folder))
            self._table.checkout_latest()
        else:
            self._table.optimize(cleanup_older_than=_NEVER)
        lance.dataset(folder).cleanup_old_versions(
            timedelta(seconds=older_than_s), error_if_tagged_old_versions=False
        )

    def restore(self, version: int) -> None:
        """Make the rows of an older version the newest: one version."""
        self._table.restore(version)

    def drop_deleted(self) -> None:
        """Rewrite the files that still hold deleted rows."""
        import lance

        dataset = lance.dataset(self.folder / TABLE_FOLDER)
        dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
        self._table.checkout_latest()

    def _columns(self, requested: Sequence[str] | None) -> list[str]:
        present = self.schema.names
        return list(requested) if requested is not None else [n for n in present if n in STORED_COLUMNS]


def _head(folder: Path) -> lancedb.DBConnection:
    """Connect to make versions; a connection that reads one version keeps LanceDB's own limits."""
    session = lancedb.Session(metadata_cache_size_bytes=HEAD_CACHE_BYTES)
    return lancedb.connect(os.fspath(folder), session=session)


def in_clause(column: str, values: Sequence[str]) -> str:
    """Return the condition that a text column is one of `values`."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})" if values else "false"


@contextmanager
def read_errors_as_corruption(folder: Path, what: str = "cannot be read") -> Iterator[None]:
    """Raise CorruptStore where LanceDB fails to read."""
    try:
        yield
    except BaseException as error:
        # On some damage LanceDB's native code panics, and PanicException is a BaseException.
        damage = isinstance(error, RuntimeError | ValueError | OSError | pa.ArrowException)
        if not damage and type(error).__name__ not in ("PanicException", "RustPanic"):
            raise
        raise _unreadable(folder, what, error) from error


def _unreadable(folder: Path, what: str, error: BaseException) -> StoreError:
    """Return the error for what LanceDB could not read: access denied, else damage."""
    table = folder / TABLE_FOLDER
    if isinstance(error, PermissionError) or f"os error {errno.EACCES})" in str(error):
        return NotReadable(f"{table} cannot be read (access denied): give this user access to the store")
    return CorruptStore(f"{table}: {what} ({error}): {repair_command(folder)}")
