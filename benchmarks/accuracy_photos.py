"""Changing photos before they are used: smaller, seen from elsewhere, in another light."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.accuracy_sets import Looks
from models.images.decoder import decode_image
from models.images.photo_file import read_bytes

__all__ = ["read_photo"]

_SHIFT, _ZOOM = 0.10, (1.0, 1.25)  # of a corner, in widths; and of the whole


def read_photo(path: Path, looks: Looks) -> NDArray[np.uint8]:
    """Return upright (H, W, 3) uint8 RGB; a warp follows from the name of the file alone."""
    pixels = decode_image(read_bytes(str(path))).pixels
    image = Image.fromarray(pixels)
    if looks.warped:
        image = _warped(image, np.random.default_rng(zlib.crc32(path.name.encode())))
    if looks.width is not None:
        height = max(1, round(image.height * looks.width / image.width))
        image = image.resize((looks.width, height), Image.Resampling.BOX)
    return np.asarray(image)


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


def _perspective(target: NDArray[np.float64], source: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eight coefficients that map each target corner to its source corner."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values))
