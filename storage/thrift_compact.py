"""Structs in Thrift's compact protocol, as Parquet has them, decoded with bounds.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from typing import Any

__all__ = ["ThriftStruct"]

_MAX_DEPTH = 16
_FIELDS = 1 << 15  # their numbers have 16 bits and a sign
# Types of fields.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_BOOLEANS = (_TRUE, _FALSE)


class ThriftStruct:
    """Decodes one struct from bytes; every value takes at least one of them, so that decoding ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def end(self) -> int:
        """Number of bytes that were decoded."""
        return self._at

    def fields(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of the struct at this place by number.

        Raises:
            ValueError, IndexError: these are not the bytes of a struct; or a field stands there twice, of
                which other decoders may take the other one.
        """
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._integer()
            if number in found or not 0 < number < _FIELDS:
                raise ValueError(f"field {number} stands there twice, or cannot be")
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
