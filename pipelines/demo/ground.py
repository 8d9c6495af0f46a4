"""The ground of the procedural city: road, kerb, pavement and gardens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.camera import Camera
from pipelines.demo.materials import noise_tile
from pipelines.demo.plan import KERB_M, City
from pipelines.demo.surfaces import Surfaces

__all__ = ["draw_ground"]


def draw_ground(surfaces: Surfaces, camera: Camera, rays: NDArray[np.float32], city: City) -> None:
    """Draw road, kerb and pavement where nothing stands before them."""
    nearness = (-rays[..., 2] / camera.centre[2]).astype(np.float32)
    mask = (nearness > surfaces.nearness) & (nearness > 1.0 / 400.0)
    seen = rays[mask] / nearness[mask][:, None]
    x, y = seen[:, 0] + camera.centre[0], seen[:, 1] + camera.centre[1]
    offsets, roads, pavements = [], [], []
    for axis, position in ((0, y), (1, x)):
        lines = np.array(city.lines_m[axis])
        nearest = np.searchsorted((lines[1:] + lines[:-1]) / 2, position)
        half = np.array(city.half_widths_m[axis])[nearest]
        offset = np.abs(position - lines[nearest])
        offsets.append((offset, half - KERB_M))
        roads.append(offset < half - KERB_M)
        pavements.append(offset < half)
    is_road = roads[0] | roads[1]
    tile = noise_tile()
    fine = tile[(y * 24).astype(np.int64) % 512, (x * 24).astype(np.int64) % 512]
    coarse = tile[(y * 3).astype(np.int64) % 512, (x * 3).astype(np.int64) % 512]
    grey = np.where(is_road, 92.0, 150.0) + 5.0 * fine + 7.0 * coarse
    slab = ~is_road & (((x % 0.9) < 0.06) | ((y % 0.9) < 0.06)) & (nearness[mask] > 0.06)
    grey -= 22.0 * slab
    for (offset, kerb), along, other in ((offsets[0], x, roads[1]), (offsets[1], y, roads[0])):
        grey = np.where((np.abs(offset - kerb) < 0.14) & ~other, 186.0, grey)
        grey = np.where((offset < 0.09) & (along % 6.0 < 3.0) & ~other, 225.0, grey)
    colour = np.stack([grey, grey * 0.985, grey * 0.95], axis=-1)
    garden = ~is_road & ~pavements[0] & ~pavements[1]
    colour[garden] = np.stack([66 + 8 * fine, 92 + 10 * fine, 50 + 6 * fine], axis=-1)[garden]
    surfaces.albedo[mask, :3] = np.clip(colour, 0, 255).astype(np.uint8)
    surfaces.albedo[mask, 3] = 255
    surfaces.nearness[mask] = nearness[mask]
    surfaces.facing[mask] = surfaces.add_normal(np.array([0.0, 0.0, 1.0]))
    surfaces.is_road[mask] = is_road
