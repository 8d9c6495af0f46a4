"""The one image decoder: encoded bytes to upright RGB pixels, within limits.

Only JPEG, PNG and WebP are decoded. Whatever Pillow raises on hostile input becomes `ImageRejected` with a
machine-readable reason. ICC profiles are ignored. This module needs no torch.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images.exif import PhotoFacts, read_facts, read_orientation
from models.images.signatures import looks_cut, recognise, webp_size
from storage.errors import RejectedError

__all__ = [
    "MAX_BYTES",
    "DecodedImage",
    "ImageRejected",
    "decode_image",
    "encode_thumbnail",
    "pixels_of",
    "resize_antialiased",
]

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 40_000_000
MAX_ASPECT = 50
MIN_SIDE_PX = 8
# Transparent parts become mid-grey: neither bright sky nor deep shadow.
BACKGROUND = (128, 128, 128)

# Header parsers walk a file segment by segment in Python, and a hostile file holds millions of segments. A
# 64 MiB PNG in 8 KiB pieces needs about 30,000 reads.
_MAX_READS = 200_000
# Each scan of a progressive JPEG goes over all of its coefficients; cameras and encoders write about ten.
_MAX_JPEG_SCANS = 100

_ALLOWED = ("JPEG", "PNG", "WEBP")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TURNED = (5, 6, 7, 8)  # by a quarter: width and height change places


# Rejected for their size alone.
_TOO_LARGE = ("too_large", "too_many_pixels")


class ImageRejected(RejectedError):
    """These bytes do not become an image.

    Attributes:
        reason: Machine-readable: empty, too_large, not_an_image, format_not_allowed, truncated,
            too_many_pixels, bad_aspect, too_small or corrupt; whoever reads the bytes may add its own, such
            as missing.
    """

    reason = "image_rejected"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.http_status = 413 if reason in _TOO_LARGE else 422


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright photo and what its file says about it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        width: Of the photo, upright: W, unless the decoder was allowed to shrink it.
        height: Of the photo, upright: H, unless the decoder was allowed to shrink it.
        lat: Latitude in degrees from EXIF, or None.
        lon: Longitude in degrees from EXIF, or None.
        heading_deg: Compass direction of view in degrees from EXIF, 0 up to 360, or None.
        captured_at: When the photo was taken, in UTC, or None; a time without a time zone is ignored.
        animated: The file holds several frames, of which this is the first.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    lat: float | None
    lon: float | None
    heading_deg: float | None
    captured_at: datetime | None
    animated: bool


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side_px: int | None = None,
) -> DecodedImage:
    """Decode a JPEG, PNG or WebP file to upright RGB.

    Args:
        data: The encoded file.
        max_pixels: Largest width times height, checked before any pixel is decoded.
        max_bytes: Largest encoded size.
        min_side_px: Where the photo is to be resized to this anyway, a JPEG may be decoded to a half, a
            quarter or an eighth of its size, as long as both sides stay as long as this. Faster, and nearly
            the same: see `benchmarks/README.md`. None decodes every pixel.

    Raises:
        ImageRejected: the bytes are not a decodable image within the limits; `reason` says why.
    """
    if not data:
        raise ImageRejected("empty", "the file is empty: send a JPEG, PNG or WebP photo")
    if len(data) > max_bytes:
        raise ImageRejected(
            "too_large", f"the file has {len(data)} bytes, the limit is {max_bytes}: send a smaller one"
        )
    kind = _allowed_kind(data)
    with _quiet_pillow():
        try:
            return _decode(data, kind, max_pixels, min_side_px)
        except ImageRejected:
            raise
        except Image.DecompressionBombError as error:
            raise _too_many_pixels(max_pixels) from error
        except Exception as error:  # on hostile input Pillow raises nearly every built-in type
            if looks_cut(data, kind) or "truncated" in str(error).lower():
                raise ImageRejected("truncated", f"the {kind} file is cut off: send it again") from error
            raise ImageRejected(
                "corrupt", f"the {kind} file cannot be decoded: save it anew from an image editor"
            ) from error


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image that Pillow has opened or made, as `decode_image` does with a file's.

    Args:
        image: Of any mode; it is turned upright by its EXIF orientation.

    Returns:
        (H, W, 3) uint8 upright RGB.

    Raises:
        ImageRejected: the image is over the limits, or the file behind it is damaged.
    """
    _check_size(*image.size, MAX_PIXELS)
    with _quiet_pillow():
        try:
            image.load()
            return _to_rgb(image, read_orientation(image))
        except Exception as error:  # on hostile input Pillow raises nearly every built-in type
            raise ImageRejected(
                "corrupt", f"the PIL image cannot be read ({error}): save it again from an image editor"
            ) from error


