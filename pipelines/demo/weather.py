"""Falling snow, rain and a low sun over a picture of the procedural city."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["blind", "fall_snow", "wet"]


def fall_snow(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw flakes over a picture: (H, W, 3) float32, 0..1."""
    height, width = picture.shape[:2]
    flakes = np.zeros((height, width), np.float32)
    for count, radius in ((width * height // 600, 0), (width * height // 5000, 1)):
        y, x = rng.integers(radius, height - radius, count), rng.integers(radius, width - radius, count)
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                flakes[y + dy, x + dx] = 0.75 if dx * dy == 0 else 0.4
    whitened: NDArray[np.float32] = picture + flakes[..., None] * (np.float32(0.96) - picture)
    return whitened


def wet(
    picture: NDArray[np.float32], is_road: NDArray[np.bool_], strength: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Darken and mirror the road, and draw streaks of rain and drops on the lens.

    Args:
        picture: (H, W, 3) float32, 0..1.
        is_road: (H, W) bool.
        strength: 0..1.
        rng: Draws streaks and drops.
    """
    height, width = picture.shape[:2]
    result = picture.copy()
    # The road mirrors what stands above it, at the same distance from the lower end of the walls.
    first = np.argmax(is_road, axis=0)
    mirrored = np.clip(2 * first[None, :] - np.arange(height)[:, None], 0, height - 1)
    above = np.take_along_axis(picture, mirrored[..., None], axis=0)
    result[is_road] = 0.55 * picture[is_road] + 0.35 * strength * above[is_road]
    for _ in range(width * height // 900):
        x, y, length = rng.integers(0, width), rng.integers(0, height), rng.integers(4, 4 + height // 12)
        rows = np.arange(y, min(height, y + length))
        columns = np.clip(x + (rows - y) // 6, 0, width - 1)
        result[rows, columns] += np.float32(0.35 * strength) * (np.float32(0.8) - result[rows, columns])
    for _ in range(rng.integers(3, 10)):
        _draw_drop(result, rng)
    return result


def blind(picture: NDArray[np.float32], strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add a low sun in or beside the picture, a halo that takes contrast, and reflections in the lens.

    Args:
        picture: (H, W, 3) float32, 0..1.
        strength: 0..1.
        rng: Places the sun.
    """
    height, width = picture.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] / width
    y = np.arange(height, dtype=np.float32)[:, None] / width
    sun_x, sun_y = rng.uniform(-0.1, 1.1), rng.uniform(0.0, 0.3)
    square = (x - sun_x) ** 2 + (y - sun_y) ** 2
    halo = strength * (0.35 + 0.65 * np.exp(-square / 0.06)) + np.exp(-square / 0.003)
    for share in rng.uniform(0.3, 1.6, 3):  # on the line through the middle
        ghost = (x - sun_x - share * (0.5 - sun_x)) ** 2 + (y - sun_y - share * (0.375 - sun_y)) ** 2
        halo += 0.25 * strength * (ghost < rng.uniform(0.0004, 0.004))
    warm = np.array((1.0, 0.94, 0.80), np.float32)
    glaring: NDArray[np.float32] = picture + np.clip(halo, 0.0, 1.0)[..., None].astype(np.float32) * (
        warm - 0.6 * picture - 0.4 * warm * picture
    )
    return glaring.astype(np.float32)


def _draw_drop(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Show the mean colour of the surroundings in a drop on the lens."""
    height, width = picture.shape[:2]
    radius = int(rng.integers(max(2, width // 60), max(3, width // 20)))
    top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
    area = picture[max(0, top - radius) : top + radius, max(0, left - radius) : left + radius]
    if area.size == 0:
        return
    y = np.linspace(-1, 1, area.shape[0])[:, None]
    x = np.linspace(-1, 1, area.shape[1])[None, :]
    share = np.clip(1.4 - 1.4 * (x * x + y * y), 0.0, 0.85)[..., None].astype(np.float32)
    area += share * (area.mean(axis=(0, 1)) - area)
