"""What the footer of a Parquet file says of its columns, decoded here.

`RowGroupMetaData.column` of pyarrow ends the process on some damage: it lets C++ exceptions through, which no
`except` catches, for a footer whose statistics do not fit its columns. Reading rows raises as it should. The
footer is a struct in Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md); the numbers of its fields
are those of parquet.thrift (https://github.com/apache/parquet-format).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

__all__ = ["ColumnChunk", "RowGroup", "read_row_groups"]

MAX_FOOTER_BYTES = 64 << 20
_MAX_DEPTH = 16
_MAGIC = b"PAR1"
# Types of fields in the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_BOOLEANS = (_TRUE, _FALSE)


@dataclass(frozen=True)
class ColumnChunk:
    """A column of a row group.

    Attributes:
        path: Its name, with dots between levels.
        values: Number of values.
        expanded_bytes: Size of its pages uncompressed.
        stored_bytes: Size of its pages as stored.
        data_at: Where its first data page begins in the file, in bytes.
    """

    path: str
    values: int
    expanded_bytes: int
    stored_bytes: int
    data_at: int


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
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    end = file.read(8)
    if len(end) < 8 or end[4:] != _MAGIC:
        raise pa.ArrowInvalid("no footer of Parquet at the end of the file")
    length = int.from_bytes(end[:4], "little")
    if length > min(MAX_FOOTER_BYTES, size - 8):
        raise pa.ArrowInvalid(f"a footer of {length} bytes")
    file.seek(size - 8 - length)
    try:
        return [_row_group(group) for group in _Struct(file.read(length)).fields().get(4, ())]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise pa.ArrowInvalid(f"the footer is damaged ({error})") from error


def _row_group(group: dict[int, Any]) -> RowGroup:
    return RowGroup(int(group[3]), tuple(_column(column[3]) for column in group[1]))


def _column(column: dict[int, Any]) -> ColumnChunk:
    path = ".".join(name.decode() for name in column[3])
    return ColumnChunk(path, *(int(column[number]) for number in (5, 6, 7, 9)))


class _Struct:
    """Decodes one struct from bytes; every value takes at least one of them, so that decoding ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fields(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of the struct at this place by number."""
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._integer()
            kind = header & 15
            found[number] = kind == _TRUE if kind in _BOOLEANS else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.fields(depth + 1)
        if kind == _MAP:
            return self._map(depth)
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_BYTE, *_BOOLEANS):
            return self._byte()
        raise ValueError(f"a value of type {kind}")

    def _list(self, depth: int) -> list[Any]:
        header = self._byte()
        count = self._varint() if header >> 4 == 15 else header >> 4
        if count > len(self._data) - self._at:
            raise ValueError(f"a list of {count} values")
        return [self._value(header & 15, depth + 1) for _ in range(count)]

    def _map(self, depth: int) -> None:
        count = self._varint()
        kinds = self._byte() if count else 0
        if count > len(self._data) - self._at:
            raise ValueError(f"a map of {count} values")
        for _ in range(count):
            self._value(kinds >> 4, depth + 1)
            self._value(kinds & 15, depth + 1)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError(f"a text of {count} bytes")
        self._at += count
        return self._data[self._at - count : self._at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than ten bytes")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
