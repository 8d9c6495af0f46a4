"""Photos in a binary column: of a Parquet file, or of a Lance data set, on local disk or in a bucket."""

from __future__ import annotations

import functools
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from storage.objects.address import BucketAddress, options_for
from storage.objects.source_bucket import open_source_bucket
from storage.parquet_footer import read_row_groups
from storage.parquet_pages import check_pages
from storage.photos.errors import PhotoUnavailable
from storage.photos.ranged_file import RangedFile
from storage.photos.uris import ObjectUri, TableCell

__all__ = ["MAX_GROUP_BYTES", "is_blob", "lance_dataset", "open_parquet", "read_cell"]

MAX_GROUP_BYTES = 256 << 20  # of the column in a row group, and of the groups of a file that are kept
_RUST = re.compile(r",\s*/\S+\.rs:[\d:]+")  # where in Lance's source an error was raised
Options = Mapping[str, str] | None


def read_cell(place: ObjectUri | str, cell: TableCell, options: Options) -> bytes | None:
    """Return a value of a table; None where it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        PhotoUnavailable: the table cannot be read.
        StoreError: the bucket does not answer as it should.
    """
    frozen = tuple(sorted((options or {}).items()))
    try:
        if cell.version is not None:
            return _lance_value(place, cell, frozen)
        return _parquet_value(place, cell, frozen)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        text = _RUST.sub("", str(error))[:300]
        raise PhotoUnavailable("unreadable", f"the table cannot be read ({text}): write it again") from None


def open_parquet(place: ObjectUri | str, options: Options, **reading: Any) -> pq.ParquetFile:
    """Open a Parquet file, on local disk or in a bucket.

    Args:
        place: Where it lies.
        options: Of buckets.
        reading: Options of `pyarrow.parquet.ParquetFile`.

    Raises:
        FileNotFoundError: there is none.
        pyarrow.ArrowException, OSError: it is not one.
        StoreError: the bucket does not answer as it should.
    """
    if isinstance(place, str):
        return pq.ParquetFile(place, **reading)
    return pq.ParquetFile(pa.PythonFile(_raw(place, options), mode="r"), **reading)


def _raw(place: ObjectUri | str, options: Options) -> IO[bytes]:
    if isinstance(place, str):
        return open(place, "rb")
    return cast("IO[bytes]", RangedFile(open_source_bucket(place.scheme, place.bucket, options), place.key))


def lance_dataset(place: ObjectUri | str, version: int | None, options: Options) -> Any:
    """Open a Lance data set; the newest version unless one is named.

    Raises:
        OSError, ValueError: there is none, or it cannot be read.
    """
    import lance

    if isinstance(place, str):
        return lance.dataset(place, version=version)
    address = BucketAddress(place.scheme, place.bucket, "", options_for(place.scheme, options or {}))
    return lance.dataset(str(place), version=version, storage_options=address.lance_options)


class _Groups:
    """The row groups of a Parquet file, of which the last ones that were read are kept."""

    def __init__(self, place: ObjectUri | str, column: str, options: Options) -> None:
        self._file = open_parquet(place, options)
        self._column = column
        self._open = functools.partial(_raw, place, options)
        with self._open() as raw:
            self._groups = read_row_groups(raw)
        self._ends = list(accumulate(group.rows for group in self._groups))
        self._lock = threading.Lock()
        self._held: dict[int, tuple[int, pa.ChunkedArray]] = {}

    def value(self, row: int) -> bytes | None:
        group = bisect_right(self._ends, row)
        if group == len(self._ends):
            raise IndexError(f"there is no row {row}")
        start = self._ends[group - 1] if group else 0
        with self._lock:
            value: bytes | None = self._values(group)[row - start].as_py()
        return value

    def _values(self, group: int) -> pa.ChunkedArray:
        if group not in self._held:
            columns = self._groups[group].columns
            size = sum(one.expanded_bytes for one in columns if one.path == self._column)
            if size > MAX_GROUP_BYTES:
                raise PhotoUnavailable(
                    "too_large",
                    f"its row group holds {size} bytes of photos, {MAX_GROUP_BYTES} at most: write the file "
                    "with smaller row groups",
                )
            while self._held and size + sum(held for held, _ in self._held.values()) > MAX_GROUP_BYTES:
                del self._held[next(iter(self._held))]
            self._held[group] = (size, self._read(group))
        return self._held[group][1]

    def _read(self, group: int) -> pa.ChunkedArray:
        with self._open() as raw:
            check_pages(raw, self._groups[group], [self._column])
        values = self._file.read_row_group(group, columns=[self._column]).column(0)
        for name in self._column.split(".")[1:]:
            values = pa.chunked_array([chunk.field(name) for chunk in values.chunks])
        return values


@functools.lru_cache(maxsize=2)
def _groups(place: ObjectUri | str, column: str, options: tuple[tuple[str, str], ...], stamp: Any) -> _Groups:
    return _Groups(place, column, dict(options))


def _parquet_value(
    place: ObjectUri | str, cell: TableCell, options: tuple[tuple[str, str], ...]
) -> bytes | None:
    stamp = os.stat(place).st_mtime_ns if isinstance(place, str) else None
    return _groups(place, cell.column, options, stamp).value(cell.row)


@functools.lru_cache(maxsize=4)
def _opened_lance(place: ObjectUri | str, version: int, options: tuple[tuple[str, str], ...]) -> Any:
    return lance_dataset(place, version, dict(options))


def _lance_value(
    place: ObjectUri | str, cell: TableCell, options: tuple[tuple[str, str], ...]
) -> bytes | None:
    data = _opened_lance(place, cell.version or 0, options)
    if is_blob(data.schema.field(cell.column)):
        with data.take_blobs(cell.column, indices=[cell.row])[0] as blob:
            return bytes(blob.read())
    value = data.take([cell.row], columns=[cell.column]).column(0)[0].as_py()
    return value if value is None else bytes(value)


def is_blob(field: pa.Field) -> bool:
    """Return whether a column of Lance keeps its values beside the rows, as blobs."""
    marked = (field.metadata or {}).get(b"lance-encoding:blob") == b"true"
    return marked or str(field.type).startswith("extension<lance.blob")


def _forget() -> None:
    _groups.cache_clear()
    _opened_lance.cache_clear()


os.register_at_fork(after_in_child=_forget)
