"""Upright RGB pixels to the network's input size, without torch: decode workers run this.

The small result (224 x 224) is sent to the extractor, which normalises it on its device. Resizing is linear
with weights that sum to one, so normalising may follow it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.images.pixels import filter_antialiased, resize_antialiased
from storage.card import Preprocessing

__all__ = ["prepare"]


def prepare(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Resize an image to the input size of its model; normalising is left to the extractor.

    Args:
        pixels: (H, W, 3) uint8 upright RGB.
        preprocessing: How to resize, and to what size.

    Returns:
        (h, w, 3), for `pil_bilinear` uint8, for the others float32 in 0..255.

    Raises:
        ValueError: the pixels are not (H, W, 3) uint8, or the resize mode is unknown.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            f"image has shape {pixels.shape} and dtype {pixels.dtype}: pass (H, W, 3) uint8 RGB, "
            "as models.images.decoder.decode_image returns it"
        )
    if preprocessing.resize == "pil_bilinear":
        return resize_antialiased(pixels, width=preprocessing.width, height=preprocessing.height)
    if preprocessing.resize == "tensor_bilinear":
        return _sample_bilinear(pixels, preprocessing.height, preprocessing.width)
    if preprocessing.resize == "tensor_antialiased":
        return filter_antialiased(pixels, width=preprocessing.width, height=preprocessing.height)
    raise ValueError(
        f"unknown resize mode {preprocessing.resize!r}: use pil_bilinear, tensor_bilinear or "
        "tensor_antialiased"
    )


def _sample_bilinear(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Sample at half-pixel centres between the four nearest pixels, without antialiasing.

    Only the sampled rows and columns are read: at most 2 h x 2 w pixels of a photo of any size.
    """
    upper, lower, down = _taps(pixels.shape[0], height)
    left, right, across = _taps(pixels.shape[1], width)
    lines = pixels.reshape(len(pixels), -1)  # interleaved RGB
    left, right = (np.add.outer(3 * columns, np.arange(3)).ravel() for columns in (left, right))
    across = across.repeat(3)

    def row_samples(rows: NDArray[np.intp]) -> NDArray[np.float32]:
        sampled = lines[rows]
        at_left = sampled.take(left, axis=1).astype(np.float32)
        return _between(at_left, sampled.take(right, axis=1), across)

    above = row_samples(upper)
    return _between(above, row_samples(lower), down[:, None]).reshape(height, width, 3)


def _between(
    first: NDArray[np.float32], second: NDArray[np.float32] | NDArray[np.uint8], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return first + weight * (second - first)."""
    mixed = second - first
    mixed *= weight
    mixed += first
    return mixed


def _taps(size: int, samples: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for each sample its two pixels and the weight of the second.

    The positions are computed in float32 as torch does: at 4,000 pixels the rounding alone moves a sample by
    1e-4 pixels, which would show.
    """
    scale = np.float32(size) / np.float32(samples)
    centres = (np.arange(samples, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    centres = np.maximum(centres, np.float32(0))
    first = np.minimum(centres.astype(np.intp), size - 1)
    second = np.minimum(first + 1, size - 1)
    weight = np.clip(centres - first.astype(np.float32), np.float32(0), np.float32(1))
    return first, second, weight.astype(np.float32)
