"""Pillow images as upright RGB arrays, and arrays resized by Pillow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images.exif import read_orientation
from models.images.limits import MAX_PIXELS, ImageRejected, check_size
from models.images.pillow_guard import quiet_pillow

__all__ = ["BACKGROUND", "pixels_of", "resize_antialiased", "to_rgb"]

# Transparent pixels become mid-grey, which resembles neither bright sky nor deep shadow.
BACKGROUND = (128, 128, 128)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image that Pillow has opened or made, as `decode_image` does with a file's.

    Args:
        image: Of any mode; it is turned upright by its EXIF orientation.

    Returns:
        (H, W, 3) uint8 upright RGB.

    Raises:
        ImageRejected: the image is over the limits, or the file behind it is damaged.
    """
    check_size(*image.size, MAX_PIXELS)
    with quiet_pillow():
        try:
            image.load()
            return to_rgb(image, read_orientation(image))
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


def to_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
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
