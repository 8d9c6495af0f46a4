"""What the footer of a Parquet file says of its columns, decoded here.

`RowGroupMetaData.column` of pyarrow ends the process on some damage: it lets C++ exceptions through, which no
`except` catches, for a footer whose statistics do not fit its columns. Reading rows raises as it should. The
numbers of the fields are those of parquet.thrift (https://github.com/apache/parquet-format).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from storage.thrift_compact import ThriftStruct

__all__ = ["ColumnChunk", "RowGroup", "decode_row_groups", "read_footer", "read_row_groups"]

MAX_FOOTER_BYTES = 64 << 20
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class ColumnChunk:
    """A column of a row group.

    Attributes:
        path: Its name, with dots between levels.
        values: Number of values.
        expanded_bytes: Size of its pages uncompressed.
        stored_bytes: Size of its pages as stored.
        data_at: Where its first data page begins in the file, in bytes.
        dictionary_at: Where the page of its dictionary begins; None without one.
    """

    path: str
    values: int
    expanded_bytes: int
    stored_bytes: int
    data_at: int
    dictionary_at: int | None = None


@dataclass(frozen=True)
class RowGroup:
    """A row group: its number of rows, and its columns."""

    rows: int
    columns: tuple[ColumnChunk, ...]


def read_row_groups(file: IO[bytes]) -> list[RowGroup]:
    """Return the row groups of a Parquet file, as its footer tells.

    Args:
        file: Opened for reading.

    Raises:
        ArrowInvalid: the footer is damaged, encrypted or too large.
        OSError: the file cannot be read.
    """
    return decode_row_groups(read_footer(file))


def read_footer(file: IO[bytes]) -> bytes:
    """Return the bytes of the footer, which end eight bytes before the file.

    Args:
        file: Opened for reading.

    Raises:
        ArrowInvalid: the file has none, or it is encrypted or too large.
        OSError: the file cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    end = file.read(8)
    if len(end) < 8 or end[4:] != _MAGIC:
        raise pa.ArrowInvalid("no footer of Parquet at the end of the file")
    length = int.from_bytes(end[:4], "little")
    if length > min(MAX_FOOTER_BYTES, size - 8):
        raise pa.ArrowInvalid(f"a footer of {length} bytes")
    file.seek(size - 8 - length)
    return file.read(length)


def decode_row_groups(footer: bytes) -> list[RowGroup]:
    """Return the row groups of which a footer tells.

    Raises:
        ArrowInvalid: it is damaged.
    """
    try:
        return [_row_group(group) for group in ThriftStruct(footer).fields().get(4, ())]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise pa.ArrowInvalid(f"the footer is damaged ({error})") from error


def _row_group(group: dict[int, Any]) -> RowGroup:
    return RowGroup(int(group[3]), tuple(_column(column[3]) for column in group[1]))


def _column(column: dict[int, Any]) -> ColumnChunk:
    path = ".".join(name.decode() for name in column[3])
    values, expanded_bytes, stored_bytes, data_at = (int(column[number]) for number in (5, 6, 7, 9))
    dictionary_at = int(column[11]) if 11 in column else None
    return ColumnChunk(path, values, expanded_bytes, stored_bytes, data_at, dictionary_at)
