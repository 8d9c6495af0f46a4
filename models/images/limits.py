"""Limits on photos, and the error that rejects one."""

from __future__ import annotations

from storage.errors import RejectedError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "ImageRejected", "check_size", "too_many_pixels"]

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 40_000_000
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
    if width * height > max_pixels:
        raise too_many_pixels(max_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRejected(
            "bad_aspect", f"the image is {width}x{height}, narrower than 1:{MAX_ASPECT}: send a whole photo"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageRejected(
            "too_small",
            f"the image is {width}x{height}, a side needs {MIN_SIDE_PX} pixels: send a larger one",
        )


def too_many_pixels(max_pixels: int) -> ImageRejected:
    """Return the error of an image with more pixels than that."""
    return ImageRejected(
        "too_many_pixels", f"the image has more than {max_pixels} pixels: scale it down before sending"
    )
