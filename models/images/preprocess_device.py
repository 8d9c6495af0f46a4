"""Resizing on the accelerator that runs the network; `models.images.preprocess` is the exact reference.

All modes are torch's own resizing. `tensor_bilinear` and `tensor_antialiased` are defined by it;
`pil_bilinear` is Pillow's filter, which rounds to whole levels after each of its two directions and so does
this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.images.preprocess import prepare
from storage.card import Preprocessing

__all__ = ["prepare_on_device"]

# torch's antialiasing kernel holds filter weights in shared memory, which limits the reduction.
_MAX_REDUCTION = 64
# Resizing takes 12 bytes per pixel of device memory: too much for larger photos.
_MAX_PIXELS = 16_000_000


def prepare_on_device(
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    upload: Callable[[Sequence[NDArray[np.generic]]], Tensor],
) -> Tensor:
    """Resize an image on the device as `models.images.preprocess.prepare` does on the host.

    Args:
        pixels: (H, W, 3) uint8 upright RGB.
        preprocessing: How to resize, and to what size.
        upload: Stacks arrays on the device. Photos over the limits of this module are resized on the host.

    Returns:
        (1, h, w, 3) float32 in 0..255. For `pil_bilinear` integers that differ from `prepare`'s by at most
        one (where a sum is about half-way between two); for the others equal up to rounding.

    Raises:
        ValueError: the pixels are not (H, W, 3) uint8, or the resize mode is unknown.
    """
    size = (preprocessing.height, preprocessing.width)
    supported = preprocessing.resize in ("pil_bilinear", "tensor_bilinear", "tensor_antialiased")
    valid = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8 and 0 not in pixels.shape
    if not (valid and supported and _fits(pixels.shape, size)):
        return upload([prepare(pixels, preprocessing)]).float()
    planes = upload([pixels]).permute(0, 3, 1, 2).float()
    if preprocessing.resize != "pil_bilinear":
        antialias = preprocessing.resize == "tensor_antialiased"
        resized = F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    else:
        for step in ((pixels.shape[0], size[1]), size):
            planes = F.interpolate(planes, size=step, mode="bilinear", align_corners=False, antialias=True)
            planes = planes.add_(0.5).floor_().clamp_(0, 255)
        resized = planes
    return resized.permute(0, 2, 3, 1)


def _fits(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Return whether a photo is within the limits for resizing on the device."""
    height, width = shape[:2]
    reduction = max(height / size[0], width / size[1])
    return height * width <= _MAX_PIXELS and reduction <= _MAX_REDUCTION
