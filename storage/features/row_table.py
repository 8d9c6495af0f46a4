"""The row table: a footer entry of each shard with the offset and checksum of every row.

Parquet's own metadata take more than a microsecond per row to parse, and contain neither checksums nor keys.
So each shard's footer has a further entry, `placeray.row_table`: in Base64, the CRC-32 of what follows, and
for its N rows, little-endian, N times 8 bytes with the offset of the features in the file, and N times 4
bytes with the CRC-32 of the image's id followed by the features, which tells whether the row is intact and
belongs to the image. The entry is found by its name at the end of the file. Other Parquet readers ignore it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from array import array
from collections.abc import Sequence
from typing import Self

import numpy as np
from isal.isal_zlib import crc32

__all__ = ["ROW_TABLE_KEY", "RowTable", "pack_row_table", "row_checksum"]

ROW_TABLE_KEY = b"placeray.row_table"
_ROW_BYTES = 8 + 4
_TAIL_BYTES = 1 << 16
_MAX_FOOTER_BYTES = 1 << 28
_MAGIC = b"PAR1"
# The key is followed by Thrift's type of a string and its length as a varint.
_ENTRY = re.compile(re.escape(ROW_TABLE_KEY) + rb"\x18([\x80-\xff]{0,4}[\x00-\x7f])")


def row_checksum(image_id: str, row: np.ndarray) -> int:
    """Return the CRC-32 of an image's id and its features.

    Args:
        image_id: Key of the image.
        row: (row_bytes,) uint8, C-contiguous.
    """
    return crc32(row, crc32(image_id.encode()))


def pack_row_table(image_ids: Sequence[str], starts: Sequence[int], rows: np.ndarray) -> bytes:
    """Return the footer's entry.

    Args:
        image_ids: N keys.
        starts: Offset of each row's features in the file, in bytes.
        rows: (N, row_bytes) uint8, C-contiguous.
    """
    columns = (
        np.array(starts, "<i8"),
        np.array([row_checksum(image_id, row) for image_id, row in zip(image_ids, rows, strict=True)], "<u4"),
    )
    payload = b"".join(column.tobytes() for column in columns)
    return base64.b64encode(crc32(payload).to_bytes(4, "little") + payload)


class RowTable:
    """Offsets and checksums of the rows of one shard.

    Attributes:
        starts: Offset of each row's features in the file, in bytes; -1 if unknown.
        checksums: `row_checksum` of each.
    """

    def __init__(self, rows: int) -> None:
        """Create a table of `rows` unknown rows."""
        self.starts = array("q", [-1]) * rows
        self.checksums = array("I", [0]) * rows

    def __len__(self) -> int:
        """Return the number of rows of the shard."""
        return len(self.starts)

    @classmethod
    def read(cls, fd: int) -> Self | None:
        """Read the table of an open shard; None if it has none or it is damaged.

        Raises:
            OSError: the file cannot be read.
        """
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        footer = cls.footer_bytes(tail)
        if len(tail) < footer <= size:
            return cls.parse(os.pread(fd, footer, size - footer)) or cls.parse(tail)
        return cls.parse(tail)

    @staticmethod
    def footer_bytes(tail: bytes) -> int:
        """Return the length of a shard's footer, given its end; 0 if it is not that of a shard."""
        if len(tail) < 8 or tail[-4:] != _MAGIC:
            return 0
        length = 8 + int.from_bytes(tail[-8:-4], "little")
        return length if length <= _MAX_FOOTER_BYTES else 0

    @classmethod
    def parse(cls, tail: bytes) -> Self | None:
        """Return the table in the end of a shard, which contains its footer; None as of `read`."""
        if len(tail) < 8 or tail[-4:] != _MAGIC:
            return None
        payload = _payload(tail[-(8 + int.from_bytes(tail[-8:-4], "little")) :])
        return None if payload is None else cls._of(payload)

    def pack(self) -> bytes:
        """Return the table with a checksum, for `unpack`."""
        payload = np.array(self.starts, "<i8").tobytes() + np.array(self.checksums, "<u4").tobytes()
        return crc32(payload).to_bytes(4, "little") + payload

    @classmethod
    def unpack(cls, packed: bytes) -> Self | None:
        """Return a table from what `pack` returned; None if it is damaged."""
        if len(packed) < 4 or crc32(packed[4:]) != int.from_bytes(packed[:4], "little"):
            return None
        return cls._of(packed[4:])

    @classmethod
    def _of(cls, payload: bytes) -> Self | None:
        rows = len(payload) // _ROW_BYTES
        starts = np.frombuffer(payload, "<i8", rows)
        if rows * _ROW_BYTES != len(payload) or (starts < 0).any():
            return None
        table = cls(0)
        table.starts.frombytes(starts.astype(np.int64).tobytes())
        table.checksums.frombytes(np.frombuffer(payload, "<u4", rows, 8 * rows).astype(np.uintc).tobytes())
        return table

    def set_row(self, row: int, *, start: int, checksum: int) -> None:
        """Set a row's values; its start last, because other threads check that first."""
        self.checksums[row] = checksum
        self.starts[row] = start


def _payload(footer: bytes) -> bytes | None:
    """Return the entry's bytes; None if there is none or its checksum is wrong."""
    entry = _ENTRY.match(footer, max(0, footer.rfind(ROW_TABLE_KEY)))
    if entry is None:
        return None
    length = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(entry[1]))
    try:
        packed = base64.b64decode(footer[entry.end() : entry.end() + length], validate=True)
    except binascii.Error:
        return None
    return packed[4:] if crc32(packed[4:]) == int.from_bytes(packed[:4], "little") else None
