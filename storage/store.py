"""A store: records and descriptors in a LanceDB table, local features in Parquet shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.card_files import first_card
from storage.care.compaction import CompactReport, compact_store
from storage.care.repair import RepairReport, repair_store
from storage.care.verify import VerifyReport, verify_store
from storage.commit.lease import Lease
from storage.commit.ledger import acknowledge, manifests, read_committed
from storage.commit.writer import Writer
from storage.durable import explain_write_errors, replace_file
from storage.errors import CorruptStore, InvalidBatch, StoreLocked, repair_command
from storage.features.encodings import FeatureCodec
from storage.features.projection import write_projection
from storage.features.reader import FeatureReader
from storage.layout import CARD_FILE, FEATURES_FOLDER, check_layout
from storage.records import Candidate, ImageRecord
from storage.search.methods import SearchMethod
from storage.search.snapshot import Snapshot, newest_snapshot
from storage.table.checksums import intact_rows
from storage.table.lance_table import LanceTable
from storage.table.schema import to_records
from storage.uri import local_folder

__all__ = ["Store"]

_CREATE_TIMEOUT_S = 5.0
_POSITION_COLUMNS = ("image_id", "lat", "lon", "utm_e", "utm_n", "utm_zone")
_METADATA_COLUMNS = (
    *("image_id", "uri", "sha256", "width", "height", "lat", "lon", "utm_e", "utm_n", "utm_zone"),
    *("heading_deg", "captured_at", "shard", "row", "indexed_at"),
)


class Store:
    """An index of images: a reader pinned to one committed version and, while it holds the lease, a writer.

    Threads may share a Store for reading. Each call reads from one version.

    Attributes:
        uri: The store's folder.
        card: Which model made its vectors, and how its features are encoded.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        """Use `create` or `open`."""
        self.uri = os.fspath(folder)
        self.card = card
        self._folder = folder
        self._features = FeatureReader(folder, card)
        self._writer: Writer | None = None
        self._snapshot = newest_snapshot(self._folder, self.card)

    @classmethod
    def create(
        cls, uri: str | os.PathLike[str], card: Card, *, projection: npt.NDArray[np.float32] | None = None
    ) -> Store:
        """Create a store, or open the existing one.

        Args:
            uri: A folder; created with its parents if missing.
            card: Which model makes its vectors, and how local features are encoded.
            projection: (C, C') float32 of `storage.features.projection`, if the card names one.

        Raises:
            CardMismatch: the existing store has another card.
            InvalidBatch: the projection is not the one named on the card.
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
                    _initialise(folder, card, projection)
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
        stored = first_card(folder)
        if card is not None:
            stored.require_same(card)
        return cls(folder, stored)

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
            CorruptStore: the store cannot be read; this object stays at its version.
        """
        newest = newest_snapshot(self._folder, self.card)
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
            self._writer = Writer(self._folder, self.card, lease)
            try:
                self._advance()
                yield
            finally:
                self._writer = None

    def commit(self, rows: pa.Table) -> int:
        """Upsert rows and return the new version; needs the lease.

        Args:
            rows: The columns of `storage.table.schema.row_schema(card)`; their shards must exist already.

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
            rows: image_id and any of uri, lat, lon, utm_e, utm_n, utm_zone, heading_deg, captured_at.

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
        """Return all rows with every column but descriptor and crc32."""
        batches = list(self._snapshot.table.scan(_METADATA_COLUMNS))
        return pa.concat_tables(batches) if batches else self._snapshot.table.take([], _METADATA_COLUMNS)

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
        rows = intact_rows(self._snapshot.table.find("image_id", list(image_ids)))
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
        return {
            "uri": self.uri,
            "model": self.card.model,
            "rows": self.count,
            "version": self.version,
            "shards": sum(path.suffix == ".parquet" for path in shards),
            "bytes": sum(sizes.values()),
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

    def compact(self, *, keep_versions_s: float = 3600.0) -> CompactReport:
        """Merge small files, drop old versions and unused features; takes the lease unless it is held.

        Args:
            keep_versions_s: Versions that were the newest within this time stay readable.

        Raises:
            StoreLocked: another writer holds it.
        """
        with self.lease() if self._writer is None else nullcontext():
            report = compact_store(self._folder, self._leased(), self.card, keep_versions_s=keep_versions_s)
            self._advance()
        return report

    def _leased(self) -> Writer:
        if self._writer is None:
            raise StoreLocked("writing needs the lease: wrap the call in `with store.lease():`")
        return self._writer

    def _advance(self) -> int:
        committed = self._leased().committed
        if committed.version != self._snapshot.version:
            self._snapshot = Snapshot(self._folder, self.card, committed.version, committed.rows)
        return committed.version


def _initialise(folder: Path, card: Card, projection: npt.NDArray[np.float32] | None) -> None:
    """Write the card and the empty table, or finish that after a crash."""
    if FeatureCodec(card, projection=projection).projection_sha256 != card.projection_sha256:
        raise InvalidBatch(
            "the projection is not the one named on the card: fit it with storage.features.projection and "
            "put its projection_sha256 on the card"
        )
    path = folder / CARD_FILE
    if path.exists():
        stored = first_card(folder)
        # Without rows nothing depends on the projection yet, and fitting it again may change its last digits.
        replace(stored, projection_sha256=card.projection_sha256).require_same(card)
    if projection is not None:
        write_projection(folder, projection)
    replace_file(path, card.to_json().encode())
    if len(manifests(folder)) > 1:
        raise CorruptStore(f"{folder / 'COMMITTED'} is missing: {repair_command(folder)}")
    table = LanceTable.create(folder, card)
    acknowledge(folder, table.version, table.count(), known=set())
