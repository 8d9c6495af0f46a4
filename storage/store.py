"""A store: records and descriptors in a LanceDB table, local features in Parquet shards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.artifacts import read_artifact, write_artifact
from storage.card import FORMAT_VERSION, Card
from storage.care.compaction import CompactPreview, CompactReport, compact_store, preview_compaction
from storage.care.leftovers import LEFTOVER_AGE_S, find_leftovers, remove_leftovers, used_shards
from storage.care.repair import RepairReport, repair_store
from storage.care.verify import VerifyReport, verify_store
from storage.commit.creation import create_store
from storage.commit.current_card import current_card
from storage.commit.lease import Lease
from storage.commit.ledger import manifests, read_committed
from storage.commit.replacement import replace_descriptors, rows_to_describe
from storage.commit.writer import Writer
from storage.durable import explain_write_errors
from storage.errors import StoreLocked
from storage.features.encodings import FeatureCodec
from storage.features.reader import FeatureReader
from storage.layout import FEATURES_FOLDER, check_layout
from storage.records import Candidate, ImageRecord
from storage.search.methods import SearchMethod
from storage.search.snapshot import Snapshot, newest_snapshot
from storage.table.checksums import intact_rows
from storage.table.schema import to_records
from storage.table.sources import rows_of_source, with_sources
from storage.uri import local_folder

__all__ = ["Store"]

_CREATE_TIMEOUT_S = 5.0
_POSITION_COLUMNS = ("image_id", "lat", "lon", "utm_e", "utm_n", "utm_zone")
_METADATA_COLUMNS = (
    *("image_id", "uri", "sha256", "width", "height", "lat", "lon", "utm_e", "utm_n", "utm_zone"),
    *("heading_deg", "captured_at", "shard", "row", "indexed_at", "source", "tags"),
)


class Store:
    """An index of images: a reader pinned to one committed version and, while it holds the lease, a writer.

    Threads may share a Store for reading. Each call reads from one version.

    Attributes:
        uri: The store's folder.
    """

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        """Use `create` or `open`."""
        self.uri = os.fspath(folder)
        self._folder = folder
        self._features = FeatureReader(folder, snapshot.card)
        self._writer: Writer | None = None
        self._snapshot = snapshot

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
        """
        folder = local_folder(uri)
        check_layout(folder)
        with explain_write_errors(folder, 0):
            (folder / FEATURES_FOLDER).mkdir(parents=True, exist_ok=True)
        if read_committed(folder) is None:
            with Lease(folder, timeout_s=_CREATE_TIMEOUT_S):
                if read_committed(folder) is None:
                    create_store(folder, card.upgraded(), projection=projection, artifacts=artifacts)
        return cls.open(uri, card=card)

    @classmethod
    def open(cls, uri: str | os.PathLike[str], *, card: Card | None = None) -> Store:
        """Open a store at its newest committed version.

        Args:
            uri: The store's folder.
            card: The card that the store must have; None accepts any.

        Raises:
            StoreNotFound: there is no store.
            CardMismatch: the store has another card, or a newer format.
            CorruptStore: the files cannot be read or are inconsistent.
        """
        folder = local_folder(uri)
        if card is not None:
            current_card(folder).require_same(card)
        return cls(folder, newest_snapshot(folder))

    @property
    def card(self) -> Card:
        """What made the vectors of the version that this store reads from, and how they are kept."""
        return self._snapshot.card

    @property
    def codec(self) -> FeatureCodec:
        """The codec of its local features."""
        return self._features.codec

    @property
    def snapshot(self) -> Snapshot:
        """The version this store reads from; it does not change when the store moves to a newer one."""
        return self._snapshot

    @property
    def version(self) -> int:
        """The version this store reads from."""
        return self._snapshot.version

    @property
    def count(self) -> int:
        """How many rows that version has."""
        return self._snapshot.count

    @property
    def degraded(self) -> bool:
        """Whether a search of that version had to leave damaged rows out."""
        return self._snapshot.degraded

    def refresh(self) -> bool:
        """Move to the newest committed version; return whether there was a newer one.

        Raises:
            CardMismatch: the folder now contains another store; this object stays at its version.
            CorruptStore: the store cannot be read; likewise.
        """
        newest = newest_snapshot(self._folder)
        self.card.require_same_features(newest.card)
        if newest.version == self._snapshot.version:
            return False
        self._snapshot = newest
        return True

    @contextmanager
    def lease(self, *, timeout_s: float = 0.0) -> Iterator[None]:
        """Hold the write lock for a `with` block; the store moves to the head, and on with each commit.

        Args:
            timeout_s: How long to wait for another writer.

        Raises:
            StoreLocked: another writer holds it.
            CorruptStore: the head cannot be read.
        """
        with Lease(self._folder, timeout_s=timeout_s) as lease:
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

    def metadata(self) -> pa.Table:
        """Return all rows with every column but descriptor, code and crc32.

        `source` of a row from before format 3 is the folder that its uri lies in; its `tags` are missing.
        """
        table = self._snapshot.table
        present = [name for name in _METADATA_COLUMNS if name in table.schema.names]
        batches = list(table.scan(present))
        return with_sources(pa.concat_tables(batches) if batches else table.take([], present))

    def rows_of_source(self, source: str) -> list[str]:
        """Return the keys of the rows that were indexed from a source, in the table's order.

        Args:
            source: A folder, listing or URI as in the column `source`. Rows from before format 3 do not have
                it: they count to every folder that their uri lies in.
        """
        return rows_of_source(self._snapshot.table, source)

    def artifact(self, sha256: str) -> bytes:
        """Return the contents of an artifact that a card names.

        Raises:
            CorruptStore: it is missing or damaged.
        """
        return read_artifact(self._folder, sha256)

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

    def known(self) -> pa.Table:
        """Return `metadata()`: its name up to version 0.1, which scripts use."""
        return self.metadata()

    def places(self, limit: int) -> list[dict[str, Any]]:
        """Return image_id and position of about `limit` rows, evenly spaced over all of them."""
        step = max(1, -(-self.count // limit))
        sample: list[dict[str, Any]] = []
        start = 0
        for batch in self._snapshot.table.scan(_POSITION_COLUMNS):
            sample += batch.take(list(range(-start % step, len(batch), step))).to_pylist()
            start += len(batch)
        return sample

    def get(self, image_ids: Sequence[str]) -> list[ImageRecord]:
        """Return the records of these keys, in this order, without absent or damaged ones."""
        rows = intact_rows(self._snapshot.table.find("image_id", list(image_ids)), self.card)
        records = {record.image_id: record for record in to_records(rows)}
        return [records[image_id] for image_id in image_ids if image_id in records]

    def search(
        self, descriptors: npt.NDArray[np.float32], *, k: int, method: SearchMethod = "exact"
    ) -> list[list[Candidate]]:
        """Return up to k candidates per query, best first, ties by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query.
            method: `exact` compares every row in memory, `ivf` uses an approximate index in memory, `lance`
                searches on disk.

        Raises:
            InvalidBatch: descriptors of another width, not finite, or not of unit norm; k below 1.
        """
        return self._snapshot.search(descriptors, k=k, method=method)

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the local features of these records; damage is reported, not raised.

        Returns:
            features: As returned by `FeatureCodec.decode`; (K, H, W, C) float16 in a float16 store. Zeros
                where they could not be read.
            ok: (K,) bool; False where the row is missing or damaged.
        """
        return self._features.fetch(records)

    def info(self) -> dict[str, Any]:
        """Return what the store holds, ready for JSON."""
        sizes = {path: path.lstat().st_size for path in self._folder.rglob("*") if not path.is_dir()}
        shards = [path for path in sizes if path.parent == self._folder / FEATURES_FOLDER]
        left = find_leftovers(self._folder, used_shards(self._snapshot.table))
        return {
            "uri": self.uri,
            "model": self.card.model,
            "rows": self.count,
            "version": self.version,
            "shards": sum(path.suffix == ".parquet" for path in shards),
            "bytes": sum(sizes.values()),
            "versions": len(manifests(self._folder)),
            "leftover_files": left.files,
            "leftover_bytes": left.bytes,
            "leftover_removable_in_s": left.removable_in_s,
            "leftovers": str(left),
            "card": asdict(self.card),
        }

    def verify(self) -> VerifyReport:
        """Read everything and report what is damaged, missing or unreferenced."""
        return verify_store(self._folder)

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

    def remove_leftovers(self, *, min_age_s: float = LEFTOVER_AGE_S) -> int:
        """Remove feature files of stopped runs that no version uses; return their bytes; needs the lease.

        Args:
            min_age_s: Age above which they are removed.

        Raises:
            StoreLocked: the lease is not held.
        """
        return remove_leftovers(self._folder, self._leased().table, min_age_s=min_age_s)[1]

    def _leased(self) -> Writer:
        if self._writer is None:
            raise StoreLocked("writing needs the lease: wrap the call in `with store.lease():`")
        return self._writer

    def _advance(self) -> int:
        writer = self._leased()
        committed = writer.committed
        if committed.version != self._snapshot.version:
            self.card.require_same_features(writer.card)
            self._snapshot = Snapshot(self._folder, writer.card, committed.version, committed.rows)
        return committed.version
