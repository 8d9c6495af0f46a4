"""What a shard's footer tells about its rows, so that the first reading of one costs no more than the next.

Parquet's own metadata take a microsecond and more a row to parse, and neither checksums nor keys are among
them. So each shard's footer holds one more entry, `placeray.rows`: in Base64, the CRC-32 of what follows, and
for its N rows, little-endian, N times 8 bytes where the features begin in the file, N times 4 bytes CRC-32 of
the features, and N times 8 bytes BLAKE2b of the image's id. It is found by its name at the end of the file.
Other readers of Parquet pass over it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from array import array
from collections.abc import Sequence
from typing import Self

import numpy as np
from isal.isal_zlib import crc32

__all__ = ["ROW_TABLE_KEY", "RowTable", "id_digest", "pack_row_table"]

ROW_TABLE_KEY = b"placeray.rows"
_ROW_BYTES = 8 + 4 + 8
_TAIL_BYTES = 1 << 16
_MAGIC = b"PAR1"
# The key is followed by Thrift's mark of a string and its length as a varint.
_ENTRY = re.compile(re.escape(ROW_TABLE_KEY) + rb"\x18([\x80-\xff]{0,4}[\x00-\x7f])")


def id_digest(image_id: str) -> int:
    """Return 64 bits of an id's BLAKE2b as a signed integer."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "little", signed=True)


def pack_row_table(image_ids: Sequence[str], starts: Sequence[int], rows: np.ndarray) -> bytes:
    """Return the footer's entry.

    Args:
        image_ids: N keys.
        starts: Where the features of each begin in the file, in bytes.
        rows: (N, row_bytes) uint8, C-contiguous.
    """
    columns = (
        np.array(starts, "<i8"),
        np.array([crc32(row) for row in rows], "<u4"),
        np.array([id_digest(image_id) for image_id in image_ids], "<i8"),
    )
    payload = b"".join(column.tobytes() for column in columns)
    return base64.b64encode(crc32(payload).to_bytes(4, "little") + payload)


class RowTable:
    """What is known of the rows of one shard.

    Attributes:
        starts: Where the features of each row begin in the file, in bytes.
        checksums: CRC-32 of the features.
        owners: `id_digest` of the image's id, `hash` of it once a row was read, or -1, which is no hash: then
            nothing is known of the row, and the two above mean nothing.
    """

    def __init__(self, rows: int) -> None:
        """Know nothing yet of so many rows."""
        self.starts = array("q", [0]) * rows
        self.checksums = array("I", [0]) * rows
        self.owners = array("q", [-1]) * rows

    def __len__(self) -> int:
        """Return how many rows the shard has."""
        return len(self.owners)

    @classmethod
    def read(cls, fd: int) -> Self | None:
        """Read the table of an open shard; None where it has none or it is damaged.

        Raises:
            OSError: the file cannot be read.
        """
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        if len(tail) < 8 or tail[-4:] != _MAGIC:
            return None
        footer = 8 + int.from_bytes(tail[-8:-4], "little")
        payload = _payload(tail[-footer:])
        if payload is None and len(tail) < footer <= size:
            payload = _payload(os.pread(fd, footer, size - footer))
        if payload is None:
            return None
        rows = len(payload) // _ROW_BYTES
        starts = np.frombuffer(payload, "<i8", rows)
        if rows * _ROW_BYTES != len(payload) or (starts < 0).any():
            return None
        table = cls(0)
        table.starts.frombytes(starts.astype(np.int64).tobytes())
        table.checksums.frombytes(np.frombuffer(payload, "<u4", rows, 8 * rows).astype(np.uintc).tobytes())
        table.owners.frombytes(np.frombuffer(payload, "<i8", rows, 12 * rows).astype(np.int64).tobytes())
        return table

    def remember(self, row: int, *, start: int, checksum: int, image_id: str) -> None:
        """Keep what was found out about a row, its owner last: other threads look at that first."""
        self.starts[row], self.checksums[row] = start, checksum
        self.owners[row] = hash(image_id)

    def knows(self, row: int, image_id: str) -> bool:
        """Return whether this row is known to be of this image."""
        owner = self.owners[row]
        if owner == hash(image_id):
            return True
        if owner == -1 or owner != id_digest(image_id):
            return False
        self.owners[row] = hash(image_id)  # quicker to compare
        return True


def _payload(footer: bytes) -> bytes | None:
    """Return the entry's bytes; None where there is none or its checksum is wrong."""
    entry = _ENTRY.match(footer, max(0, footer.rfind(ROW_TABLE_KEY)))
    if entry is None:
        return None
    length = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(entry[1]))
    try:
        packed = base64.b64decode(footer[entry.end() : entry.end() + length], validate=True)
    except binascii.Error:
        return None
    return packed[4:] if crc32(packed[4:]) == int.from_bytes(packed[:4], "little") else None
