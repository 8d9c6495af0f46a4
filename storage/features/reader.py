"""Reading single images out of shards of local features, each row checked."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
from isal.isal_zlib import crc32

from storage.card import Card
from storage.features.encodings import open_codec
from storage.features.row_pages import WOULD_BLOCK, page_positions, read_row
from storage.features.row_table import RowTable, row_checksum
from storage.features.shards import shard_path
from storage.records import ImageRecord

__all__ = ["FeatureReader"]

_KNOWN_SHARDS = 4096
_THREADS = min(8, os.cpu_count() or 1)
_THREAD_BYTES = 4 << 20  # less than this is not worth a thread
_FILES_AT_ONCE = 100
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux
_UNREADABLE = (OSError, ValueError, OverflowError, pa.ArrowException)


class FeatureReader:
    """Reads single images out of shards; safe to share between threads.

    Remembers each shard's table of rows: where they lie, and checksums of them and their images' ids. With it
    the bytes of a row go from the file straight into the caller's array and are checked there, each time. A
    row that the table does not know, or that does not fit it, is read with its pages' headers, which say why
    it cannot be used. Files are not memory-mapped: a map of a file cut short kills the process.

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
        before, after = str(shard_path(folder, "?")).rsplit("?", 1)
        self._around = before, after
        self._known_shards = known_shards
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._lock = threading.Lock()
        # For rows that a table knows: 0 where the file system cannot tell what is in memory.
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
        absent: list[_Absent] = []
        unfit: list[int] = []
        for at in range(0, len(some), _FILES_AT_ONCE):
            self._read_known(records, some[at : at + _FILES_AT_ONCE], rows, absent, unfit)
        # Shard by shard and forward in each, which is the order of the disk.
        absent.sort(key=lambda row: (records[row.number].shard, row.start))
        for at in range(0, len(absent), _FILES_AT_ONCE):
            self._await_known(records, absent[at : at + _FILES_AT_ONCE], rows, unfit)
        unfit.sort(key=lambda i: (records[i].shard, records[i].row))
        lost: list[int] = []
        for at in range(0, len(unfit), _FILES_AT_ONCE):
            lost += self._read_with_headers(records, unfit[at : at + _FILES_AT_ONCE], rows)
        return lost

    def _read_known(
        self,
        records: Sequence[ImageRecord],
        some: range,
        rows: np.ndarray,
        absent: list[_Absent],
        unfit: list[int],
    ) -> None:
        """Read what a table knows and is in the system's memory.

        This is what small rows spend their time in: a few microseconds each.

        Args:
            records: All that are asked for.
            some: Which of them to read.
            rows: Where to, by number of the record.
            absent: Extended by those that must be waited for.
            unfit: Extended by those that no table knows or that do not fit it.
        """
        size, block = rows.shape[1], memoryview(rows.data).cast("B")
        read, flags = os.preadv, self._flags
        with _Files(self._around) as files:
            opened = _Opened(self, files)
            for i in some:
                record = records[i]
                fd, starts, checksums = opened[record.shard]
                row = record.row
                start = starts[row] if 0 <= row < len(starts) else -1
                if start < 0:
                    unfit.append(i)
                    continue
                out = block[i * size : (i + 1) * size]
                try:
                    whole = read(fd, (out,), start, flags) == size
                except OSError as error:
                    whole = False
                    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                        flags = self._flags = 0
                if not whole:
                    absent.append(_Absent(i, start, checksums[row]))
                # `row_checksum`, in line
                elif crc32(out, crc32(record.image_id.encode())) != checksums[row]:
                    unfit.append(i)

    def _await_known(
        self, records: Sequence[ImageRecord], some: list[_Absent], rows: np.ndarray, unfit: list[int]
    ) -> None:
        """Read rows that a table knows from the disk, which hears of all before the first is waited for."""
        with _Files(self._around) as files:
            for absent in some:
                with contextlib.suppress(OSError):
                    fd, length = files[records[absent.number].shard], rows.shape[1]
                    os.posix_fadvise(fd, absent.start, length, os.POSIX_FADV_WILLNEED)
            for number, start, checksum in some:
                out = rows[number]
                try:
                    whole = os.preadv(files[records[number].shard], [out], start) == out.nbytes
                except OSError:
                    whole = False
                if not whole or row_checksum(records[number].image_id, out) != checksum:
                    unfit.append(number)

    def _read_with_headers(
        self, records: Sequence[ImageRecord], some: list[int], rows: np.ndarray
    ) -> list[int]:
        """Read rows with their headers; return those that cannot be used.

        What the system has in memory is read at once; of all else the disk hears before the first row is
        waited for.
        """
        lost: list[int] = []
        awaited: list[int] = []
        with _Files(self._around) as files:
            for i in some:
                record = records[i]
                outcome = self._read_one(record.shard, record.row, record.image_id, rows[i], files, _NO_WAIT)
                if outcome == WOULD_BLOCK:
                    awaited.append(i)
                elif outcome is not None:
                    lost.append(i)
            for i in awaited:
                record = records[i]
                if self._read_one(record.shard, record.row, record.image_id, rows[i], files) is not None:
                    lost.append(i)
        return lost

    def read(self, shard: str, row: int, image_id: str, out: np.ndarray) -> str | None:
        """Read one row with its headers into `out` and return None, or return why it cannot be used.

        Args:
            shard: Name of the shard.
            row: Row in it.
            image_id: Whose features they must be.
            out: C-contiguous, `codec.row_bytes` long, written.
        """
        with _Files(self._around) as files:
            return self._read_one(shard, row, image_id, out, files)

    def _read_one(
        self, name: str, row: int, image_id: str, out: np.ndarray, files: _Files, flags: int = 0
    ) -> str | None:
        """Read one row with its headers, or tell the disk of it where `flags` forbid to wait."""
        try:
            shard = self._shard(name, files)
            if not 0 <= row < len(shard.positions):
                return f"the shard has {len(shard.positions)} rows, not row {row}"
            key_at, value_at, value_end = shard.positions[row].tolist()
            found = read_row(files[name], (key_at, value_at, value_end), image_id, out, flags)
            if found == WOULD_BLOCK:
                os.posix_fadvise(files[name], key_at, value_end - key_at, os.POSIX_FADV_WILLNEED)
        except FileNotFoundError:
            return "the shard is missing"
        except _UNREADABLE as error:
            return f"the row cannot be read ({error})"
        if isinstance(found, str):
            return found
        if row < len(shard.table):
            shard.table.remember(row, start=found, checksum=row_checksum(image_id, out))
        return None

    def rows(self, shard: str) -> int:
        """Return how many rows a shard has; 0 where its footer cannot be read."""
        with _Files(self._around) as files:
            try:
                return len(self._shard(shard, files).table)
            except _UNREADABLE:
                return 0

    def _shard(self, name: str, files: _Files) -> _Shard:
        """Return what is known of a shard, which is then kept longest."""
        with self._lock:
            if name in self._shards:
                self._shards.move_to_end(name)
                return self._shards[name]
        found = _Shard(shard_path(self._folder, name), files[name])
        with self._lock:
            self._shards[name] = found
            while len(self._shards) > self._known_shards:
                self._shards.popitem(last=False)
        return found


