"""Limits on photos, and the error that rejects one."""

from __future__ import annotations

from models.photo_limits import MAX_MEGAPIXELS, pixels_of
from storage.errors import RejectedError

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageRejected",
    "check_pixels",
    "check_shape",
    "check_size",
]

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = pixels_of(MAX_MEGAPIXELS)
MAX_ASPECT = 50
MIN_SIDE_PX = 8

# Reasons that concern the size alone.
_TOO_LARGE = ("too_large", "too_many_pixels")


class ImageRejected(RejectedError):
    """The bytes or the array are not an acceptable photo.

    Attributes:
        reason: Machine-readable: empty, too_large, not_an_image, format_not_allowed, truncated,
            too_many_pixels, bad_aspect, too_small or corrupt; code that reads the file may add its own, such
            as missing.
    """

    reason = "image_rejected"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.http_status = 413 if reason in _TOO_LARGE else 422


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Reject an image by its size in pixels.

    Raises:
        ImageRejected: too many pixels, too narrow or too small.
    """
    check_pixels(width, height, max_pixels)
    check_shape(width, height)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Reject an image of too many pixels.

    Args:
        width: Of the image, or of what is decoded of it.
        height: As `width`.
        max_pixels: Largest product of both.

    Raises:
        ImageRejected: it has more.
    """
    if width * height > max_pixels:
        size, limit = (f"{pixels / 1e6:.4g}" for pixels in (width * height, max_pixels))
        raise ImageRejected(
            "too_many_pixels",
            f"the image has {width}x{height} pixels, {size} megapixels, {limit} at most: raise "
            "--max-megapixels, or scale it down",
        )


def check_shape(width: int, height: int) -> None:
    """Reject an image that is too narrow or too small.

    Raises:
        ImageRejected: so it is.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRejected(
            "bad_aspect", f"the image is {width}x{height}, narrower than 1:{MAX_ASPECT}: send a whole photo"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageRejected(
            "too_small",
            f"the image is {width}x{height}, a side needs {MIN_SIDE_PX} pixels: send a larger one",
        )
