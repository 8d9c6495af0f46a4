"""The headers of the pages of a column of a Parquet file: their sizes, and how they refer to its dictionary.

Arrow reserves the memory that a header asks for before it looks whether so many bytes are there, up to 2 GiB
for each page, and expands a page to whatever its header says. So headers are held against the footer first,
whose sums readers check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from storage.parquet_footer import ColumnChunk, RowGroup
from storage.thrift_compact import ThriftStruct

__all__ = ["check_pages", "dictionary_entries"]

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_BY_DICTIONARY = (2, 8)  # encodings
_HEADER_BYTES = (16 << 10, 1 << 20)  # of the second only where the first does not hold it
_MAX_PAGES = 100_000
_LEFT_OUT_BYTES = 100  # parquet-mr before 1.2.9 did not count the header of a dictionary
_BEARABLE_BYTES = 64 << 20  # of an expanded page, where the sum in the footer is wrong


@dataclass(frozen=True)
class _Page:
    """A page: its type, and for pages of data the number of values and whether they refer to the dictionary.

    `entries` is the size of a dictionary.
    """

    kind: int
    values: int = 0
    entries: int = 0
    by_dictionary: bool = False


def check_pages(file: IO[bytes], group: RowGroup, columns: Collection[str]) -> None:
    """Check that the pages of some columns of a row group are not larger than the columns themselves.

    Args:
        file: The Parquet file, opened for reading.
        group: The row group.
        columns: Names of columns, or paths of nested ones; what lies below is checked too.

    Raises:
        ArrowInvalid: a page is larger, a header is damaged, or there are more than 100,000 pages.
        OSError: the file cannot be read.
    """
    for chunk in group.columns:
        if any(chunk.path == name or chunk.path.startswith(f"{name}.") for name in columns):
            for _ in _pages(file, chunk):
                pass


def dictionary_entries(file: IO[bytes], chunk: ColumnChunk) -> int | None:
    """Return how many entries the dictionary of a column in a row group has, if its first row tells them all.

    Args:
        file: The Parquet file, opened for reading.
        chunk: The column.

    Returns:
        0: it has no dictionary, so that its values take no more than its pages. None: this is not certain,
        since the headers cannot be read, or there is a dictionary that the first page does not use.

    Raises:
        OSError: the file cannot be read.
    """
    entries = values = 0
    try:
        for number, page in enumerate(_pages(file, chunk)):
            if page.kind == _DICTIONARY and number == 0:
                entries = page.entries
            elif page.kind not in (_DATA, _DATA_V2) or (entries and not values and not page.by_dictionary):
                return None
            values += page.values
    except pa.ArrowInvalid:
        return None
    return entries


def _pages(file: IO[bytes], chunk: ColumnChunk) -> Iterator[_Page]:
    """Yield the pages until all values of the column are covered, as Arrow reads them."""
    at, values = chunk.data_at, 0
    if chunk.dictionary_at is not None and 0 < chunk.dictionary_at < at:
        at = chunk.dictionary_at
    end = at + chunk.stored_bytes + _LEFT_OUT_BYTES
    for _ in range(_MAX_PAGES):
        if values >= chunk.values:
            return
        if not 0 <= at < end:
            raise pa.ArrowInvalid(f"the pages of column {chunk.path} end before its values")
        fields, length = _header(file, at, chunk)
        try:
            expanded, stored = _positive(fields[2]), _positive(fields[3])
            page = _page(fields)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise _damaged(chunk, error) from error
        if stored > end - at - length or expanded > max(chunk.expanded_bytes, _BEARABLE_BYTES):
            raise pa.ArrowInvalid(
                f"column {chunk.path} has a page of {max(stored, expanded)} bytes, more than its footer says"
            )
        yield page
        values += page.values
        at += length + stored
    raise pa.ArrowInvalid(f"column {chunk.path} has more than {_MAX_PAGES} pages in a row group")


def _header(file: IO[bytes], at: int, chunk: ColumnChunk) -> tuple[dict[int, Any], int]:
    """Return the fields of the header at an offset, and its length in bytes."""
    for most in _HEADER_BYTES:
        file.seek(at)
        header = ThriftStruct(file.read(most))
        try:
            return header.fields(), header.end
        except (IndexError, ValueError) as error:
            damage = error
    raise _damaged(chunk, damage)


def _page(fields: dict[int, Any]) -> _Page:
    kind = fields[1]
    if kind == _DICTIONARY:
        return _Page(kind, entries=_positive(fields[7][1]))
    if kind == _DATA:
        return _Page(kind, _positive(fields[5][1]), by_dictionary=fields[5][2] in _BY_DICTIONARY)
    if kind == _DATA_V2:
        return _Page(kind, _positive(fields[8][1]), by_dictionary=fields[8][4] in _BY_DICTIONARY)
    return _Page(kind)


def _damaged(chunk: ColumnChunk, error: Exception) -> pa.ArrowInvalid:
    return pa.ArrowInvalid(f"a page header of column {chunk.path} is damaged ({error})")


def _positive(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError("a negative number")
    return number
