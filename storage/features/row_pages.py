"""Reading one row of a shard with its Parquet page headers, which contain the image id and checksums.

No row table is needed: for shards without one, for rows that do not match it, and to check every byte.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from isal.isal_zlib import crc32

from storage.parquet_footer import decode_row_groups, read_footer

__all__ = ["WOULD_BLOCK", "page_positions", "read_row"]

_MAX_HEADERS_BYTES = 1 << 20
WOULD_BLOCK = "the row is not in the page cache"
# A column of a row, as Arrow writes it without statistics: its path, no compression, one value, sizes of its
# page, and where that begins. Numbers are varints, doubled.
_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_COLUMN = re.compile(
    rb"\x18\x08(?:image_id|features)\x15\x00\x16\x02\x16%b\x16(%b)\x26(%b)" % ((_VARINT,) * 3), re.DOTALL
)


def page_positions(path: Path) -> np.ndarray:
    """Return (rows, 3) int64: offsets of each row's key, features, and end of features, in bytes.

    Raises:
        OSError: the file cannot be read.
        ArrowException: it is not a Parquet file, or its footer is damaged.
    """
    with path.open("rb") as file:
        footer = read_footer(file)
        pages_end = file.tell() - len(footer)
    found = _adjoining_pages(footer, pages_end)
    return _decoded_positions(footer) if found is None else found


def _adjoining_pages(footer: bytes, pages_end: int) -> np.ndarray | None:
    """Return the positions, without decoding all of the footer; None where what is found is not all pages.

    A footer describes each row with some hundred values, of which positions need four. The pages of a shard
    fill the file from the first to its footer.
    """
    try:
        columns = [(_integer(at), _integer(stored_bytes)) for stored_bytes, at in _COLUMN.findall(footer)]
        starts, sizes = np.array(columns, np.int64).reshape(-1, 2).T
    except OverflowError:
        return None
    ends = starts + sizes
    if len(starts) == 0 or len(starts) % 2 or ends[-1] != pages_end or np.any(ends[:-1] != starts[1:]):
        return None
    return np.stack([starts[::2], starts[1::2], ends[1::2]], axis=1)


def _integer(varint: bytes) -> int:
    value = 0
    for byte in reversed(varint):
        value = value << 7 | byte & 127
    return value >> 1


def _decoded_positions(footer: bytes) -> np.ndarray:
    groups = decode_row_groups(footer)
    try:
        positions = [
            (key.data_at, value.data_at, value.data_at + value.stored_bytes)
            for key, value in (group.columns for group in groups)
        ]
        return np.array(positions, np.int64).reshape(-1, 3)
    except (ValueError, OverflowError) as error:
        raise pa.ArrowInvalid(f"the footer is not that of a shard ({error})") from error


def read_row(
    fd: int, position: tuple[int, int, int], image_id: str, out: np.ndarray, flags: int = 0
) -> int | str:
    """Read a row into `out`.

    Args:
        fd: The open shard.
        position: The row's entry of `page_positions`.
        image_id: The image that the row must belong to.
        out: (row_bytes,) uint8, C-contiguous, written.
        flags: Flags of preadv.

    Returns:
        The offset of its features in the file, or why the row is unusable: `WOULD_BLOCK` if `flags` forbid
        waiting.
    """
    key_at, value_at, value_end = position
    target = memoryview(out.data).cast("B")
    if value_end - value_at < target.nbytes:
        return f"the row has fewer than {target.nbytes} bytes"
    length = value_end - key_at
    if not 0 <= key_at < value_at < value_end - target.nbytes or length - target.nbytes > _MAX_HEADERS_BYTES:
        return "the footer is damaged"
    headers = bytearray(length - target.nbytes)
    try:
        if os.preadv(fd, [headers, target], key_at, flags) != length:
            return WOULD_BLOCK if flags else "the shard is truncated"
        before_value = value_at - key_at
        size, key_crc = _page_header(headers)
        key = headers[before_value - size : before_value]
        value_size, value_crc = _page_header(headers[before_value:])
    except (OSError, ValueError, OverflowError) as error:
        return WOULD_BLOCK if flags and isinstance(error, OSError) else f"the row cannot be read ({error})"
    if crc32(key) != key_crc or value_size != target.nbytes:
        return "the page holding the key fails its checksum"
    if key[4:] != image_id.encode():
        return "the row belongs to another image"
    if crc32(target) != value_crc:
        return "the page fails its checksum"
    return key_at + len(headers)


def _page_header(data: bytearray) -> tuple[int, int]:
    """Return size and CRC-32 from a page's Thrift header (Parquet's PageHeader, fields 1 to 4).

    Raises:
        ValueError: it is not such a header.
    """
    values, at = [], 0
    for _ in range(4):
        if data[at : at + 1] != b"\x15":  # the next field, an i32
            raise ValueError("no page header with a checksum")
        at += 1
        value = shift = 0
        while True:
            byte = data[at] if at < len(data) and shift < 35 else -1
            if byte < 0:
                raise ValueError("a page header is truncated")
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        values.append((value >> 1) ^ -(value & 1))  # zigzag
    return values[2], values[3] & 0xFFFFFFFF
