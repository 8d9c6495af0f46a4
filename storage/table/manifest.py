"""A version's manifest, as far as it names files outside the table.

LanceDB looks for the files that a manifest names in the table's own folder, whatever characters their names
have; only `base_paths`, which its shallow clones use, lead elsewhere, to any folder or bucket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from storage.errors import CorruptStore, repair_command
from storage.objects.files import Location, read_bounded

__all__ = ["check_manifest"]

# The end of the file: where the message begins, major and minor version, magic; the message has its length
# in front. Field numbers are those of Lance's table.proto.
_TRAILER = struct.Struct("<QHH4s")
_LENGTH = struct.Struct("<I")
_MAGIC = b"LANC"
_MAX_BYTES = 1 << 28  # a million data files
_BASE_PATHS = 18
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_manifest(folder: Location, path: Location, *, may_be_damaged: bool = False) -> None:
    """Check that a manifest names no files outside the table.

    Args:
        folder: The store's folder.
        path: The manifest.
        may_be_damaged: Accept one that cannot be read.

    Raises:
        CorruptStore: it does, or cannot be read.
    """
    try:
        data = read_bounded(path, _MAX_BYTES, advice=repair_command(folder))
        leads_outside = _BASE_PATHS in _fields(_message(data))
    except (CorruptStore, OSError, ValueError, IndexError, OverflowError, struct.error) as error:
        if may_be_damaged:
            return
        if isinstance(error, CorruptStore):
            raise
        raise CorruptStore(f"{path} cannot be read ({error}): {repair_command(folder)}") from error
    if leads_outside:
        raise CorruptStore(
            f"{path} names files outside the store, as shallow clones of LanceDB do: copy the table that it "
            "was cloned from, or index into a new store"
        )


def _message(data: bytes) -> memoryview:
    position, _, _, magic = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    (length,) = _LENGTH.unpack_from(data, position)
    message = memoryview(data)[position + _LENGTH.size :][:length]
    if magic != _MAGIC or len(message) != length:
        raise ValueError("not a manifest of Lance")
    return message


def _fields(message: memoryview) -> Iterator[int]:
    """Yield the number of each field of a Protocol Buffers message, without those of inner messages."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("not a Protocol Buffers message")
        yield tag >> 3


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("not a Protocol Buffers message")
