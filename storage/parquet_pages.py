"""How the pages of a column of a Parquet file refer to its dictionary, by the headers of the pages."""

from __future__ import annotations

from typing import IO, Any

from storage.parquet_footer import ColumnChunk
from storage.thrift_compact import ThriftStruct

__all__ = ["dictionary_entries"]

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_BY_DICTIONARY = (2, 8)  # encodings
_HEADER_BYTES = 16 << 10
_MAX_PAGES = 10_000


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
    at, entries, values = chunk.data_at, 0, 0
    if chunk.dictionary_at is not None and 0 < chunk.dictionary_at < at:
        at = chunk.dictionary_at
    end = at + chunk.stored_bytes
    for number in range(_MAX_PAGES):
        if values >= chunk.values:
            return entries
        if not 0 <= at < end:
            return None
        file.seek(at)
        try:
            header = ThriftStruct(file.read(_HEADER_BYTES))
            page = header.fields()
            kind, stored_bytes = page[1], page[3]
            if kind == _DICTIONARY and number == 0:
                entries = page[7][1]
            elif kind in (_DATA, _DATA_V2):
                if entries and not values and not _by_dictionary(page, kind):
                    return None
                values += _count(page, kind)
            else:
                return None
            at += header.end + _positive(stored_bytes)
        except (IndexError, KeyError, TypeError, ValueError):
            return None
    return None


def _by_dictionary(page: dict[int, Any], kind: int) -> bool:
    encoding = page[5][2] if kind == _DATA else page[8][4]
    return encoding in _BY_DICTIONARY


def _count(page: dict[int, Any], kind: int) -> int:
    return _positive(page[5 if kind == _DATA else 8][1])


def _positive(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError("a negative number")
    return number
