"""Photos in any form that Python code has them in, as pixels. Imports no torch."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images.decoder import decode_image
from models.images.limits import MAX_PIXELS, ImageRejected
from models.images.photo_file import read_bytes
from models.images.pixels import pixels_of

__all__ = ["Photo", "is_photo", "load_pixels"]

Photo = bytes | str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""Bytes or path of a file that `decode_image` reads, a PIL image, or (H, W, 3) RGB or (H, W) grey pixels."""

_ACCEPTED = "the bytes or the path of a photo, a PIL image, or a (H, W, 3) uint8 RGB array"


def load_pixels(photo: Photo, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return a photo as upright RGB pixels.

    Args:
        photo: Encoded bytes and paths go through `decode_image`. A PIL image is turned upright by its EXIF
            orientation, within the same limits on pixels and aspect. Arrays are assumed to be upright.
        max_pixels: Largest width times height; arrays may have more.

    Returns:
        (H, W, 3) uint8 RGB; the array itself where an RGB array is given.

    Raises:
        ImageRejected: the photo cannot be read or decoded, is over the limits, or the array is not
            (H, W, 3) or (H, W) uint8.
        TypeError: the photo is of another type.
    """
    if isinstance(photo, bytes):
        return decode_image(photo, max_pixels=max_pixels).pixels
    if isinstance(photo, str | os.PathLike):
        try:
            return decode_image(read_bytes(photo), max_pixels=max_pixels).pixels
        except ImageRejected as error:
            raise ImageRejected(error.reason, f"{os.fspath(photo)}: {error.message}") from error
    if isinstance(photo, Image.Image):
        return pixels_of(photo, max_pixels=max_pixels)
    if isinstance(photo, np.ndarray):
        return _rgb(photo)
    raise TypeError(f"a photo cannot be a {type(photo).__name__}: pass {_ACCEPTED}")


def is_photo(value: object) -> bool:
    """Return whether the value is a single photo, not a sequence such as a list or a (B, H, W, 3) array."""
    if isinstance(value, np.ndarray):
        return value.ndim < 4
    return isinstance(value, bytes | str | os.PathLike | Image.Image)


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8 and 0 not in pixels.shape:
        if pixels.ndim == 3 and pixels.shape[2] == 3:
            return pixels
        if pixels.ndim == 2:
            return np.repeat(pixels[:, :, None], 3, axis=2)
    raise ImageRejected(
        "not_an_image",
        f"an array of shape {pixels.shape} and dtype {pixels.dtype} is not a photo: pass {_ACCEPTED}",
    )
