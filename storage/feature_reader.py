"""Reading single images out of shards of local features, each row checked."""

from __future__ import annotations

import errno
import functools
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

from storage.card import Card
from storage.encodings import open_codec
from storage.features import shard_path
from storage.records import ImageRecord

__all__ = ["FeatureReader"]

_KNOWN_SHARDS = 4096
_MAX_HEADERS_BYTES = 1 << 20
_THREADS = min(8, os.cpu_count() or 1)
_THREAD_BYTES = 4 << 20  # less than this is not worth a thread
_FILES_AT_ONCE = 100
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux
_NOT_NOW = "the row is not in memory"


class FeatureReader:
    """Reads single images out of shards; safe to share between threads.

    Remembers where each row of a shard lies, because parsing a footer costs more than reading a row; and of
    a row that was read before, its checksum, because reading the pages' headers costs more than a small row.
    The bytes of a row go from the file straight into the caller's array and are checked there, each time.
    Files are not memory-mapped: a map of a file cut short kills the process instead of raising.

    Attributes:
        codec: Decodes what `read` and `fetch_encoded` return.
    """

    def __init__(self, folder: Path, card: Card, *, known_shards: int = _KNOWN_SHARDS) -> None:
        """Read the store at `folder`, remembering the rows of up to `known_shards` files.

        Raises:
            CorruptStore: the projection that the card names cannot be read.
        """
        self.codec = open_codec(folder, card)
        self._folder = folder
        self._known_shards = known_shards
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._lock = threading.Lock()
        # For rows that were read before: 0 where the file system cannot tell what is in memory.
        self._flags = _NO_WAIT

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records.

        Returns:
            features: as `FeatureCodec.decode` returns them; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing, damaged, or another image's.
        """
        rows, ok = self.fetch_encoded(records)
        return self.codec.decode(rows), ok

    def fetch_encoded(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records as they are stored.

        Returns:
            rows: (K, row_bytes) uint8; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing, damaged, or another image's.
        """
        rows = np.empty((len(records), self.codec.row_bytes), dtype=np.uint8)
        workers = min(_THREADS, rows.nbytes // _THREAD_BYTES)
        if workers < 2:
            lost = self._read_all(records, range(len(records)), rows)
        else:  # reading and checking large rows leaves the interpreter free
            share = -(-len(records) // workers)
            parts = [range(at, min(at + share, len(records))) for at in range(0, len(records), share)]
            others = [_pool().submit(self._read_all, records, part, rows) for part in parts[1:]]
            lost = self._read_all(records, parts[0], rows)
            for other in others:
                lost += other.result()
        ok = np.ones(len(records), dtype=bool)
        for i in lost:
            ok[i], rows[i] = False, 0
        return rows, ok

    def _read_all(self, records: Sequence[ImageRecord], some: range, rows: np.ndarray) -> list[int]:
        """Read some records into their rows, and return those that cannot be used."""
        unread: list[int] = []
        for at in range(0, len(some), _FILES_AT_ONCE):
            unread += self._read_known(records, some[at : at + _FILES_AT_ONCE], rows)
        # Shard by shard and forward in each, which is the order of the disk.
        unread.sort(key=lambda i: (records[i].shard, records[i].row))
        lost: list[int] = []
        for at in range(0, len(unread), _FILES_AT_ONCE):
            lost += self._read_others(records, unread[at : at + _FILES_AT_ONCE], rows)
        return lost

    def _read_known(self, records: Sequence[ImageRecord], some: range, rows: np.ndarray) -> list[int]:
        """Read what was read before and is in the system's memory; return the rest and what differs now.

        This is what small rows spend their time in: a few microseconds each.
        """
        unread: list[int] = []
        size, block = rows.shape[1], memoryview(rows.data).cast("B")
        known, read, flags = self._shards.get, os.preadv, self._flags
        with _Files(self._folder) as files:
            for i in some:
                record = records[i]
                name, row = record.shard, record.row
                shard = known(name)
                if shard is None or not 0 <= row < shard.rows or shard.owners[row] != hash(record.image_id):
                    unread.append(i)
                    continue
                out = block[i * size : (i + 1) * size]
                try:
                    whole = read(files[name], (out,), shard.starts[row], flags) == size
                except OSError as error:
                    whole = False
                    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                        flags = self._flags = 0
                if not whole or crc32(out) != shard.checksums[row]:
                    unread.append(i)
            self._used(files)
        return unread

    def _used(self, names: Iterable[str]) -> None:
        """Keep these shards longest."""
        with self._lock:
            for name in names:
                if name in self._shards:
                    self._shards.move_to_end(name)

    def _read_others(self, records: Sequence[ImageRecord], some: list[int], rows: np.ndarray) -> list[int]:
        """Read rows with their headers; return those that cannot be used.

        What the system has in memory is read at once; of all else the disk hears before the first row is
        waited for.
        """
        lost: list[int] = []
        awaited: list[tuple[int, _Place]] = []
        with _Files(self._folder) as files:
            for i in some:
                record = records[i]
                place = self._find(record.shard, record.row, rows[i].nbytes, files)
                if isinstance(place, str):
                    lost.append(i)
                    continue
                outcome = _read_row(place, record.image_id, rows[i], _NO_WAIT)
                if outcome == _NOT_NOW:
                    os.posix_fadvise(place.fd, place.key_at, place.length, os.POSIX_FADV_WILLNEED)
                    awaited.append((i, place))
                elif outcome is not None:
                    lost.append(i)
            lost += [i for i, place in awaited if _read_row(place, records[i].image_id, rows[i]) is not None]
        return lost

    def read(self, shard: str, row: int, image_id: str, out: np.ndarray) -> str | None:
        """Read one row with its headers into `out` and return None, or return why it cannot be used.

        Args:
            shard: Name of the shard.
            row: Row in it.
            image_id: Whose features they must be.
            out: C-contiguous, `codec.row_bytes` long, written.
        """
        with _Files(self._folder) as files:
            place = self._find(shard, row, out.nbytes, files)
            return place if isinstance(place, str) else _read_row(place, image_id, out)

    def _find(self, name: str, row: int, size: int, files: _Files) -> _Place | str:
        """Return where a row of `size` bytes lies, or why it cannot; what is opened is added to `files`."""
        try:
            shard = self._shard(name)
            if not 0 <= row < shard.rows:
                return f"the shard has {shard.rows} rows, not row {row}"
            key_at, value_at, value_end = shard.positions[row].tolist()
            if value_end - value_at < size:
                return f"the row has fewer than {size} bytes"
            if (
                not 0 <= key_at < value_at < value_end - size
                or value_end - size - key_at > _MAX_HEADERS_BYTES
            ):
                return "the footer is damaged"
            return _Place(files[name], key_at, value_at, value_end - key_at, shard, row)
        except FileNotFoundError:
            return "the shard is missing"
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            return f"the row cannot be read ({error})"

    def rows(self, shard: str) -> int:
        """Return how many rows a shard has; 0 where its footer cannot be read."""
        try:
            return self._shard(shard).rows
        except (OSError, ValueError, OverflowError, pa.ArrowException):
            return 0

    def _shard(self, name: str) -> _Shard:
        with self._lock:
            if name in self._shards:
                self._shards.move_to_end(name)
                return self._shards[name]
        found = _Shard(shard_path(self._folder, name))
        with self._lock:
            self._shards[name] = found
            while len(self._shards) > self._known_shards:
                self._shards.popitem(last=False)
        return found


class _Shard:
    """Where the rows of a shard lie, and what is known of those that were read.

    Attributes:
        rows: How many.
        positions: (rows, 3) int64: where each row's key and features begin, and where its features end.
        starts: Where the features themselves begin, after their header.
        checksums: CRC-32 of the features.
        owners: Hash of the image's id. It and the two above are -1, which is no hash, until a row is read.
    """

    def __init__(self, path: Path) -> None:
        footer = pq.read_metadata(path)
        self.rows = int(footer.num_row_groups)
        self.positions = np.empty((self.rows, 3), dtype=np.int64)
        for row in range(self.rows):
            group = footer.row_group(row)
            key, value = group.column(0), group.column(1)
            start = value.data_page_offset
            self.positions[row] = key.data_page_offset, start, start + value.total_compressed_size
        self.starts, self.checksums, self.owners = (array("q", [-1]) * self.rows for _ in range(3))

    def remember(self, row: int, *, start: int, checksum: int, image_id: str) -> None:
        """Keep what is known of a row, its owner last: other threads look at that first."""
        self.starts[row], self.checksums[row] = start, checksum
        self.owners[row] = hash(image_id)


class _Place(NamedTuple):
    """Where a row lies: its file, where its two pages begin, and how long both are together."""

    fd: int
    key_at: int
    value_at: int
    length: int
    shard: _Shard
    row: int


class _Files(dict[str, int]):
    """Descriptors of a store's shards, each opened when it is first asked for and closed at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._before, self._after = str(shard_path(folder, "?")).rsplit("?", 1)

    def __missing__(self, shard: str) -> int:
        fd = os.open(f"{self._before}{shard}{self._after}", os.O_RDONLY | os.O_CLOEXEC)
        self[shard] = fd
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.values():
            os.close(fd)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="features")


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _read_row(place: _Place, image_id: str, out: np.ndarray, flags: int = 0) -> str | None:
    """Read a row into `out`; return None or why it is unusable, `_NOT_NOW` where `flags` forbid to wait."""
    target = memoryview(out.data).cast("B")
    headers = bytearray(place.length - target.nbytes)
    try:
        if os.preadv(place.fd, [headers, target], place.key_at, flags) != place.length:
            return _NOT_NOW if flags else "the shard is cut short"
        before_value = place.value_at - place.key_at
        size, key_crc = _page_header(headers)
        key = headers[before_value - size : before_value]
        value_size, value_crc = _page_header(headers[before_value:])
    except (OSError, ValueError, OverflowError) as error:
        return _NOT_NOW if flags and isinstance(error, OSError) else f"the row cannot be read ({error})"
    if crc32(key) != key_crc or value_size != target.nbytes:
        return "the page holding the key fails its checksum"
    if key[4:] != image_id.encode():
        return "the row belongs to another image"
    if crc32(target) != value_crc:
        return "the page fails its checksum"
    start = place.key_at + len(headers)
    place.shard.remember(place.row, start=start, checksum=value_crc, image_id=image_id)
    return None


def _page_header(data: bytearray) -> tuple[int, int]:
    """Return size and CRC-32 from a page's Thrift header (Parquet's PageHeader, fields 1 to 4).

    Raises:
        ValueError: this is no such header.
    """
    values, at = [], 0
    for _ in range(4):
        if data[at : at + 1] != b"\x15":  # the next field, an i32
            raise ValueError("no page header with a checksum")
        at += 1
        value = shift = 0
        while True:
            byte = data[at] if at < len(data) and shift < 35 else -1
            if byte < 0:
                raise ValueError("a page header is cut short")
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        values.append((value >> 1) ^ -(value & 1))  # zigzag
    return values[2], values[3] & 0xFFFFFFFF
