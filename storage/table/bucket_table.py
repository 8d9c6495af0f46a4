"""The table of records in a bucket, by pylance: commits that no other writer can slip between.

The files are those of `LanceTable`, and either class reads what the other wrote. In a folder one writer at a
time is certain (flock); in a bucket a writer may be paused, lose the lease, and wake up. Lance would put its
commit on top of whatever is the newest version by then. Here each commit names the version it follows, is
tried once, and counts only as the next number. `fence` makes commits that follow an older version fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.errors import CorruptStore, StoreError, StoreLocked, repair_command
from storage.layout import TABLE_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.errors import storage_error
from storage.table.fragment_files import files_of
from storage.table.index_segments import SEGMENTED_INDEX, index_names, tidy, using
from storage.table.index_trial import trial_version
from storage.table.lance_table import (
    EVERY_LIST,
    HEAD_CACHE_BYTES,
    LIST_ROWS,
    SCAN_ROWS,
    in_clause,
    manifest_name,
)
from storage.table.manifest import check_manifest
from storage.table.schema import CARD_KEY, FORMER, NEXT, STORED_COLUMNS, card_digest, table_schema

__all__ = ["BucketTable"]

_UNANSWERED = (
    "error sending request",
    "status code: 5",
    "status code: 4",
    "operation timed out",
    "connection",
    "after 3 retries",
    "credential",
)
_CONFLICTS = (
    *("commit conflict", "concurrent writers", "preempted by concurrent"),
    *("CommitConflict", "Incompatible transaction"),
)
_UNFENCED, _EPOCH_KEY = ("Restore", "Overwrite"), "placeray.epoch"


class BucketTable:
    """One version of the table; opened without a version, its head, for writing. See `LanceTable`.

    Attributes:
        folder: The store's location.
    """

    def __init__(self, folder: BucketPath, dataset: Any) -> None:
        """Wrap an open data set; use `create` or `open`."""
        self.folder = folder
        self._dataset = dataset

    @classmethod
    def create(cls, folder: BucketPath, card: Card) -> BucketTable:
        """Create the empty table, or open the existing one."""
        import lance

        schema = table_schema(card)
        with _explained(folder):
            try:
                lance.write_dataset(
                    schema.empty_table(), _uri(folder), storage_options=_options(folder), mode="create"
                )
            except (OSError, RuntimeError) as error:
                if "already exists" not in str(error).lower():
                    raise
        return cls.open(folder)

    @classmethod
    def open(cls, folder: BucketPath, *, version: int | None = None) -> BucketTable:
        """Open the table at `version`, without a listing, or at its head.

        Raises:
            CorruptStore: there is no such version, or a manifest cannot be read or leads outside the store.
            StorageUnreachable: the bucket does not answer.
        """
        import lance

        which = "the newest version" if version is None else f"version {version}"
        with _explained(folder, f"{which} cannot be opened"):
            dataset = lance.dataset(
                _uri(folder),
                version=version,
                storage_options=_options(folder),
                metadata_cache_size_bytes=HEAD_CACHE_BYTES if version is None else None,
            )
        table = cls(folder, dataset)
        check_manifest(folder, folder / TABLE_FOLDER / "_versions" / manifest_name(table.version))
        return table

    @property
    def version(self) -> int:
        """The version that is open."""
        return int(self._dataset.version)

    @property
    def dataset(self) -> Any:
        """The version as pylance opened it, for reading."""
        return self._dataset

    def explained(self) -> AbstractContextManager[None]:
        """Raise an error of the store where reading the data set fails in a `with` block."""
        return _explained(self.folder)

    @property
    def schema(self) -> pa.Schema:
        """The stored columns, with those of an unfinished replacement of the descriptors."""
        return self._dataset.schema

    @property
    def card_sha256(self) -> str | None:
        """Digest of the card that this version names; None: that of card.json."""
        return card_digest(self.schema)

    @property
    def has_index(self) -> bool:
        """Whether this version has an index on the descriptors."""
        with _explained(self.folder):
            return any("descriptor" in index.field_names for index in self._dataset.describe_indices())

    @property
    def files(self) -> set[str]:
        """The data files, files of deleted rows, of indexes, and the manifest, relative to the store."""
        with _explained(self.folder):
            return files_of(self.folder, self._dataset)

    @property
    def index_segments(self) -> int:
        """Of how many segments the index by many workers is; 0 without one."""
        with _explained(self.folder):
            return index_names(self._dataset).get(SEGMENTED_INDEX, 0)

    def count(self) -> int:
        """Return the number of rows."""
        with _explained(self.folder):
            return int(self._dataset.count_rows())

    def versions(self) -> list[tuple[int, datetime]]:
        """Return every existing version with the time of its creation, oldest first."""
        with _explained(self.folder):
            versions = self._dataset.versions()
        return sorted((int(each["version"]), each["timestamp"].astimezone(UTC)) for each in versions)

    def scan(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all rows in batches, in the table's order; see `LanceTable.scan`."""
        with _explained(self.folder):
            scanner = self._dataset.scanner(columns=self._columns(columns), batch_size=SCAN_ROWS)
            for batch in scanner.to_batches():
                yield pa.Table.from_batches([batch])

    def take(self, offsets: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows at these offsets in the table's order."""
        names = self._columns(columns)
        if not len(offsets):
            return pa.schema([self.schema.field(name) for name in names]).empty_table()
        with _explained(self.folder):
            return self._dataset.take(list(offsets), columns=names)

    def find(self, column: str, values: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows whose text `column` is one of `values`, in the table's order."""
        tables = []
        for start in range(0, max(1, len(values)), 1000):
            some = in_clause(column, values[start : start + 1000])
            with _explained(self.folder):
                tables.append(self._dataset.to_table(columns=self._columns(columns), filter=some))
        return pa.concat_tables(tables)

    def missing(self, column: str) -> list[str]:
        """Return the keys of the rows that have no value in `column`, in the table's order."""
        with _explained(self.folder):
            rows = self._dataset.to_table(columns=["image_id"], filter=f"{column} IS NULL")
        return list(rows["image_id"].to_pylist())

    def nearest(self, descriptor: npt.NDArray[np.float32], k: int, *, where: str | None = None) -> pa.Table:
        """Return about the k nearest rows by cosine distance; see `LanceTable.nearest`."""
        nearest = {
            "column": "descriptor",
            "q": descriptor,
            "k": k,
            "metric": "cosine",
            "nprobes": EVERY_LIST,
            "ef": max(64, 4 * k),
            "refine_factor": 4,
        }
        with _explained(self.folder):
            columns = [*self._columns(None), "_distance"]
            return self._dataset.to_table(columns=columns, nearest=nearest, filter=where, prefilter=True)

    def append(self, rows: pa.Table) -> None:
        """Add rows whose keys are not in the table yet: one version."""
        from lance import LanceOperation
        from lance.fragment import write_fragments

        with _explained(self.folder):
            named = rows.select([name for name in self.schema.names if name in rows.column_names])
            new = write_fragments(named, self._dataset, mode="append", storage_options=_options(self.folder))
            self._commit(LanceOperation.Append(new))

    def upsert(self, rows: pa.Table) -> None:
        """Replace rows of the same key and add the others: one version."""
        merge = self._dataset.merge_insert("image_id").when_matched_update_all()
        self._merge(merge.when_not_matched_insert_all(), rows)

    def update(self, rows: pa.Table) -> None:
        """Replace the columns of `rows`, image_id among them, in rows of the same key: one version."""
        self._merge(self._dataset.merge_insert("image_id").when_matched_update_all(), rows)

    def delete(self, image_ids: Sequence[str]) -> None:
        """Remove rows by key: one version per thousand."""
        for start in range(0, len(image_ids), 1000):
            some = in_clause("image_id", image_ids[start : start + 1000])
            with self._following():
                self._dataset.delete(some, conflict_retries=0)

    def add_columns(self, fields: pa.Schema) -> None:
        """Add columns without values: one version."""
        with self._following():
            self._dataset.add_columns(fields)

    def drop_columns(self, names: Sequence[str]) -> None:
        """Drop columns: one version."""
        with self._following():
            self._dataset.drop_columns(list(names))

    def rename_columns(self, names: dict[str, str]) -> None:
        """Rename columns, in this order: one version."""
        with self._following():
            self._dataset.alter_columns(*({"path": old, "name": new} for old, new in names.items()))

    def name_card(self, sha256: str) -> None:
        """Let this and later versions name their card: one version."""
        with self._following():
            self._dataset.update_field_metadata({"descriptor": {CARD_KEY: sha256}})

    def drop_leftovers(self, *ends: str) -> None:
        """Drop the columns that a replacement of the descriptors left; see `LanceTable.drop_leftovers`."""
        leftovers = [name for name in self.schema.names if name.endswith(ends or (NEXT, FORMER))]
        if leftovers:
            self.drop_columns(leftovers)

    def drop_fragments_of(self, names: Sequence[str]) -> None:
        """Remove all rows whose data or deletions lie in these files, which need not be readable."""
        from lance import LanceOperation

        broken = [
            fragment.fragment_id
            for fragment in self._dataset.get_fragments()
            if any(f"{TABLE_FOLDER}/data/{file.path}" in names for file in fragment.metadata.files)
            or (
                fragment.metadata.deletion_file is not None
                and f"{TABLE_FOLDER}/{fragment.metadata.deletion_file.path(fragment.fragment_id)}" in names
            )
        ]
        if broken:
            with _explained(self.folder):
                self._commit(LanceOperation.Delete([], broken, "true"))

    def drop_unreadable_fragments(self) -> None:
        """Remove all rows of the fragments that cannot be read."""
        from lance import LanceOperation

        broken = []
        for fragment in self._dataset.get_fragments():
            try:
                with _explained(self.folder):
                    fragment.to_table(columns=self._columns(None))
            except CorruptStore:
                broken.append(fragment.fragment_id)
        if broken:
            with _explained(self.folder):
                self._commit(LanceOperation.Delete([], broken, "true"))

    def fence(self, epoch: int) -> None:
        """Commit a version of the same rows that no commit of an older version can pass: one version.

        Lance puts appends, upserts, deletions and new indexes on top of each other's. On top of a restored
        version it puts none of them, and this one restores the newest. Only Restore and Overwrite pass; see
        `restored_by_others`.
        """
        self.restore(self.version, epoch)

    def restore(self, version: int, epoch: int) -> None:
        """Go back to the rows, columns, card and index of a version: one version, which carries the epoch."""
        from lance import LanceOperation, Transaction

        change = LanceOperation.Restore(version)
        with _explained(self.folder):
            self._commit(Transaction(self.version, change, transaction_properties={_EPOCH_KEY: str(epoch)}))

    def restored_by_others(self, since: int, epoch: int) -> bool:
        """Return whether a version after `since` went back to an older one by a lease of another epoch.

        No fence stops a writer that was paused from that.
        """
        with _explained(self.folder):
            for version in range(since + 1, self.version + 1):
                made = self._dataset.read_transaction(version)
                kind = "" if made is None else type(made.operation).__name__
                if kind in _UNFENCED and (made.transaction_properties or {}).get(_EPOCH_KEY) != str(epoch):
                    return True
        return False

    def keep_tagged(self, tags: Mapping[str, int]) -> None:
        """Let `optimize` keep the versions of these tags and of no others."""
        with _explained(self.folder):
            listed = self._dataset.tags.list()
            held = {name: int(each["version"]) for name, each in listed.items()}
            for name in held.keys() - tags.keys():
                self._dataset.tags.delete(name)
            for name, version in tags.items():
                if name not in held:
                    self._dataset.tags.create(name, version)
                elif held[name] != version:
                    self._dataset.tags.update(name, version)

    def build_index(self) -> None:
        """Build an index on the descriptors (cosine); see `LanceTable.build_index`."""
        ivf_rq = self.schema.field("descriptor").type.list_size % 8 == 0
        options: dict[str, Any] = {"target_partition_size": LIST_ROWS, "num_bits": 2} if ivf_rq else {}
        kind = "IVF_RQ" if ivf_rq else "IVF_HNSW_SQ"
        with self._following():
            self._dataset = self._dataset.create_index(
                "descriptor", kind, metric="cosine", replace=True, **options
            )
        if SEGMENTED_INDEX in index_names(self._dataset):  # one is enough
            with self._following():
                self._dataset.drop_index(SEGMENTED_INDEX)

    def trying(self, segment: Any) -> BucketTable:
        """Return a detached version that has a segment as its index; see `LanceTable.trying`."""
        with _explained(self.folder):
            return BucketTable(self.folder, trial_version(self._dataset, segment))

    def use_segments(self, segments: Sequence[Any]) -> None:
        """Let parts of an index be the index on the descriptors; see `LanceTable.use_segments`."""
        with _explained(self.folder):
            self._commit(using(self._dataset, segments))

    def optimize(self, *, older_than_s: float) -> None:
        """Merge small files, update the index, and drop versions older than `older_than_s`."""
        with _explained(self.folder):
            if SEGMENTED_INDEX in index_names(self._dataset):
                tidy(self._dataset)
            else:
                self._dataset.optimize.compact_files()
                if self.has_index:
                    self._dataset.optimize.optimize_indices()
            self._dataset.cleanup_old_versions(
                timedelta(seconds=older_than_s), error_if_tagged_old_versions=False
            )

    def drop_deleted(self) -> None:
        """Rewrite the files that still hold deleted rows."""
        with _explained(self.folder):
            self._dataset.optimize.compact_files(
                materialize_deletions=True, materialize_deletions_threshold=0.0
            )

    def _merge(self, merge: Any, rows: pa.Table) -> None:
        with _explained(self.folder):
            transaction, _ = merge.conflict_retries(0).execute_uncommitted(rows)
            self._commit(transaction)

    def _commit(self, change: Any) -> None:
        from lance import LanceDataset

        read_version = None if hasattr(change, "read_version") else self.version
        with self._following():
            self._dataset = LanceDataset.commit(
                self._dataset, change, read_version=read_version, max_retries=0
            )

    @contextmanager
    def _following(self) -> Iterator[None]:
        """Run a commit that must make the version after this one."""
        before = self.version
        with _explained(self.folder):
            yield
        if self.version != before + 1:
            raise _overtaken(self.folder)

    def _columns(self, requested: Sequence[str] | None) -> list[str]:
        present = self.schema.names
        return list(requested) if requested is not None else [n for n in present if n in STORED_COLUMNS]


def _uri(folder: BucketPath) -> str:
    return f"{folder.objects.shown}/{TABLE_FOLDER}"


def _options(folder: BucketPath) -> dict[str, str]:
    return folder.objects.address.lance_options


def _overtaken(folder: BucketPath) -> StoreLocked:
    return StoreLocked(
        f"{folder} was changed by another writer, which has taken over the lease; what this command had "
        "acknowledged is kept: run it again"
    )


@contextmanager
def _explained(folder: BucketPath, what: str = "cannot be read") -> Iterator[None]:
    """Raise an error of the store where Lance fails: another writer, no answer, or damage."""
    try:
        yield
    except StoreError:
        raise
    except BaseException as error:
        text, kind = str(error), type(error).__name__
        if any(word in text or word in kind for word in _CONFLICTS):
            raise _overtaken(folder) from None
        # On some damage Lance's native code panics, and PanicException is a BaseException.
        damage = isinstance(error, RuntimeError | ValueError | OSError | pa.ArrowException)
        if not damage and kind not in ("PanicException", "RustPanic"):
            raise
        if any(word in text for word in _UNANSWERED):
            raise storage_error(folder.objects.shown, error) from None
        raise CorruptStore(
            f"{folder}/{TABLE_FOLDER}: {what} ({text[:300]}): {repair_command(folder)}"
        ) from None
