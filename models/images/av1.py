"""Sizes of the coded pictures of an AVIF file, read before they are decoded.

The header of a file may state a small size (`ispe`) over a picture of 16384 x 16384, which the decoder would
allocate. The sequence header in front of each coded picture bounds what decoding it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from models.images.iso_boxes import boxes, find

__all__ = ["avif_pictures"]

MAX_ITEMS, MAX_OBUS, MAX_HEADER_BYTES = 1_000, 10_000, 1_024
_SEQUENCE_HEADER, _HAS_SIZE, _HAS_EXTENSION = 1, 0x02, 0x04


def avif_pictures(data: bytes) -> list[tuple[int, int]]:
    """Return the largest (width, height) that each coded picture of an AVIF file may have.

    Pictures are the items of type `av01` and the first samples of tracks (ISO/IEC 14496-12, 8.11.3 and
    8.7.5); their sizes stand in sequence headers (AV1 Bitstream Specification, section 5.5.1).

    Raises:
        ValueError: the file's structure cannot be followed to a sequence header of each picture.
    """
    try:
        sizes = [_largest(part) for part in (*_items(data), *_first_samples(data))]
    except IndexError as error:
        raise ValueError("the boxes are cut off") from error
    if not sizes:
        raise ValueError("no coded picture")
    return sizes


def _items(data: bytes) -> Iterator[bytes]:
    """Yield the data of each coded item."""
    meta = find(data, b"meta")
    if meta is None:
        return
    infos, locations = find(meta, b"iinf", 4), find(meta, b"iloc", 4)
    if infos is None or locations is None:
        return
    coded = set(_coded_items(infos))
    sources = {0: data, 1: find(meta, b"idat", 4) or b""}
    for item, method, extents in _locations(locations):
        if item in coded:
            source = sources.get(method, b"")
            yield b"".join(source[start : start + length if length else None] for start, length in extents)


def _coded_items(infos: bytes) -> Iterator[int]:
    """Yield the numbers of the items of type av01 of an `iinf` box."""
    for name, info in boxes(infos, 4 + (2 if infos[0] == 0 else 4)):
        if name == b"infe" and info[0] in (2, 3):
            width = 2 if info[0] == 2 else 4
            if info[6 + width : 10 + width] == b"av01":
                yield int.from_bytes(info[4 : 4 + width], "big")


def _locations(box: bytes) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield number, construction method and extents (start, length) of each item of an `iloc` box."""
    version, at = box[0], 6
    offset_size, length_size, base_size = box[4] >> 4, box[4] & 15, box[5] >> 4
    index_size = box[5] & 15 if version else 0
    wide = 4 if version == 2 else 2

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(box):
            raise IndexError("iloc")
        return int.from_bytes(box[at - size : at], "big")

    count = number(wide)
    if count > MAX_ITEMS:
        raise ValueError("too many items")
    for _ in range(count):
        item, method = number(wide), number(2) & 15 if version else 0
        number(2)  # data reference
        base, extents = number(base_size), []
        parts = number(2)
        if parts > MAX_ITEMS:
            raise ValueError("too many extents")
        for _ in range(parts):
            number(index_size)
            extents.append((base + number(offset_size), number(length_size)))
        yield item, method, extents


def _first_samples(data: bytes) -> Iterator[bytes]:
    """Yield the first sample of each track."""
    for name, table in boxes(find(data, b"moov") or b""):
        if name != b"trak":
            continue
        for inner in (b"mdia", b"minf", b"stbl"):
            table = find(table, inner) or b""
        sizes = find(table, b"stsz") or bytes(16)
        size = int.from_bytes(sizes[4:8], "big") or int.from_bytes(sizes[12:16], "big")
        for kind, width in ((b"stco", 4), (b"co64", 8)):
            chunks = find(table, kind) or b""
            if size and len(chunks) >= 8 + width:
                start = int.from_bytes(chunks[8 : 8 + width], "big")
                yield data[start : start + size]


def _largest(coded: bytes) -> tuple[int, int]:
    """Return the largest size in the sequence headers of coded data (5.3.1, 5.3.2)."""
    sizes, at = [], 0
    for _ in range(MAX_OBUS):
        if at >= len(coded):
            break
        head = coded[at]
        at += 2 if head & _HAS_EXTENSION else 1
        length = len(coded) - at
        if head & _HAS_SIZE:
            length, at = _leb128(coded, at)
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            sizes.append(_size_of(_Bits(coded[at : at + min(length, MAX_HEADER_BYTES)])))
        at += length
    else:
        raise ValueError("too many units")
    if not sizes:
        raise ValueError("no sequence header")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("a unit without a size")


class _Bits:
    """Reads numbers of some bits, most significant first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise IndexError("sequence header")
        return self._value >> self._left & (1 << bits) - 1


def _size_of(header: _Bits) -> tuple[int, int]:
    """Return the maximum frame size of a sequence header."""
    read = header.read
    read(4)  # profile, still picture
    if read(1):  # reduced still picture header
        read(5)
    else:
        delay_bits = _skip_timing(read) if read(1) else 0
        delay_present = read(1)
        for _ in range(read(5) + 1):  # operating points
            read(12)
            if read(5) > 7:
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if delay_present and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    return read(width_bits) + 1, read(height_bits) + 1


def _skip_timing(read: Callable[[int], int]) -> int:
    """Skip timing and decoder model; return the number of bits of a buffer delay, 0 without a model."""
    read(64)
    if read(1):  # equal picture interval, a number whose leading zeros tell its length
        zeros = 0
        while not read(1):
            zeros += 1
        read(zeros if zeros < 32 else 0)
    if not read(1):
        return 0
    delay_bits = read(5) + 1
    read(32 + 5 + 5)
    return delay_bits
