"""Views of the procedural city: pose and light in, pixels out."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.demo.camera import NEAR_M, Camera, Pose
from pipelines.demo.ground import draw_ground
from pipelines.demo.light import CONDITIONS, light_surfaces
from pipelines.demo.plan import City, Item, Row, plan_row
from pipelines.demo.raster import MIN_AREA_PX, blend_sprite, draw_solids
from pipelines.demo.solids import Quad, Solids
from pipelines.demo.sprites import billboard, shadow, sprite_size_m
from pipelines.demo.street import plan_traffic, row_solids
from pipelines.demo.surfaces import Surfaces
from pipelines.demo.vehicles import vehicle_quads
from pipelines.demo.works import works_quads

__all__ = ["render_view"]

VIEW_M = 120.0
SPRITE_VIEW_M = 70.0


def render_view(
    city: City,
    pose: Pose,
    *,
    condition: str = "day",
    moment: int = 0,
    size: tuple[int, int] = (320, 240),
) -> NDArray[np.uint8]:
    """Draw what a camera sees of the city: surfaces first, light last.

    Args:
        city: The city.
        pose: Where the camera stands.
        condition: One of `CONDITIONS`.
        moment: Moves cars and people, and seeds clouds and sensor noise.
        size: Width and height of the image in pixels.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    camera = Camera(pose, size=size)
    look = CONDITIONS[condition].texture
    rows = list(_near_rows(city, pose))
    surfaces = Surfaces.empty(camera.height, camera.width)
    draw_solids(surfaces, camera, _visible_solids(city, rows, moment, look, camera), look)
    rays = camera.rays()
    draw_ground(surfaces, camera, rays, city)
    lamps = _draw_sprites(surfaces, camera, city, rows, moment, look)
    return light_surfaces(surfaces, camera.centre, rays, lamps, condition=condition, moment=moment)


def _near_rows(city: City, pose: Pose) -> Iterator[Row]:
    """Yield the rows within view, of every street around."""
    here = (pose.y_m, pose.x_m)
    for axis in (0, 1):
        across_m, along_m = here[axis], here[1 - axis]
        lines, crossings = city.lines_m[axis], city.lines_m[1 - axis]
        first = max(bisect_right(crossings, along_m - VIEW_M) - 1, 0)
        last = min(bisect_right(crossings, along_m + VIEW_M), len(crossings) - 1)
        for line in range(len(lines)):
            if abs(lines[line] - across_m) < VIEW_M:
                for segment in range(first, last):
                    yield plan_row(city, axis, line, segment, 1)
                    yield plan_row(city, axis, line, segment, -1)


def _visible_solids(city: City, rows: list[Row], moment: int, look: str, camera: Camera) -> Solids:
    """Return the rectangles that the camera may see, nearest first."""
    parts = [row_solids(city, row.axis, row.line, row.segment, row.side) for row in rows]
    vehicles = [
        quad
        for row in rows
        for item in plan_traffic(city, row, moment)
        if item.kind in {"car", "van"} and _distance_m(row, item, camera) < SPRITE_VIEW_M
        for quad in vehicle_quads(row, item, is_snow=look == "snow")
    ]
    if city.hard:
        vehicles += [quad for row in rows for quad in works_quads(city, row, moment)]
    parts.append(Solids.gather(tuple(vehicles)))
    quads = [quad for part in parts for quad in part.quads]
    corners = np.concatenate([part.corners for part in parts])
    normals = np.concatenate([part.normals for part in parts])
    view = (corners - camera.centre) @ camera.rotation.T
    x, y, z = view[..., 0], view[..., 1], view[..., 2]
    wide, high = camera.width / 2, camera.height / 2
    focal_px = camera.intrinsics[0, 0]
    seen = (z > NEAR_M).any(1) & (z.min(1) < VIEW_M)
    seen &= (x * focal_px < wide * z).any(1) & (-x * focal_px < wide * z).any(1)
    seen &= (y * focal_px < high * z).any(1) & (-y * focal_px < high * z).any(1)
    seen &= ((camera.centre - corners[:, 0]) * normals).sum(1) > 0.02
    order = np.flatnonzero(seen)
    order = order[np.argsort(z[order].mean(1), kind="stable")]
    return Solids(tuple(quads[i] for i in order), corners[order], normals[order])


def _place_m(row: Row, item: Item) -> tuple[float, float]:
    left = row.side * item.across_m
    return (item.along_m, row.middle_m + left) if row.axis == 0 else (row.middle_m - left, item.along_m)


def _distance_m(row: Row, item: Item, camera: Camera) -> float:
    x, y = _place_m(row, item)
    return math.hypot(x - camera.centre[0], y - camera.centre[1])


def _draw_sprites(
    surfaces: Surfaces, camera: Camera, city: City, rows: list[Row], moment: int, look: str
) -> list[NDArray[np.float64]]:
    """Draw shadows, trees, lamps and people far to near; return the lamps' positions, (3,) metres each."""
    quads: list[tuple[float, Quad, bool]] = []
    lamps = []
    lean = camera.width / 2 / camera.intrinsics[0, 0]
    for row in rows:
        for item in (*row.items, *plan_traffic(city, row, moment)):
            x, y = _place_m(row, item)
            east, north = x - camera.centre[0], y - camera.centre[1]
            if item.kind == "lamp" and math.hypot(east, north) < 50.0:
                lamps.append(np.array([x, y, sprite_size_m("lamp")[1] - 0.3]))
            across = camera.rotation[0, 0] * east + camera.rotation[0, 1] * north
            ahead = camera.rotation[2, 0] * east + camera.rotation[2, 1] * north
            if not 0.5 < ahead < SPRITE_VIEW_M or abs(across) > lean * ahead + 3.5:
                continue
            if item.kind in {"car", "van"}:
                quads.append((ahead + 0.5, shadow(row, x, y), True))
            else:
                quads.append((ahead, billboard(item, x, y, camera), False))
    quads.sort(key=lambda entry: -entry[0])
    if quads:
        boxes = camera.outlines(Solids.gather(tuple(quad for _, quad, _ in quads)).corners)
        for (_, quad, is_shadow), box in zip(quads, boxes.tolist(), strict=True):
            if (box[2] - box[0]) * (box[3] - box[1]) > MIN_AREA_PX:
                blend_sprite(surfaces, camera, quad, look, box, is_shadow=is_shadow)
    return lamps
