"""A GPS position added to a block of EXIF without moving anything in it.

EXIF is a TIFF file (TIFF 6.0; CIPA DC-008, section 4.6.6 for the GPS tags): directories of entries, whose
values lie at offsets from its beginning. Makers' notes hold offsets of their own that nobody else can read.
So new directories are appended, and what was there stays where it is, byte for byte, except for the one
number that leads to them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["ExifPosition", "NotEmbeddable", "add_position", "new_block"]

_GPS_POINTER = 0x8825
_MAX_ENTRIES = 2_000
_BYTE, _ASCII, _LONG, _RATIONAL, _UNDEFINED = 1, 2, 4, 5, 7
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SECOND = 100_000  # parts: 0.3 mm


class NotEmbeddable(ValueError):
    """The EXIF of a photo cannot take a position; a sidecar can."""


@dataclass(frozen=True)
class ExifPosition:
    """What is written.

    Attributes:
        lat: Latitude in degrees.
        lon: Longitude in degrees.
        error_m: Horizontal error in metres, or None.
    """

    lat: float
    lon: float
    error_m: float | None = None


def new_block(position: ExifPosition) -> bytes:
    """Return a block of EXIF that holds a position alone."""
    empty = b"MM\0*" + struct.pack(">LHL", 8, 0, 0)
    return add_position(empty, position)


def add_position(block: bytes, position: ExifPosition) -> bytes:
    """Return a block of EXIF with a position; other GPS tags of it are kept.

    Args:
        block: From its byte order on.
        position: What is added, in place of what the same tags held.

    Raises:
        NotEmbeddable: the block is damaged.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        raise NotEmbeddable("its EXIF is not a TIFF block")
    (first,) = struct.unpack_from(f"{order}L", block, 4)
    main, after = _directory(block, first, order)
    old = main.get(_GPS_POINTER)
    gps = {} if old is None else _directory(block, _pointed(old, order), order)[0]
    end = block + b"\0" * (len(block) % 2)
    gps_at = len(end)
    end += _written(gps, _tags(position), gps_at, order, 0)
    pointer = struct.pack(f"{order}HHLL", _GPS_POINTER, _LONG, 1, gps_at)
    if old is not None:
        at = first + 2 + 12 * list(main).index(_GPS_POINTER)
        return end[:at] + pointer + end[at + 12 :]
    main_at = len(end)
    end += _written({**main, _GPS_POINTER: pointer}, {}, main_at, order, after)
    return end[:4] + struct.pack(f"{order}L", main_at) + end[8:]


def _directory(block: bytes, at: int, order: str) -> tuple[dict[int, bytes], int]:
    """Return the entries of a directory by tag, 12 bytes each, and the offset of the next directory.

    Raises:
        NotEmbeddable: it does not lie in the block.
    """
    if not 8 <= at <= len(block) - 6:
        raise NotEmbeddable("its EXIF is damaged")
    (count,) = struct.unpack_from(f"{order}H", block, at)
    if count > _MAX_ENTRIES or at + 2 + 12 * count + 4 > len(block):
        raise NotEmbeddable("its EXIF is damaged")
    entries = [block[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    (following,) = struct.unpack_from(f"{order}L", block, at + 2 + 12 * count)
    by_tag = {struct.unpack_from(f"{order}H", entry)[0]: entry for entry in entries}
    if len(by_tag) != count:
        raise NotEmbeddable("its EXIF names a tag twice")
    return by_tag, following


def _pointed(entry: bytes, order: str) -> int:
    _, kind, count, at = struct.unpack(f"{order}HHLL", entry)
    if kind != _LONG or count != 1:
        raise NotEmbeddable("its EXIF is damaged")
    return int(at)


def _written(
    kept: dict[int, bytes], values: dict[int, tuple[int, list[int] | bytes]], at: int, order: str, after: int
) -> bytes:
    """Return a directory that lies at an offset, followed by the values that do not fit into its entries."""
    entries = dict(kept)
    behind = b""
    values_at = at + 2 + 12 * len(kept.keys() | values.keys()) + 4
    for tag, (kind, value) in values.items():
        data = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}L", *value)
        count = len(data) // _SIZES[kind]
        head = struct.pack(f"{order}HHL", tag, kind, count)
        if len(data) <= 4:
            entries[tag] = head + data.ljust(4, b"\0")
        else:
            entries[tag] = head + struct.pack(f"{order}L", values_at + len(behind))
            behind += data + b"\0" * (len(data) % 2)
    listed = b"".join(entries[tag] for tag in sorted(entries))
    return struct.pack(f"{order}H", len(entries)) + listed + struct.pack(f"{order}L", after) + behind


def _tags(position: ExifPosition) -> dict[int, tuple[int, list[int] | bytes]]:
    """Return kind and value of the GPS tags: version, both angles with their halves, datum, error, method."""
    tags: dict[int, tuple[int, list[int] | bytes]] = {
        0: (_BYTE, b"\2\3\0\0"),
        1: (_ASCII, b"N\0" if position.lat >= 0 else b"S\0"),
        2: (_RATIONAL, _angle(position.lat)),
        3: (_ASCII, b"E\0" if position.lon >= 0 else b"W\0"),
        4: (_RATIONAL, _angle(position.lon)),
        18: (_ASCII, b"WGS-84\0"),
        27: (_UNDEFINED, b"ASCII\0\0\0placeray"),
    }
    if position.error_m is not None and 0 <= position.error_m < 1e7:
        tags[31] = (_RATIONAL, [round(position.error_m * 100), 100])
    return tags


def _angle(degrees: float) -> list[int]:
    """Return degrees, minutes and seconds as numerators and denominators."""
    parts = round(abs(degrees) * 3600 * _SECOND)
    minutes, seconds = divmod(parts, 60 * _SECOND)
    return [minutes // 60, 1, minutes % 60, 1, seconds, _SECOND]
