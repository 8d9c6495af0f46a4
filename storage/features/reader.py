"""Reading the local features of single images from shards, with a checksum per row."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from isal.isal_zlib import crc32

from storage.card import Card
from storage.cores import usable_cores
from storage.features.encodings import FeatureCodec, open_codec
from storage.features.open_shards import READ_ERRORS, OpenFiles, OpenShards, ShardTables
from storage.features.row_pages import WOULD_BLOCK, read_row
from storage.features.row_table import row_checksum
from storage.records import ImageRecord

__all__ = ["FeatureReader"]

_THREADS = min(8, len(usable_cores()))
_THREAD_BYTES = 4 << 20  # less than this is not worth a thread
_FILES_AT_ONCE = 100
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux


class FeatureReader:
    """Reads the features of single images from shards; safe to share between threads.

    With a shard's row table (offsets and checksums) the bytes of a row are read from the file straight into
    the caller's array and checked there, each time. A row that is not in the table, or does not match it, is
    read with its page headers, which tell why it is unusable. Files are not memory-mapped: accessing a mapped
    file that was truncated kills the process.

    Attributes:
        codec: Decodes what `read` and `fetch_encoded` return.
    """

    def __init__(self, folder: Path, card: Card | None = None, *, codec: FeatureCodec | None = None) -> None:
        """Read features of the store in `folder`.

        Args:
            folder: The store's folder.
            card: The store's card, or None with `codec`.
            codec: The store's codec; by default it is opened by the card.

        Raises:
            CorruptStore: the projection named on the card cannot be read.
        """
        if codec is None:
            assert card is not None
            codec = open_codec(folder, card)
        self.codec = codec
        self._folder = folder
        self._tables = ShardTables(folder)
        # For rows in a table; 0 if the file system cannot tell what is in the page cache.
        self._flags = _NO_WAIT

    def fetch(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records.

        Returns:
            features: As returned by `FeatureCodec.decode`; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing, damaged, or belongs to another image.
        """
        rows, ok = self.fetch_encoded(records)
        return self.codec.decode(rows), ok

    def fetch_encoded(self, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Read the features of these records as stored, without decoding.

        Returns:
            rows: (K, row_bytes) uint8; zeros where they could not be read.
            ok: (K,) bool; False where the row is missing, damaged, or belongs to another image.
        """
        rows = np.empty((len(records), self.codec.row_bytes), dtype=np.uint8)
        if not self.codec.row_bytes:
            return rows, np.zeros(len(records), dtype=bool)
        workers = min(_THREADS, rows.nbytes // _THREAD_BYTES)
        if workers < 2:
            failed = self._read_all(records, range(len(records)), rows)
        else:  # reading and checking large rows releases the GIL
            share = -(-len(records) // workers)
            parts = [range(at, min(at + share, len(records))) for at in range(0, len(records), share)]
            others = [_pool().submit(self._read_all, records, part, rows) for part in parts[1:]]
            failed = self._read_all(records, parts[0], rows)
            for other in others:
                failed += other.result()
        ok = np.ones(len(records), dtype=bool)
        for i in failed:
            ok[i], rows[i] = False, 0
        return rows, ok

    def _read_all(self, records: Sequence[ImageRecord], some: range, rows: np.ndarray) -> list[int]:
        """Read some records into their rows; return the numbers of those that are unusable."""
        uncached: list[_UncachedRow] = []
        unmatched: list[int] = []
        for at in range(0, len(some), _FILES_AT_ONCE):
            self._read_cached(records, some[at : at + _FILES_AT_ONCE], rows, uncached, unmatched)
        # By shard and ascending offset, which is the order on disk.
        uncached.sort(key=lambda row: (records[row.number].shard, row.start))
        for at in range(0, len(uncached), _FILES_AT_ONCE):
            self._read_uncached(records, uncached[at : at + _FILES_AT_ONCE], rows, unmatched)
        unmatched.sort(key=lambda i: (records[i].shard, records[i].row))
        failed: list[int] = []
        for at in range(0, len(unmatched), _FILES_AT_ONCE):
            failed += self._read_with_headers(records, unmatched[at : at + _FILES_AT_ONCE], rows)
        return failed

    def _read_cached(
        self,
        records: Sequence[ImageRecord],
        some: range,
        rows: np.ndarray,
        uncached: list[_UncachedRow],
        unmatched: list[int],
    ) -> None:
        """Read the rows that are in a table and in the page cache.

        Small rows spend most of their time here: a few microseconds each.

        Args:
            records: All requested records.
            some: Which of them to read.
            rows: The output, by number of the record.
            uncached: Extended by those that have to be read from disk.
            unmatched: Extended by those that are in no table or do not match it.
        """
        size, block = rows.shape[1], memoryview(rows.data).cast("B")
        read, flags = os.preadv, self._flags
        with OpenFiles(self._folder) as files:
            opened = OpenShards(self._tables, files)
            for i in some:
                record = records[i]
                fd, starts, checksums = opened[record.shard]
                row = record.row
                start = starts[row] if 0 <= row < len(starts) else -1
                if start < 0:
                    unmatched.append(i)
                    continue
                out = block[i * size : (i + 1) * size]
                try:
                    complete = read(fd, (out,), start, flags) == size
                except OSError as error:
                    complete = False
                    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                        flags = self._flags = 0
                if not complete:
                    uncached.append(_UncachedRow(i, start, checksums[row]))
                # `row_checksum`, inlined
                elif crc32(out, crc32(record.image_id.encode())) != checksums[row]:
                    unmatched.append(i)

    def _read_uncached(
        self, records: Sequence[ImageRecord], some: list[_UncachedRow], rows: np.ndarray, unmatched: list[int]
    ) -> None:
        """Read rows that are in a table from disk, after announcing all of them (posix_fadvise)."""
        with OpenFiles(self._folder) as files:
            for row in some:
                with contextlib.suppress(OSError):
                    fd, length = files[records[row.number].shard], rows.shape[1]
                    os.posix_fadvise(fd, row.start, length, os.POSIX_FADV_WILLNEED)
            for number, start, checksum in some:
                out = rows[number]
                try:
                    complete = os.preadv(files[records[number].shard], [out], start) == out.nbytes
                except OSError:
                    complete = False
                if not complete or row_checksum(records[number].image_id, out) != checksum:
                    unmatched.append(number)

    def _read_with_headers(
        self, records: Sequence[ImageRecord], some: list[int], rows: np.ndarray
    ) -> list[int]:
        """Read rows with their page headers; return the numbers of those that are unusable.

        Rows in the page cache are read at once; all others are announced before the first is read from disk.
        """
        failed: list[int] = []
        uncached: list[int] = []
        with OpenFiles(self._folder) as files:
            for i in some:
                record = records[i]
                outcome = self._read_one(record.shard, record.row, record.image_id, rows[i], files, _NO_WAIT)
                if outcome == WOULD_BLOCK:
                    uncached.append(i)
                elif outcome is not None:
                    failed.append(i)
            for i in uncached:
                record = records[i]
                if self._read_one(record.shard, record.row, record.image_id, rows[i], files) is not None:
                    failed.append(i)
        return failed

    def read(self, shard: str, row: int, image_id: str, out: np.ndarray) -> str | None:
        """Read one row with its page headers into `out` and return None, or return why it is unusable.

        Args:
            shard: Name of the shard.
            row: Row in it.
            image_id: The image that the row must belong to.
            out: C-contiguous, `codec.row_bytes` long, written.
        """
        with OpenFiles(self._folder) as files:
            return self._read_one(shard, row, image_id, out, files)

    def _read_one(
        self, name: str, row: int, image_id: str, out: np.ndarray, files: OpenFiles, flags: int = 0
    ) -> str | None:
        """Read one row with its page headers, or announce it to the disk if `flags` forbid waiting."""
        try:
            shard = self._tables.get(name, files)
            if not 0 <= row < len(shard.positions):
                return f"the shard has {len(shard.positions)} rows, not row {row}"
            key_at, value_at, value_end = shard.positions[row].tolist()
            outcome = read_row(files[name], (key_at, value_at, value_end), image_id, out, flags)
            if outcome == WOULD_BLOCK:
                os.posix_fadvise(files[name], key_at, value_end - key_at, os.POSIX_FADV_WILLNEED)
        except FileNotFoundError:
            return "the shard is missing"
        except READ_ERRORS as error:
            return f"the row cannot be read ({error})"
        if isinstance(outcome, str):
            return outcome
        if row < len(shard.table):
            shard.table.set_row(row, start=outcome, checksum=row_checksum(image_id, out))
        return None

    def rows(self, shard: str) -> int:
        """Return the number of rows of a shard; 0 if its footer cannot be read."""
        with OpenFiles(self._folder) as files:
            try:
                return len(self._tables.get(shard, files).table)
            except READ_ERRORS:
                return 0


class _UncachedRow(NamedTuple):
    """A record by number whose row is not in the page cache; offset in its shard, and CRC-32."""

    number: int
    start: int
    checksum: int


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="features")


# A forked process does not inherit its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
