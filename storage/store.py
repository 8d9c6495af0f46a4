"""A store: records and descriptors in a LanceDB table, local features in Parquet shards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.artifacts import write_artifact
from storage.calibration_file import write_measured
from storage.card import FORMAT_VERSION, Card
from storage.care.compaction import CompactPreview, CompactReport, compact_store, preview_compaction
from storage.care.forgetting import ForgetReport, forget
from storage.care.index_recall import index_recall
from storage.care.leftovers import LEFTOVER_AGE_S, remove_leftovers
from storage.care.repair import RepairReport, repair_store
from storage.care.versions import resolve_version, roll_back
from storage.commit.creation import create_store
from storage.commit.leases import confirm_lease, open_lease
from storage.commit.ledger import read_committed
from storage.commit.replacement import replace_descriptors, rows_to_describe
from storage.commit.version_tags import remove_tag, write_tag
from storage.commit.writer import Writer
from storage.durable import explain_write_errors
from storage.errors import StoreLocked
from storage.layout import FEATURES_FOLDER, check_layout
from storage.objects.files import Location
from storage.objects.location import open_location
from storage.objects.probe import require_conditions
from storage.search.snapshot import LANCE_INDEX_ROWS, Snapshot
from storage.store_reader import StoreReader
from storage.table.index_segments import merged
from storage.table.index_trial import forget_trials
from storage.table.open_table import dataset_of

__all__ = ["Store"]

_CREATE_TIMEOUT_S = 5.0


class Store(StoreReader):
    """An index of images: a reader pinned to one committed version and, while it holds the lease, a writer.

    Threads may share a Store for reading. Each call reads from one version.

    Attributes:
        uri: The store's folder, or its address in a bucket.
    """

    def __init__(self, folder: Location, snapshot: Snapshot, *, at: str | None = None) -> None:
        """Use `create` or `open`."""
        super().__init__(folder, snapshot, at=at)
        self._writer: Writer | None = None

    @classmethod
    def create(
        cls,
        uri: str | os.PathLike[str],
        card: Card,
        *,
        projection: npt.NDArray[np.float32] | None = None,
        artifacts: Sequence[bytes] = (),
    ) -> Store:
        """Create a store in the newest format, or open the existing one.

        Args:
            uri: A folder; created with its parents if missing.
            card: Which model makes its vectors, and how local features are encoded.
            projection: (C, C') float32 of `storage.features.projection`, if the card names one.
            artifacts: The contents of the artifacts that the card names.

        Raises:
            CardMismatch: the existing store has another card.
            InvalidBatch: the projection or an artifact is not the one named on the card.
            CorruptStore: the existing store cannot be read.
            OutOfSpace: the disk is full.
            StoreLocked: another process has been creating it for 5 s.
            NotWritable: the folder is on a read-only file system, or belongs to another user.
            ConditionsIgnored: the bucket's server ignores conditions on writes.
        """
        folder = open_location(uri)
        check_layout(folder)
        if isinstance(folder, Path):
            with explain_write_errors(folder, 0):
                (folder / FEATURES_FOLDER).mkdir(parents=True, exist_ok=True)
        if read_committed(folder) is None:
            if not isinstance(folder, Path):
                require_conditions(folder.objects)
            with open_lease(folder, timeout_s=_CREATE_TIMEOUT_S) as lease:
                if read_committed(folder) is None:
                    create_store(folder, lease, card.upgraded(), projection=projection, artifacts=artifacts)
        return cls.open(uri, card=card)

    @contextmanager
    def lease(self, *, timeout_s: float = 0.0) -> Iterator[None]:
        """Hold the write lock for a `with` block; the store moves to the head, and on with each commit.

        Args:
            timeout_s: How long to wait for another writer.

        Raises:
            StoreLocked: another writer holds it.
            CorruptStore: the head cannot be read.
        """
        with open_lease(self._folder, timeout_s=timeout_s) as lease:
            self._writer = Writer(self._folder, lease)
            try:
                self._advance()
                yield
            finally:
                self._writer = None

    def commit(self, rows: pa.Table) -> int:
        """Upsert rows and return the new version; needs the lease.

        Args:
            rows: The columns of `storage.table.schema.row_schema(card)`, and in a store of format 3 any of
                `OPTIONAL_COLUMNS`; their shards must exist already.

        Raises:
            InvalidBatch: the rows are invalid; nothing is written.
            StoreLocked: the lease is not held, or was lost; nothing is written.
            OutOfSpace: the disk is full; everything committed before is kept.
        """
        self._leased().commit(rows)
        return self._advance()

    def amend(self, rows: pa.Table) -> int:
        """Replace metadata of stored rows and return the new version; needs the lease.

        Args:
            rows: image_id and any of uri, lat, lon, utm_e, utm_n, utm_zone, heading_deg, captured_at, in a
                store of format 3 also of source and tags.

        Raises:
            InvalidBatch: the rows are invalid, or not in the store; nothing is written.
            StoreLocked: the lease is not held, or was lost; nothing is written.
        """
        self._leased().amend(rows)
        return self._advance()

    def delete(self, image_ids: Sequence[str]) -> int:
        """Remove rows and return how many there were; needs the lease. `compact` frees the space.

        Raises:
            StoreLocked: the lease is not held, or was lost.
        """
        removed = self._leased().delete(image_ids)
        self._advance()
        return removed

    def forget(self, image_ids: Sequence[str]) -> ForgetReport:
        """Remove photos from everything that the store holds; needs the lease. See `storage.care.forgetting`.

        Raises:
            StoreLocked: the lease is not held, or was lost.
        """
        report = forget(self._leased(), image_ids)
        self._advance()
        return report

    def roll_back(self, wanted: str) -> int:
        """Make a new version with the rows and the card of an old one, and return it; needs the lease.

        Args:
            wanted: The number of a version, or a tag; see `versions`.

        Raises:
            NoSuchVersion: it is not there.
            StoreLocked: the lease is not held, or was lost.
        """
        roll_back(self._leased(), resolve_version(self._folder, wanted))
        return self._advance()

    def tag_version(self, name: str, wanted: str | None = None) -> int:
        """Give a version a name, which `compact` then keeps, and return its number; needs the lease.

        Args:
            name: The tag; one that is there moves.
            wanted: The number of a version, or another tag; default: the newest.

        Raises:
            NoSuchVersion: it is not there, or the name cannot be a tag's.
            StoreLocked: the lease is not held, or was lost.
        """
        writer = self._leased()
        version = writer.committed.version if wanted is None else resolve_version(self._folder, wanted)
        writer.check_lease()
        write_tag(self._folder, name, version, writer.lease)
        return version

    def remove_tag(self, name: str) -> None:
        """Remove a tag; the version goes with the next `compact` unless it is new. Needs the lease.

        Raises:
            NoSuchVersion: there is no such tag.
            StoreLocked: the lease is not held, or was lost.
        """
        writer = self._leased()
        writer.check_lease()
        remove_tag(self._folder, name, writer.lease)

    def rows_to_describe(self, card: Card) -> list[str]:
        """Return the keys of the rows whose descriptors `replace_descriptors` still needs; needs the lease.

        Args:
            card: The card to be given to it. All rows, unless a replacement by this card was interrupted.
        """
        return rows_to_describe(self._leased(), card)

    def replace_descriptors(
        self,
        card: Card,
        batches: Iterable[tuple[Sequence[str], npt.NDArray[np.float32]]],
        *,
        artifacts: Sequence[bytes] = (),
    ) -> int:
        """Replace the descriptors of all rows as one new version, and return it; needs the lease.

        Until then the former version answers. What an interrupted call was given is kept for the next one
        with the same card, see `rows_to_describe`, unless rows are committed or amended in between.

        Args:
            card: What makes the new descriptors, by `Card.stored_as`; their width may differ. The model and
                how local features are kept must be the store's.
            batches: Keys and their (B, D) float32 descriptors of unit L2 norm; each row once, in any order.
            artifacts: The contents of the artifacts that the card names and that the store does not have.

        Raises:
            CardMismatch: the card is of another model, or of other local features.
            InvalidBatch: descriptors of another width, not finite or not of unit norm, of rows that are not
                stored; or some rows got none.
            StoreLocked: the lease is not held, or was lost.
            CorruptStore: an artifact is missing, or stored rows are damaged.
            OutOfSpace: the disk is full.
        """
        writer = self._leased()
        for data in artifacts:
            write_artifact(self._folder, data)
        replace_descriptors(writer, card, batches)
        return self._advance()

    def upgrade(self) -> bool:
        """Bring the store to the newest format; return whether it was older. Needs the lease.

        Nothing of the rows changes; a crash is finished by the next writer. Older versions of placeray refuse
        the store from then on.

        Raises:
            StoreLocked: the lease is not held, or was lost.
            OutOfSpace: the disk is full.
        """
        older = self._leased().card.format_version < FORMAT_VERSION
        self._leased().upgrade()
        self._advance()
        return older

    def write_measured(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep what was measured about the store's answers beside its rows; needs the lease.

        Args:
            name: `CALIBRATION_FILE` or `OWN_PHOTOS_FILE` of `storage.calibration_file`.
            values: Plain finite values.

        Raises:
            StoreLocked: the lease is not held, or was lost.
            OutOfSpace: the disk is full.
        """
        write_measured(self._folder, self._leased().lease, name, values)

    def repair(self) -> RepairReport:
        """Remove what is damaged and list the images to index again; takes the lease.

        Raises:
            StoreLocked: another writer holds it.
        """
        report = repair_store(self._folder)
        self.refresh()
        return report

    def compact(self, *, keep_versions_s: float = 3600.0, min_age_s: float = LEFTOVER_AGE_S) -> CompactReport:
        """Merge small files, drop old versions and unused features; takes the lease unless it is held.

        Args:
            keep_versions_s: Versions that were the newest within this time stay readable.
            min_age_s: Age above which feature files that no version uses are removed.

        Raises:
            StoreLocked: another writer holds it.
        """
        with self.lease() if self._writer is None else nullcontext():
            report = compact_store(
                self._folder,
                self._leased(),
                keep_versions_s=keep_versions_s,
                min_age_s=min_age_s,
            )
            self._advance()
        return report

    def preview_compaction(self, *, min_age_s: float = LEFTOVER_AGE_S) -> CompactPreview:
        """Return what `compact` would do with feature files; changes nothing and needs no lease."""
        return preview_compaction(self._folder, self._snapshot.table, self.card, min_age_s=min_age_s)

    def build_index(self, *, min_rows: int = LANCE_INDEX_ROWS) -> int:
        """Build LanceDB's index on the descriptors, for the search method `lance`; return the version.

        Takes the lease unless it is held. Nothing is done where there is one.

        Args:
            min_rows: With fewer rows none is built: reading every row is as fast.

        Raises:
            StoreLocked: another writer holds it.
            NotWritable: the store is on a read-only file system, or belongs to another user.
        """
        with self.lease() if self._writer is None else nullcontext():
            writer = self._leased()
            if writer.committed.rows >= min_rows and not writer.table.has_index:
                writer.change(lambda: writer.table.build_index(), did="built the index on disk")
            return self._advance()

    def merged_segments(self, segments: Sequence[Any]) -> Any:
        """Return one part of an index, made of some that were built apart; nothing uses it; needs the lease.

        Args:
            segments: From `storage.table.index_segments.build_segment`, of different fragments.

        Raises:
            StoreLocked: the lease is not held, or was lost.
        """
        writer = self._leased()
        writer.check_lease()
        return merged(dataset_of(writer.table), segments)

    def recall_of_segment(self, segment: Any) -> float:
        """Return what `index_recall` would if a part were the index, which it is not; needs the lease.

        It is searched in a version that no reader finds, and that is removed.

        Args:
            segment: From `merged_segments`, of all fragments of this version.

        Raises:
            StoreLocked: the lease is not held, or was lost.
            CorruptStore: a data file cannot be read.
        """
        writer = self._leased()
        writer.check_lease()
        forget_trials(self._folder)  # of a process that ended in between
        try:
            return index_recall(writer.table.trying(segment))
        finally:
            forget_trials(self._folder)

    def use_segments(self, segments: Sequence[Any]) -> int:
        """Let parts that were built apart be the store's index, and return the version; needs the lease.

        Args:
            segments: From `storage.table.index_segments.build_segment`, of all fragments of this version.

        Raises:
            StoreLocked: the lease is not held, or was lost.
        """
        writer = self._leased()
        writer.change(lambda: writer.table.use_segments(segments), did="built the index on disk")
        return self._advance()

    def remove_leftovers(self, *, min_age_s: float = LEFTOVER_AGE_S, own: bool = False) -> int:
        """Remove feature files that no version uses; return their bytes; needs the lease.

        What a writer left that died holding the lease is removed whatever its age.

        Args:
            min_age_s: Age above which the others are removed.
            own: Whether those written under this lease are removed too; nothing of them will be committed.

        Raises:
            StoreLocked: the lease is not held.
        """
        writer = self._leased()
        lease = writer.lease
        since = lease.crashed_since
        if own and since is None and isinstance(self._folder, Path):  # a bucket has times of its own
            since = lease.since.timestamp() // 1  # a file's time may be some milliseconds early
        confirm_lease(lease)
        return remove_leftovers(self._folder, writer.table, min_age_s=min_age_s, since=since)[1]

    def _leased(self) -> Writer:
        if self._writer is None:
            raise StoreLocked("writing needs the lease: wrap the call in `with store.lease():`")
        return self._writer

    def _advance(self) -> int:
        writer = self._leased()
        committed = writer.committed
        if committed.version != self._snapshot.version:
            self.card.require_same_features(writer.card)
            self._snapshot = Snapshot(
                *(self._folder, writer.card, committed.version, committed.rows), former=self._snapshot
            )
        return committed.version
