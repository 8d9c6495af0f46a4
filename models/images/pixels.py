"""Pillow images as upright RGB arrays, and arrays resized by Pillow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images.exif import read_orientation
from models.images.limits import MAX_PIXELS, ImageRejected, check_size
from models.images.pillow_guard import quiet_pillow

__all__ = ["BACKGROUND", "TRANSPOSED", "filter_antialiased", "pixels_of", "resize_antialiased", "to_rgb"]

# Transparent pixels become mid-grey, which resembles neither bright sky nor deep shadow.
BACKGROUND = (128, 128, 128)

# What turns the array of an upright image into one in the file's orientation; all of them are views.
_AS_IN_FILE: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.swapaxes(np.rot90(pixels, 2), 0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_STRIP_PIXELS = 1 << 20


def pixels_of(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Convert an image that Pillow has opened or made, as `decode_image` does with a file's.

    Args:
        image: Of any mode; it is turned upright by its EXIF orientation.
        max_pixels: Largest width times height.

    Returns:
        (H, W, 3) uint8 upright RGB.

    Raises:
        ImageRejected: the image is over the limits, or the file behind it is damaged.
    """
    check_size(*image.size, max_pixels)
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


def filter_antialiased(pixels: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.float32]:
    """Resize as `resize_antialiased` does, channel by channel in floating point, without rounding to levels.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        width: New width in pixels.
        height: New height in pixels.

    Returns:
        (height, width, 3) float32 in 0..255.
    """
    resized = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        plane = Image.fromarray(np.ascontiguousarray(pixels[..., channel])).convert("F")
        resized[..., channel] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
    return resized


def to_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 upright RGB, whatever the mode.

    Strip by strip, so that beside Pillow's image, of 4 bytes per pixel, only the result takes memory.
    """
    width, height = image.size
    upright = (width, height) if orientation in TRANSPOSED else (height, width)
    pixels = np.empty((*upright, 3), np.uint8)
    target = _AS_IN_FILE.get(orientation, np.asarray)(pixels)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        strip = image if rows >= height else image.crop((0, top, width, bottom))
        target[top:bottom] = np.asarray(_rgb(strip))
    return pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.new("RGBA", colours.size, (*BACKGROUND, 255))
        image.alpha_composite(colours)
    return image if image.mode == "RGB" else image.convert("RGB")
