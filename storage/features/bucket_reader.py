"""Reading the local features of single images from shards in a bucket, by ranges in parallel.

A row is one range of its shard once the shard's row table is known; row tables stay in memory, rows and row
tables also on local disk. Every row is compared with the checksum in its row table, wherever it came from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from isal.isal_zlib import crc32

from storage.card import Card
from storage.errors import CorruptStore
from storage.features.disk_cache import DEFAULT_CACHE_BYTES, DiskCache, default_cache_folder
from storage.features.encodings import open_codec
from storage.features.row_table import RowTable
from storage.features.shards import shard_path
from storage.layout import is_shard_name
from storage.objects.bucket_path import BucketPath
from storage.objects.protocol import ByteRange
from storage.records import ImageRecord

__all__ = ["BucketFeatureReader"]

_MAX_SHARDS = 4096
_TAIL_BYTES = 1 << 16


class BucketFeatureReader:
    """Reads the features of single images from shards in a bucket; safe to share between threads.

    Attributes:
        codec: Decodes what `fetch_encoded` returns.
    """

    def __init__(self, location: BucketPath, card: Card) -> None:
        """Read features of the store at `location`; the cache is that of the location's options.

        Raises:
            CorruptStore: the projection named on the card cannot be read.
        """
        self.codec = open_codec(location, card)
        self._location = location
        options = location.objects.address.options
        folder = Path(options["cache_dir"]) if "cache_dir" in options else default_cache_folder()
        max_bytes = (
            int(float(options["cache_gib"]) * 2**30) if "cache_gib" in options else DEFAULT_CACHE_BYTES
        )
        self._cache = DiskCache(folder, max_bytes=max_bytes)
        self._tables: OrderedDict[str, RowTable] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records; see `FeatureReader.fetch`."""
        rows, ok = self.fetch_encoded(records)
        return self.codec.decode(rows), ok

    def fetch_encoded(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records as stored; see `FeatureReader.fetch_encoded`.

        Raises:
            StorageUnreachable, StorageForbidden, StorageThrottled: the bucket does not answer.
        """
        rows = np.zeros((len(records), self.codec.row_bytes), np.uint8)
        ok = np.zeros(len(records), bool)
        tables = self._row_tables({record.shard for record in records})
        missing = [
            i
            for i, record in enumerate(records)
            if not self._from_cache(record, tables[record.shard], rows[i])
        ]
        ok[:] = True
        ok[missing] = False
        for _ in range(2):  # a byte that flipped on the way is read once more
            missing = self._read(records, missing, tables, rows, ok)
        return rows, ok

    def read(self, shard: str, row: int, image_id: str, out: np.ndarray) -> str | None:
        """Read one row into `out` and return None, or return why it is unusable."""
        table = self._row_tables([shard])[shard]
        if table is None:
            return "the shard is missing, or its row table cannot be read"
        if not 0 <= row < len(table):
            return f"the shard has {len(table)} rows, not row {row}"
        wanted = ByteRange(self._key(shard), table.starts[row], out.nbytes)
        data = self._location.objects.get_ranges([wanted])[0]
        if data is None or len(data) != out.nbytes:
            return "the shard is truncated"
        if crc32(data, crc32(image_id.encode())) != table.checksums[row]:
            return "the row belongs to another image, or fails its checksum"
        out[:] = np.frombuffer(data, np.uint8)
        return None

    def rows(self, shard: str) -> int:
        """Return the number of rows of a shard; 0 if its footer cannot be read."""
        table = self._row_tables([shard])[shard]
        return 0 if table is None else len(table)

    def _from_cache(self, record: ImageRecord, table: RowTable | None, out: np.ndarray) -> bool:
        """Copy a row from the local disk; return whether it was there and intact."""
        if table is None or not 0 <= record.row < len(table):
            return False
        data = self._cache.get(self._row_key(record))
        if data is None:
            return False
        if len(data) != out.nbytes or _checksum(record, data) != table.checksums[record.row]:
            self._cache.drop(self._row_key(record))
            return False
        out[:] = np.frombuffer(data, np.uint8)
        return True

    def _read(
        self,
        records: Sequence[ImageRecord],
        some: list[int],
        tables: dict[str, RowTable | None],
        rows: np.ndarray,
        ok: np.ndarray,
    ) -> list[int]:
        """Read rows from the bucket; return the numbers of those that do not match their checksum."""
        readable, wanted = [], []
        for i in some:
            table, row = tables[records[i].shard], records[i].row
            if table is not None and 0 <= row < len(table):
                readable.append(i)
                wanted.append(ByteRange(self._key(records[i].shard), table.starts[row], rows.shape[1]))
        damaged = []
        for i, data in zip(readable, self._location.objects.get_ranges(wanted), strict=True):
            record = records[i]
            table = tables[record.shard]
            assert table is not None
            if data is None or len(data) != rows.shape[1]:
                continue
            if _checksum(record, data) != table.checksums[record.row]:
                damaged.append(i)
                continue
            rows[i], ok[i] = np.frombuffer(data, np.uint8), True
            self._cache.put(self._row_key(record), data)
        return damaged

    def _row_tables(self, shards: Iterable[str]) -> dict[str, RowTable | None]:
        """Return the row tables of shards; None for those that cannot be read."""
        tables: dict[str, RowTable | None] = {}
        unknown = []
        with self._lock:
            for shard in dict.fromkeys(shards):
                tables[shard] = self._tables.get(shard)
                if tables[shard] is not None:
                    self._tables.move_to_end(shard)
                elif is_shard_name(shard):
                    unknown.append(shard)
        asked = []
        for shard in unknown:
            packed = self._cache.get(self._table_key(shard))
            tables[shard] = None if packed is None else RowTable.unpack(packed)
            if tables[shard] is None:
                asked.append(shard)
        for shard, table in self._read_tables(asked).items():
            tables[shard] = table
        with self._lock:
            for shard in unknown:
                table = tables[shard]
                if table is not None:
                    self._tables[shard] = table
            while len(self._tables) > _MAX_SHARDS:
                self._tables.popitem(last=False)
        return tables

    def _read_tables(self, shards: list[str]) -> dict[str, RowTable | None]:
        """Read row tables from the ends of their shards, in parallel; larger ones in a second turn."""
        tails = self._tails(shards, _TAIL_BYTES)
        tables = {shard: None if tail is None else RowTable.parse(tail) for shard, tail in tails.items()}
        longer = {
            shard: length
            for shard, tail in tails.items()
            if tables[shard] is None and tail and (length := RowTable.footer_bytes(tail)) > len(tail)
        }
        if longer:
            for shard, tail in self._tails(list(longer), max(longer.values())).items():
                tables[shard] = None if tail is None else RowTable.parse(tail)
        for shard, table in tables.items():
            if table is not None:
                self._cache.put(self._table_key(shard), table.pack())
        return tables

    def _tails(self, shards: list[str], length: int) -> dict[str, bytes | None]:
        ranges = [ByteRange(self._key(shard), -length, length) for shard in shards]
        return dict(zip(shards, self._location.objects.get_ranges(ranges), strict=True))

    def _key(self, shard: str) -> str:
        path = shard_path(self._location, shard)
        if not isinstance(path, BucketPath):
            raise CorruptStore(f"{path} is not in a bucket")
        return path.key

    # A shard's name is unique, so entries of all stores can lie side by side.
    def _row_key(self, record: ImageRecord) -> str:
        return f"row {record.shard} {record.row}"

    def _table_key(self, shard: str) -> str:
        return f"table {shard}"


def _checksum(record: ImageRecord, data: bytes) -> int:
    return crc32(data, crc32(record.image_id.encode()))
