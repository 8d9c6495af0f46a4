"""The segments before the pixels of a JPEG (ITU T.81, annex B): where its EXIF is, and where one may go."""

from __future__ import annotations

from dataclasses import dataclass

from models.images.writing.tiff_gps import ExifPosition, NotEmbeddable, add_position, new_block

__all__ = ["ExifPlace", "find_exif", "replace_exif", "segment_of", "with_position"]

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_MULTI_PICTURE = b"MPF\0"  # offsets from here to further pictures, CIPA DC-007
_MAX_SEGMENT = 65_533
_MAX_SEGMENTS = 10_000
_APP0, _APP1, _APP2, _SOS = 0xE0, 0xE1, 0xE2, 0xDA
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


@dataclass(frozen=True)
class ExifPlace:
    """Where the EXIF segment of a JPEG is, or would be.

    Attributes:
        begin: Offset of its marker.
        end: Offset behind it; equal to `begin` where there is none.
        xmp: The XMP packets of the file.
    """

    begin: int
    end: int
    xmp: bytes


def find_exif(data: bytes) -> ExifPlace:
    """Find the EXIF segment of a JPEG file.

    Raises:
        NotEmbeddable: it is not a JPEG, or it is damaged.
    """
    begin = end = 0
    insert, xmp, multi = 2, b"", False
    for marker, start, stop in _segments(data):
        body = data[start + 4 : start + 4 + 64]
        if marker == _APP0 and start == 2:
            insert = stop
        elif marker == _APP1 and body.startswith(_XMP):
            xmp += data[start + 4 : stop]
        elif marker == _APP1 and body.startswith(_EXIF) and not end:
            if multi:
                raise NotEmbeddable("its EXIF lies behind an index of several pictures")
            begin, end = start, stop
        multi = multi or (marker == _APP2 and body.startswith(_MULTI_PICTURE))
    return ExifPlace(begin, end, xmp) if end else ExifPlace(insert, insert, xmp)


def with_position(data: bytes, position: ExifPosition) -> bytes:
    """Return a JPEG file with a position in its EXIF; every byte outside of that segment is the same.

    Raises:
        NotEmbeddable: the file is damaged, or its EXIF is full.
    """
    place = find_exif(data)
    block = data[place.begin + 4 + len(_EXIF) : place.end]
    added = add_position(block, position) if place.end > place.begin else new_block(position)
    return replace_exif(data, place, segment_of(added))


def segment_of(block: bytes) -> bytes:
    """Return the segment of a block of EXIF.

    Raises:
        NotEmbeddable: it is longer than a segment may be.
    """
    body = _EXIF + block
    if len(body) > _MAX_SEGMENT:
        raise NotEmbeddable("its EXIF is full")
    return bytes((0xFF, _APP1)) + (len(body) + 2).to_bytes(2, "big") + body


def replace_exif(data: bytes, place: ExifPlace, segment: bytes) -> bytes:
    """Return a JPEG file with another EXIF segment, or with none where it is empty."""
    return data[: place.begin] + segment + data[place.end :]


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """Return marker, offset and end of each segment before the pixels.

    Raises:
        NotEmbeddable: the file does not have the structure of a JPEG.
    """
    if data[:2] != b"\xff\xd8":
        raise NotEmbeddable("it is not a JPEG")
    found: list[tuple[int, int, int]] = []
    at = 2
    while len(found) < _MAX_SEGMENTS:
        if data[at : at + 1] != b"\xff":
            raise NotEmbeddable("it is damaged")
        marker = data[at + 1] if at + 1 < len(data) else _SOS
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker == _SOS:
            return found
        if marker in _ALONE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise NotEmbeddable("it is damaged")
        found.append((marker, at, at + 2 + length))
        at += 2 + length
    raise NotEmbeddable("it has too many parts")