class _Absent(NamedTuple):
    """A record by number whose row is not in memory, where it begins in its shard, and its CRC-32."""

    number: int
    start: int
    checksum: int


class _Shard:
    """A shard's table of rows, and where its pages lie.

    Attributes:
        table: From its footer; a shard without it begins with a table that knows nothing.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self.table = RowTable.read(fd) or RowTable(len(self.positions))

    @functools.cached_property
    def positions(self) -> np.ndarray:
        """As `page_positions`."""
        return page_positions(self._path)


class _Opened(dict[str, tuple[int, "array[int]", "array[int]"]]):
    """Shards by name as one call has them open: descriptor, and their table's starts and checksums.

    Both are empty where the shard cannot be read.
    """

    def __init__(self, reader: FeatureReader, files: _Files) -> None:
        super().__init__()
        self._reader, self._files = reader, files

    def __missing__(self, name: str) -> tuple[int, array[int], array[int]]:
        try:
            fd, table = self._files[name], self._reader._shard(name, self._files).table
        except _UNREADABLE:
            fd, table = -1, RowTable(0)
        self[name] = found = fd, table.starts, table.checksums
        return found


class _Files(dict[str, int]):
    """Descriptors of a store's shards, each opened when it is first asked for and closed at the end."""

    def __init__(self, around: tuple[str, str]) -> None:
        """Open files whose paths are `around` a shard's name."""
        super().__init__()
        self._before, self._after = around

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