def resize_antialiased(pixels: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """Resize with Pillow's bilinear filter, whose support grows with the reduction.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        width: New width in pixels.
        height: New height in pixels.

    Returns:
        (height, width, 3) uint8.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def encode_thumbnail(data: bytes, *, max_side_px: int) -> tuple[bytes, int, int]:
    """Decode an image and encode it again, upright and small, for a page.

    Args:
        data: The encoded file.
        max_side_px: Longest side of the result; a smaller image keeps its size.

    Returns:
        JPEG bytes, width and height.

    Raises:
        ImageRejected: as `decode_image`.
    """
    image = Image.fromarray(decode_image(data).pixels)
    image.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), image.width, image.height


def _decode(data: bytes, kind: str, max_pixels: int, min_side_px: int | None) -> DecodedImage:
    if kind == "WEBP":  # opening it allocates the canvas, so its size is read first
        canvas = webp_size(data)
        if canvas is None:
            raise ValueError("no readable WebP header")
        _check_size(*canvas, max_pixels)
    if kind == "JPEG" and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise ImageRejected("corrupt", "the JPEG file has too many scans: save it anew from an image editor")
    with Image.open(_CountedReads(data), formats=(kind,)) as image:
        size = image.size
        _check_size(*size, max_pixels)
        if min_side_px is not None:
            image.draft(None, (min_side_px, min_side_px))
        # A JPEG of several pictures (MPO) holds previews or a stereo partner, not an animation.
        animated = kind != "JPEG" and bool(getattr(image, "is_animated", False))
        image.load()
        orientation, facts = read_orientation(image), read_facts(image)
        pixels = _to_rgb(image, orientation)
    return _decoded(pixels, size[::-1] if orientation in _TURNED else size, facts, animated)


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
    )


def _to_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 upright RGB, whatever the mode."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.new("RGBA", colours.size, (*BACKGROUND, 255))
        image.alpha_composite(colours)
    image = image.convert("RGB")
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    return np.array(image)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRejected(
            "bad_aspect", f"the image is {width}x{height}, narrower than 1:{MAX_ASPECT}: send a whole photo"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageRejected(
            "too_small",
            f"the image is {width}x{height}, a side needs {MIN_SIDE_PX} pixels: send a larger one",
        )


def _too_many_pixels(max_pixels: int) -> ImageRejected:
    return ImageRejected(
        "too_many_pixels", f"the image has more than {max_pixels} pixels: scale it down before sending"
    )


def _allowed_kind(data: bytes) -> str:
    kind = recognise(data)
    if kind is None:
        raise ImageRejected("not_an_image", "these bytes are not an image: send a JPEG, PNG or WebP photo")
    if kind not in _ALLOWED:
        raise ImageRejected("format_not_allowed", f"this is {kind}: convert it to JPEG, PNG or WebP")
    return kind


class _CountedReads(io.BytesIO):
    """Bytes that can be read a bounded number of times."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as usual.

        Raises:
            ImageRejected: the file consists of absurdly many pieces.
        """
        self._reads_left -= 1
        if self._reads_left < 0:
            raise ImageRejected("corrupt", "the file has too many parts: save it anew from an image editor")
        return super().read(size)


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_scope = warnings.catch_warnings()


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings, which say nothing that the result does not say.

    `warnings.catch_warnings` is not safe among threads: the first one in opens it, the last one out closes
    it.
    """
    global _quiet_users, _quiet_scope
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_scope = warnings.catch_warnings()
            _quiet_scope.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet_scope.__exit__(None, None, None)
