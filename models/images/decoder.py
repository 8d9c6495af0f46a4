"""Decoding of untrusted photos: bytes of a JPEG, PNG, WebP, HEIC or AVIF file to upright RGB, within limits.

Every error that Pillow raises on hostile input becomes `ImageRejected` with a machine-readable reason. ICC
profiles are ignored. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from models.images.av1 import avif_pictures
from models.images.exif import Dropped, PhotoFacts, read_facts, read_orientation
from models.images.heic import open_heic
from models.images.limits import (
    MAX_BYTES,
    MAX_PIXELS,
    ImageRejected,
    check_pixels,
    check_shape,
    check_size,
)
from models.images.pillow_guard import CountedReads, quiet_pillow
from models.images.pixels import TRANSPOSED, to_rgb
from models.images.signatures import JpegStream, looks_cut, read_jpeg, recognise, webp_size

__all__ = ["DecodedImage", "decode_image"]

# Each scan of a progressive JPEG visits all coefficients; cameras and encoders write about ten scans.
_MAX_JPEG_SCANS = 100
_JPEG_END = b"\xff\xd9"

_ALLOWED = ("JPEG", "PNG", "WEBP", "HEIC", "AVIF")
_STILL = ("JPEG", "HEIC")  # several pictures in one file are previews, a stereo partner or a depth map


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright photo and the metadata of its file.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        width: Of the photo, upright: W, unless the decoder was allowed to shrink it.
        height: Of the photo, upright: H, unless the decoder was allowed to shrink it.
        lat: Latitude in degrees from EXIF, or None.
        lon: Longitude in degrees from EXIF, or None.
        heading_deg: Compass direction of view in degrees from EXIF, 0 up to 360, or None.
        captured_at: When the photo was taken, in UTC, or None; a time without a time zone is ignored.
        animated: The file holds several frames, of which this is the first.
        dropped: Values of EXIF that cannot be used.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    lat: float | None
    lon: float | None
    heading_deg: float | None
    captured_at: datetime | None
    animated: bool
    dropped: tuple[Dropped, ...] = ()


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side_px: int | None = None,
) -> DecodedImage:
    """Decode a JPEG, PNG, WebP, HEIC or AVIF file to upright RGB.

    Args:
        data: The encoded file.
        max_pixels: Largest width times height, checked before any pixel is decoded. Of a JPEG that is decoded
            at a reduced size, and is not progressive, it is that of the reduced size.
        max_bytes: Largest encoded size.
        min_side_px: Where the photo is to be resized to this anyway, a JPEG may be decoded to a half, a
            quarter or an eighth of its size, as long as both sides stay as long as this. Faster, and nearly
            the same: see `benchmarks/README.md`. None decodes every pixel.

    Raises:
        ImageRejected: the bytes are not a decodable image within the limits; see its `reason`.
    """
    if not data:
        raise ImageRejected("empty", "the file is empty: send a JPEG, PNG or WebP photo")
    if len(data) > max_bytes:
        raise ImageRejected(
            "too_large", f"the file has {len(data)} bytes, the limit is {max_bytes}: send a smaller one"
        )
    kind = _allowed_kind(data)
    with quiet_pillow():
        try:
            return _decode(data, kind, max_pixels, min_side_px)
        except ImageRejected:
            raise
        except Exception as error:  # on hostile input Pillow raises nearly every built-in type
            if looks_cut(data, kind) or "truncated" in str(error).lower():
                raise ImageRejected("truncated", f"the {kind} file is cut off: send it again") from error
            raise ImageRejected(
                "corrupt", f"the {kind} file cannot be decoded: save it again from an image editor"
            ) from error


def _decode(data: bytes, kind: str, max_pixels: int, min_side_px: int | None) -> DecodedImage:
    if kind == "WEBP":  # opening it allocates the canvas, so its size is read first
        canvas = webp_size(data)
        if canvas is None:
            raise ValueError("no readable WebP header")
        check_size(*canvas, max_pixels)
    if kind == "AVIF":
        for coded in avif_pictures(data):
            check_pixels(*coded, max_pixels)
    stream = read_jpeg(data) if kind == "JPEG" else None
    if stream is not None and stream.trailer is not None:
        data = data[: stream.trailer] + _JPEG_END
    with _open(data, kind) as image:
        size = image.size
        check_shape(*size)
        if stream is not None:
            _prepare_jpeg(image, stream, max_pixels, min_side_px)
        else:
            check_pixels(*size, max_pixels)
        animated = kind not in _STILL and bool(getattr(image, "is_animated", False))
        image.load()
        if kind in ("HEIC", "AVIF"):  # their header may say less than the coded picture
            size = image.size
            check_size(*size, max_pixels)
        orientation, facts = read_orientation(image), read_facts(image)
        pixels = to_rgb(image, orientation)
    return _decoded(pixels, size[::-1] if orientation in TRANSPOSED else size, facts, animated)


def _open(data: bytes, kind: str) -> Image.Image:
    """Open a file as an image of its kind, without decoding it."""
    file = CountedReads(data)
    return open_heic(file) if kind == "HEIC" else Image.open(file, formats=(kind,))


def _prepare_jpeg(image: Image.Image, stream: JpegStream, max_pixels: int, min_side_px: int | None) -> None:
    """Choose the scale of a JPEG, and reject it by what is then decoded of it.

    Raises:
        ImageRejected: too many pixels, or too many scans.
    """
    if stream.scans > _MAX_JPEG_SCANS:
        raise ImageRejected("corrupt", "the JPEG file has too many scans: save it again from an image editor")
    size = image.size
    if min_side_px is not None:
        image.draft(None, (min_side_px, min_side_px))
        if stream.one_pass:
            size = image.size
    check_pixels(*size, max_pixels)


def _decoded(
    pixels: NDArray[np.uint8], size: tuple[int, int], facts: PhotoFacts, animated: bool
) -> DecodedImage:
    width, height = size
    return DecodedImage(
        pixels=pixels,
        width=width,
        height=height,
        lat=facts.lat,
        lon=facts.lon,
        heading_deg=facts.heading_deg,
        captured_at=facts.captured_at.astimezone(UTC) if facts.captured_at else None,
        animated=animated,
        dropped=facts.dropped,
    )


def _allowed_kind(data: bytes) -> str:
    kind = recognise(data)
    if kind is None:
        raise ImageRejected("not_an_image", "these bytes are not an image: send a JPEG, PNG or WebP photo")
    if kind not in _ALLOWED or (kind == "AVIF" and not features.check("avif")):
        raise ImageRejected("format_not_allowed", f"this is {kind}: convert it to JPEG, PNG or WebP")
    return kind
