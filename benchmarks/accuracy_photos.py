"""Changing photos before they are used: smaller, seen from elsewhere, in another light."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.accuracy_sets import Looks
from models.images.decoder import decode_image
from models.images.photo_file import read_bytes

__all__ = ["read_photo"]

_SHIFT, _ZOOM = 0.10, (1.0, 1.25)  # of a corner, in widths; and of the whole


def read_photo(path: Path, looks: Looks) -> NDArray[np.uint8]:
    """Return upright (H, W, 3) uint8 RGB; changes follow from the name of the file alone."""
    pixels = decode_image(read_bytes(str(path))).pixels
    image = Image.fromarray(pixels)
    random = np.random.default_rng(zlib.crc32(path.name.encode()))
    if looks.relit and looks.width is not None:
        image = _narrower(image, 4 * looks.width)  # large photos would take long
    for _ in range(looks.warped):
        image = _warped(image, random)
    if looks.relit:
        image = _relit(image, random, looks.relit)
    if looks.width is not None:
        image = _narrower(image, looks.width)
    return np.asarray(image)


def _narrower(image: Image.Image, width: int) -> Image.Image:
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.BOX)


def _warped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], float)
    zoom = random.uniform(*_ZOOM)
    moved = 0.5 + (corners - 0.5) / zoom + random.uniform(-_SHIFT, _SHIFT, 2) * (1 - 1 / zoom)
    moved += random.uniform(-_SHIFT, _SHIFT, (4, 2)) / 2
    size = np.array(image.size)
    coefficients = _perspective(corners * size, moved * size)
    seen = image.transform(
        image.size, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BILINEAR
    )
    light = np.asarray(seen, np.float32) / 255
    light = light ** random.uniform(0.6, 1.7) * random.uniform(0.85, 1.15, 3)
    ramp = np.linspace(*random.uniform(0.7, 1.3, 2), image.width)[None, :, None]
    light = light * ramp + random.normal(0, 0.02, light.shape)
    return Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))


def _relit(image: Image.Image, random: np.random.Generator, strength: float) -> Image.Image:
    """Change light and colour smoothly over the photo, add haze, blur, noise and up to four patches."""
    width, height = image.size
    field = Image.fromarray(random.normal(0, 0.45 * strength, (5, 5)).astype(np.float32))
    field = field.resize((width, height), Image.Resampling.BICUBIC)
    share = 0.3 * strength
    mixed = np.eye(3) * (1 - share) + random.dirichlet(np.ones(3), 3) * share
    light = np.asarray(image, np.float32) / 255 @ mixed.T
    light = light ** np.exp(random.normal(0, 0.45 * strength)) * random.uniform(1 - share, 1 + share, 3)
    haze = random.uniform(0, 0.5) * strength
    light = light * np.exp(np.asarray(field))[..., None] * (1 - haze) + haze * random.uniform(0.3, 0.9)
    for _ in range(random.integers(0, int(4 * strength) + 1)):
        wide, high = (random.uniform(0.08, 0.3, 2) * image.size).astype(int) + 1
        x, y = int(random.uniform(0, width - wide)), int(random.uniform(0.3, 1) * (height - high))
        light[y : y + high, x : x + wide] = random.uniform(0, 1, 3)
    seen = Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))
    seen = seen.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.012) * strength * width))
    noisy = np.asarray(seen, np.float32) / 255 + random.normal(0, 0.03 * strength, (height, width, 3))
    return Image.fromarray((np.clip(noisy, 0, 1) * 255).astype(np.uint8))


def _perspective(target: NDArray[np.float64], source: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eight coefficients that map each target corner to its source corner."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values))
