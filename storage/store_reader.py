"""Reading from a store: its rows, descriptors and local features at one committed version."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.artifacts import read_artifact
from storage.calibration_file import read_measured, stamp_of
from storage.card import Card
from storage.card_files import first_card
from storage.care.index_recall import index_recall
from storage.care.leftovers import find_leftovers, used_shards
from storage.care.verify import VerifyReport, verify_store
from storage.care.versions import StoreVersion, list_versions
from storage.commit.current_card import card_of, current_card
from storage.commit.ledger import manifests
from storage.errors import CorruptStore
from storage.features.encodings import FeatureCodec
from storage.features.open_features import open_features
from storage.layout import FEATURES_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location
from storage.objects.location import location_uri, open_location
from storage.records import Candidate, ImageRecord
from storage.search.methods import SearchMethod
from storage.search.row_filter import RowFilter
from storage.search.snapshot import Snapshot, newest_snapshot
from storage.table.checksums import intact_rows
from storage.table.open_table import Table, open_table
from storage.table.schema import to_records
from storage.table.sources import rows_of_source, with_sources

__all__ = ["StoreReader"]

_POSITION_COLUMNS = ("image_id", "lat", "lon", "utm_e", "utm_n", "utm_zone")
_METADATA_COLUMNS = (
    *("image_id", "uri", "sha256", "width", "height", "lat", "lon", "utm_e", "utm_n", "utm_zone"),
    *("heading_deg", "captured_at", "shard", "row", "indexed_at", "source", "tags"),
)


class StoreReader:
    """An index of images at one committed version. Threads may share it; each call reads from one version.

    Attributes:
        uri: The store's folder.
    """

    def __init__(self, folder: Location, snapshot: Snapshot, *, at: str | None = None) -> None:
        """Use `open`."""
        self.uri = location_uri(folder)
        self._at = at
        self._folder = folder
        self._features = open_features(folder, snapshot.card)
        self._snapshot = snapshot

    @classmethod
    def open(cls, uri: str | os.PathLike[str], *, card: Card | None = None, at: str | None = None) -> Self:
        """Open a store at its newest committed version.

        Args:
            uri: The store's folder.
            card: The card that the store must have; None accepts any.
            at: A tag: open the version that it names, and follow the tag.

        Raises:
            StoreNotFound: there is no store.
            CardMismatch: the store has another card, or a newer format.
            CorruptStore: the files cannot be read or are inconsistent.
        """
        folder = open_location(uri)
        if card is not None:
            current_card(folder, at).require_same(card)
        return cls(folder, newest_snapshot(folder, at=at), at=at)

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

    @property
    def has_index(self) -> bool:
        """Whether that version has LanceDB's index on the descriptors."""
        return self._snapshot.table.has_index

    @property
    def table(self) -> Table:
        """The table at that version, for reading."""
        return self._snapshot.table

    def index_recall(self) -> float:
        """Return recall@100 of LanceDB's index against exact search, with 200 stored rows as queries.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        return index_recall(self._snapshot.table)

    def refresh(self) -> bool:
        """Move to the newest committed version; return whether there was a newer one.

        Raises:
            CardMismatch: the folder now contains another store; this object stays at its version.
            CorruptStore: the store cannot be read; likewise.
        """
        newest = newest_snapshot(self._folder, former=self._snapshot, at=self._at)
        self.card.require_same_features(newest.card)
        if newest.version == self._snapshot.version:
            return False
        self._snapshot = newest
        return True

    def metadata(self) -> pa.Table:
        """Return all rows with every column but descriptor, code and crc32.

        `source` of a row from before format 3 is the folder that its uri lies in; its `tags` are missing.
        """
        batches = list(self.scan())
        table = self._snapshot.table
        present = [name for name in _METADATA_COLUMNS if name in table.schema.names]
        return with_sources(pa.concat_tables(batches) if batches else table.take([], present))

    def scan(self, columns: Sequence[str] = _METADATA_COLUMNS) -> Iterator[pa.Table]:
        """Yield all rows in batches, for stores whose rows do not fit into memory.

        Args:
            columns: Of those that `metadata` returns; the store's format may not have all of them.
        """
        table = self._snapshot.table
        yield from table.scan([name for name in columns if name in table.schema.names])

    def newest(self, limit: int) -> pa.Table:
        """Return the rows that were indexed last, the newest first, with the columns of `metadata`."""
        kept: pa.Table | None = None
        for batch in self.scan():
            both = batch if kept is None else pa.concat_tables([kept, batch])
            kept = both.sort_by([("indexed_at", "descending")]).slice(0, limit).combine_chunks()
        return self.metadata() if kept is None else with_sources(kept)

    def rows_of_source(self, source: str) -> list[str]:
        """Return the keys of the rows that were indexed from a source, in the table's order.

        Args:
            source: A folder, listing or URI as in the column `source`. Rows from before format 3 do not have
                it: they count to every folder that their uri lies in.
        """
        return rows_of_source(self._snapshot.table, source)

    def card_at(self, version: int) -> Card | None:
        """Return the card of a version; None where the version is not kept.

        Raises:
            CorruptStore: its card cannot be read.
        """
        if version == self.version:
            return self.card
        try:
            table = open_table(self._folder, version=version)
        except CorruptStore:
            return None
        return card_of(self._folder, table.card_sha256, first_card(self._folder))

    def artifact(self, sha256: str) -> bytes:
        """Return the contents of an artifact that a card names.

        Raises:
            CorruptStore: it is missing or damaged.
        """
        return read_artifact(self._folder, sha256)

    def measured(self, name: str) -> dict[str, Any] | None:
        """Return what `Store.write_measured` wrote, as somebody wrote it; None where there is nothing.

        Raises:
            ValueError: the file is not a JSON object.
            StoreError: it cannot be read.
        """
        return read_measured(self._folder, name)

    def measured_stamp(self, name: str) -> object:
        """Return what changes whenever that file is replaced; None where there is none."""
        return stamp_of(self._folder, name)

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
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        method: SearchMethod = "exact",
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[list[Candidate]]:
        """Return up to k candidates per query, best first, ties by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query.
            method: `exact` compares every row in memory, `ivf` uses an approximate index in memory, `lance`
                searches on disk, `codes` compares codes and orders the nearest 100 by descriptor.
            codes: (B, code_bits / 8) uint8, for `codes`.
            within: Which rows may be found; default: all.

        Raises:
            InvalidBatch: descriptors of another width, not finite, or not of unit norm; k below 1.
        """
        return self._snapshot.search(descriptors, k=k, method=method, codes=codes, within=within)

    def considered(self, within: RowFilter | None, *, method: SearchMethod = "exact") -> int:
        """Return how many of the rows that a search method searches a filter leaves."""
        return self._snapshot.considered(within, method)

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the local features of these records; damage is reported, not raised.

        Returns:
            features: As returned by `FeatureCodec.decode`; (K, H, W, C) float16 in a float16 store. Zeros
                where they could not be read.
            ok: (K,) bool; False where the row is missing or damaged.
        """
        return self._features.fetch(records)

    def fetch_encoded(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the local features of these records as they are stored.

        Returns:
            rows: (K, row_bytes) uint8 for `codec`; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing or damaged.
        """
        return self._features.fetch_encoded(records)

    def info(self) -> dict[str, Any]:
        """Return what the store holds, ready for JSON."""
        sizes = _sizes(self._folder)
        shards = [name for name in sizes if name.rpartition("/")[0] == FEATURES_FOLDER]
        left = find_leftovers(self._folder, used_shards(self._snapshot.table))
        return {
            "uri": self.uri,
            "model": self.card.model,
            "rows": self.count,
            "version": self.version,
            "shards": sum(name.endswith(".parquet") for name in shards),
            "bytes": sum(sizes.values()),
            "versions": len(manifests(self._folder)),
            "leftover_files": left.files,
            "leftover_bytes": left.bytes,
            "leftover_removable_in_s": left.removable_in_s,
            "leftovers": str(left),
            "card": asdict(self.card),
        }

    def versions(self) -> list[StoreVersion]:
        """Return the versions that can be gone back to, oldest first."""
        return list_versions(self._folder)

    def verify(self) -> VerifyReport:
        """Read everything and report what is damaged, missing or unreferenced."""
        return verify_store(self._folder)


def _sizes(folder: Location) -> dict[str, int]:
    """Return the size of every file of a store by its name relative to it."""
    if isinstance(folder, BucketPath):
        return {each.name: each.size for each in folder.objects.list()}
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.lstat().st_size for path in files}
