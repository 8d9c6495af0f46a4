"""Augmentations of training triplets, by torchvision's v2 transforms; all off by default.

Photos are augmented independently, except that a horizontal flip applies to the whole triplet: a mirrored
street is another place. For the effect of each see Berton et al., "Deep Visual Geo-localization Benchmark",
CVPR 2022.

Random numbers come from NumPy generators of the call: torchvision draws from torch's global state, and photos
are read in a thread parallel to the training step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from models.training.options import Augmentation

__all__ = ["augment"]

Photos = NDArray[np.uint8] | NDArray[np.float32]

# Largest aspect ratio of a crop, relative to that of the photo.
_MAX_STRETCH = 4 / 3
_BILINEAR = InterpolationMode.BILINEAR


def augment(images: Photos, augmentation: Augmentation, *, seed: tuple[int, ...]) -> Photos:
    """Augment the photos of one triplet.

    Args:
        images: (1 + 1 + N, h, w, 3) uint8, or float32 in 0..255: query, positive, negatives.
        augmentation: Strength of each kind.
        seed: Numbers of at least 0. Equal seeds give equal photos in any process, thread and order, with any
            number of torch threads. The draws of one option do not depend on the others.

    Returns:
        Photos of the same shape and dtype, float32 still in 0..255; the input itself when all is off.

    Raises:
        ValueError: the images are not of that shape and dtype, or a number of the seed is negative.
    """
    if (
        images.ndim != 4
        or images.shape[3] != 3
        or images.dtype not in (np.uint8, np.float32)
        or not images.size
    ):
        raise ValueError(
            f"images {images.shape} {images.dtype} must be (1 + 1 + N, h, w, 3) uint8 or float32: "
            "pass one triplet at a time, as models.images.preprocess.prepare makes its photos"
        )
    if augmentation.is_off:
        return images
    changed: NDArray[Any] = images
    if augmentation != Augmentation(flip=augmentation.flip):
        photos = [_changed(photo, augmentation, (*seed, row)) for row, photo in enumerate(images)]
        changed = np.stack(photos).astype(images.dtype, copy=False)
    if _generator(seed, "flip").random() < augmentation.flip:
        changed = changed[:, :, ::-1]
    return changed.copy() if np.shares_memory(changed, images) else np.ascontiguousarray(changed)


def _changed(photo: Photos, augmentation: Augmentation, seed: tuple[int, ...]) -> Photos:
    """Augment one photo (h, w, 3), uint8 or float32 in 0..255; values are rounded for uint8 only."""
    pixels = torch.from_numpy(photo.transpose(2, 0, 1).astype(np.float32, order="C"))
    if augmentation.crop:
        pixels = _cropped(pixels, augmentation.crop, _generator(seed, "crop"))
    # Uncovered corners get the photo's mean colour: black ones would be a landmark, and reflections would
    # match their originals. The mean is subtracted first, since torchvision's fill leaves a dark seam.
    mean = torch.from_numpy(photo.mean(axis=(0, 1), dtype=np.float64).astype(np.float32))[:, None, None]
    pixels = pixels - mean
    if augmentation.perspective:
        pixels = _tilted(pixels, augmentation.perspective, _generator(seed, "perspective"))
    if augmentation.rotation_deg:
        angle = _generator(seed, "rotation_deg").uniform(-1, 1) * augmentation.rotation_deg
        pixels = F.rotate(pixels, angle, interpolation=_BILINEAR)
    pixels = (pixels + mean).clamp(0, 255)
    if augmentation.jitter:
        pixels = _coloured(pixels, augmentation.jitter, _generator(seed, "jitter"))
    changed: NDArray[np.float32] = pixels.clamp(0, 255).numpy().transpose(1, 2, 0)
    return np.rint(changed) if photo.dtype == np.uint8 else changed


def _generator(seed: tuple[int, ...], option: str) -> np.random.Generator:
    """Return the generator of one option, for a photo or for the triplet."""
    which = [field.name for field in fields(Augmentation)].index(option)
    # The length distinguishes (1, 2) from (1, 2, 0), which SeedSequence does not.
    return np.random.default_rng(np.random.SeedSequence((len(seed), *seed), spawn_key=(which,)))


def _cropped(pixels: Tensor, max_crop: float, rng: np.random.Generator) -> Tensor:
    """Crop (3, h, w) to 1 - max_crop up to all of its area and resize it to the full size."""
    height, width = pixels.shape[1:]
    area = rng.uniform(1 - max_crop, 1)
    # Only aspect ratios that fit into the photo.
    widest = math.log(min(_MAX_STRETCH, 1 / area))
    stretch = math.exp(rng.uniform(-widest, widest))
    rows = max(1, round(height * math.sqrt(area / stretch)))
    columns = max(1, round(width * math.sqrt(area * stretch)))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    cut = (int(top), int(left), rows, columns)
    return F.resized_crop(pixels, *cut, [height, width], antialias=True)  # type: ignore[no-any-return]


def _tilted(pixels: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Apply a random perspective to (3, h, w): each corner moves inwards."""
    height, width = pixels.shape[1:]
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moved = corners + inwards * rng.uniform(0, share, (4, 2)) * [width / 2, height / 2]
    inner = moved.tolist()
    return F.perspective(pixels, corners.tolist(), inner, interpolation=_BILINEAR)  # type: ignore[no-any-return]


def _coloured(pixels: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Jitter the colours of (3, h, w), the steps in random order."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    turn = rng.uniform(-strength, strength) / 10
    steps: list[Callable[[Tensor], Tensor]] = [
        lambda photo: F.adjust_brightness(photo, brightness),
        lambda photo: _contrasted(photo, contrast),
        lambda photo: F.adjust_saturation(photo, saturation),
        lambda photo: F.adjust_hue(photo, turn),
    ]
    photo = pixels / 255
    for step in rng.permutation(len(steps)):
        photo = steps[step](photo)
    return photo * 255


def _contrasted(photo: Tensor, factor: float) -> Tensor:
    """Blend (3, h, w) in 0..1 with its mean grey.

    torchvision computes that mean on all torch threads, so its last bits depend on their number.
    """
    grey = float(F.rgb_to_grayscale(photo).numpy().mean(dtype=np.float64))
    return (photo * factor + (1 - factor) * grey).clamp(0, 1)
