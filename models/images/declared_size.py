"""The size that a photo's header declares, read without decoding or parsing the rest of the file."""

from __future__ import annotations

from models.images.av1 import avif_pictures
from models.images.iso_boxes import stated_sizes
from models.images.signatures import recognise, webp_size

__all__ = ["declared_pixels"]

# A photo's header has about ten segments before the one with the size.
_MAX_SEGMENTS = 500
# Start of frame (ITU-T T.81, table B.1); DHT, JPG and DAC lie between.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def declared_pixels(data: bytes, *, unknown: int) -> int:
    """Return how many pixels decoding a file would make, to weigh it before it is queued.

    Args:
        data: The encoded file.
        unknown: The result for formats whose header is not read here, and for headers that are unusual.
    """
    kind = recognise(data)
    size: tuple[int, int] | None = None
    if kind == "WEBP":
        size = webp_size(data)
    elif kind == "PNG":
        size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif kind == "JPEG":
        size = _jpeg_size(data)
    elif kind in ("HEIC", "AVIF"):
        size = _heif_size(data, kind)
    return unknown if size is None else size[0] * size[1]


def _heif_size(data: bytes, kind: str) -> tuple[int, int] | None:
    try:
        sizes = avif_pictures(data) if kind == "AVIF" else stated_sizes(data)
    except ValueError:
        return None
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at : at + 2] == b"\xff\xff":  # a fill byte
            at += 1
            continue
        if data[at : at + 1] != b"\xff" or len(data) < at + 9:
            return None
        if data[at + 1] in _SOF:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
