"""Encoded images to decode, some of them damaged, and what decoding them gives."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.images import DecodedImage, ImageRejected, decode_image


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """A smooth picture without symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * columns / width, 255 * rows / height
    blue = 127 + 100 * np.sin(columns / 9) * np.cos(rows / 7)
    return Image.fromarray(np.stack((red, green, blue), axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, raw: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def photo_exif(**changes: Any) -> Image.Exif:
    exif = Image.Exif()
    gps = {1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0), 17: 271.5}
    details = {0x9003: "2024:02:29 23:30:00", 0x9011: "+11:00"}
    for key, value in changes.items():
        (gps if key.startswith("gps") else details)[int(key.removeprefix("gps").removeprefix("exif"))] = value
    exif.get_ifd(0x8825).update(gps)
    exif.get_ifd(0x8769).update(details)
    return exif


def reason_of(data: bytes, **limits: int) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode_image(data, **limits)
    assert ":" in str(caught.value), "the message names no next step"
    return caught.value.reason


def difference(decoded: DecodedImage, expected: Image.Image | NDArray[np.uint8]) -> float:
    return float(np.abs(decoded.pixels.astype(float) - np.asarray(expected).astype(float)).mean())


HEIC = importlib.util.find_spec("pillow_heif") is not None
needs_heic = pytest.mark.skipif(not HEIC, reason='HEIC is read after pip install "placeray[heic]"')


def encoded_heic(image: Image.Image, **options: Any) -> bytes:
    """A HEIC file as phones write it; needs the extra `heic`."""
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **({"quality": 90} | options))
    return file.getvalue()
