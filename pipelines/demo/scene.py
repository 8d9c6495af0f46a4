"""A pinhole camera in the procedural city: pose and light in, pixels out.

Every surface is a plane, so each one reaches the image by a homography (Hartley & Zisserman, Multiple View
Geometry, 2nd ed., section 8.1.1) and its inverse depth is linear in the pixel coordinates, which makes the
depth test exact. Surfaces are gathered first and lit afterwards.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.demo.facade import GLOWING, noise_tile
from pipelines.demo.light import CONDITIONS, Surfaces, light_surfaces
from pipelines.demo.plan import KERB_M, City, Item, Row, plan_row
from pipelines.demo.street import (
    Quad,
    Solids,
    draw_sprite,
    plan_traffic,
    row_solids,
    sprite_size_m,
    vehicle_quads,
)

__all__ = ["CONDITIONS", "Camera", "Pose", "render_view"]

VIEW_M = 120.0
SPRITE_VIEW_M = 70.0
# Smaller than this, nothing is worth its time.
MIN_AREA_PX = 3
NEAR_M = 0.2
FIELD_OF_VIEW_DEG = 78.0
# Quads whose alpha is a shape edge are cut where it falls below half of what glows.
HOLE_ALPHA = GLOWING // 2


@dataclass(frozen=True)
class Pose:
    """Where the camera stands and looks.

    Attributes:
        x_m: East of the city's corner.
        y_m: North of the city's corner.
        heading_deg: Compass direction of view.
        pitch_deg: Upwards from the horizon.
        height_m: Above the ground.
    """

    x_m: float
    y_m: float
    heading_deg: float
    pitch_deg: float = 8.0
    height_m: float = 2.3


class Camera:
    """A pinhole camera without distortion; pixel centres lie at +0.5."""

    def __init__(self, pose: Pose, *, size: tuple[int, int]) -> None:
        """Set up the projection for images of `size` = (width, height)."""
        self.width, self.height = size
        heading, pitch = math.radians(pose.heading_deg), math.radians(pose.pitch_deg)
        east, north = math.sin(heading), math.cos(heading)
        level, rise = math.cos(pitch), math.sin(pitch)
        right = (north, -east, 0.0)
        down = (east * rise, north * rise, -level)
        forward = (east * level, north * level, rise)
        focal_px = 0.5 * self.width / math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2)
        self.intrinsics = np.array(
            [[focal_px, 0, self.width / 2], [0, focal_px, self.height / 2], [0, 0, 1]], np.float64
        )
        self.rotation = np.array([right, down, forward], np.float64)
        self.centre = np.array([pose.x_m, pose.y_m, pose.height_m], np.float64)
        self.matrix = self.intrinsics @ self.rotation

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Project points of the city.

        Args:
            points: (N, 3) float64, metres from the city's corner.

        Returns:
            pixels (N, 2) float64 as (x, y), and depths (N,) float64 in metres, negative behind the camera.
        """
        image = (points - self.centre) @ self.matrix.T
        return image[:, :2] / image[:, 2:], image[:, 2]

    def rays(self) -> NDArray[np.float32]:
        """Return the direction through every pixel: (H, W, 3) float32, of depth 1."""
        x, y = np.arange(0.5, self.width)[None, :, None], np.arange(0.5, self.height)[:, None, None]
        columns = np.linalg.inv(self.matrix).T
        rays: NDArray[np.float32] = (x * columns[0] + y * columns[1] + columns[2]).astype(np.float32)
        return rays


def render_view(
    city: City,
    pose: Pose,
    *,
    condition: str = "day",
    moment: int = 0,
    size: tuple[int, int] = (320, 240),
) -> NDArray[np.uint8]:
    """Photograph the city.

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
    _draw_solids(surfaces, camera, _solids(city, rows, moment, look, camera), look)
    rays = camera.rays()
    _draw_ground(surfaces, camera, rays, city)
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


def _solids(city: City, rows: list[Row], moment: int, look: str, camera: Camera) -> Solids:
    """Gather what the camera may see, nearest first."""
    parts = [row_solids(city, row.axis, row.line, row.segment, row.side) for row in rows]
    vehicles = [
        quad
        for row in rows
        for item in plan_traffic(city, row, moment)
        if item.kind in {"car", "van"} and _distance_m(row, item, camera) < SPRITE_VIEW_M
        for quad in vehicle_quads(row, item, is_snow=look == "snow")
    ]
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


def _outlines(corners: NDArray[np.float64], camera: Camera) -> NDArray[np.int64]:
    """Return the bounding boxes of rectangles in whole pixels, clipped at the near plane.

    Args:
        corners: (Q, 4, 3) float64, metres.
        camera: The camera.

    Returns:
        (Q, 4) int64: left, top, right, bottom; of no area where nothing is in view.
    """
    view = (corners - camera.centre) @ camera.matrix.T
    depths = view[..., 2]
    flat = view[..., :2] / np.maximum(depths, NEAR_M)[..., None]
    low, high = flat.min(1), flat.max(1)
    for index in np.flatnonzero((depths < NEAR_M).any(1)):
        points = _clip_near(view[index])
        low[index], high[index] = (points.min(0), points.max(0)) if len(points) else (0.0, 0.0)
    bounds = np.array([camera.width, camera.height])
    low, high = np.floor(np.clip(low, 0, bounds)), np.ceil(np.clip(high, 0, bounds))
    boxes: NDArray[np.int64] = np.concatenate([low, high], axis=1).astype(np.int64)
    return boxes


def _clip_near(view: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip a polygon in homogeneous pixels, (4, 3), at the near plane; return its pixels, (N, 2)."""
    points = []
    for a, b in zip(view, view[[1, 2, 3, 0]], strict=True):
        if a[2] >= NEAR_M:
            points.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            points.append(a + (b - a) * ((NEAR_M - a[2]) / (b[2] - a[2])))
    image = np.array(points).reshape(-1, 3)
    pixels: NDArray[np.float64] = image[:, :2] / image[:, 2:]
    return pixels


def _warp(
    quad: Quad, texture: Image.Image, camera: Camera, box: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Return the texture as seen inside the box, (h, w, 4), and its inverse depth, (h, w)."""
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    factors = (max(1, texture.width // (wide + 1)), max(1, texture.height // (high + 1)))
    if factors != (1, 1):
        texture = texture.reduce(factors)
    u, v = np.array(quad.edge_u), np.array(quad.edge_v)
    plane = np.stack(
        [u / texture.width, -v / texture.height, np.array(quad.origin) + v - camera.centre], axis=1
    )
    forward = camera.matrix @ plane
    if abs(np.linalg.det(forward)) < 1e-12:
        return None
    # The last row of the inverse is 1/depth as a function of the pixel, see the module's head.
    inverse = np.linalg.inv(forward)
    inverse[:, 2] += inverse[:, 0] * left + inverse[:, 1] * top
    a, b, c = inverse[2]
    depth = (
        c
        + a * np.arange(0.5, wide, dtype=np.float32)[None, :]
        + b * np.arange(0.5, high, dtype=np.float32)[:, None]
    ).astype(np.float32)
    scale = inverse[2, 2] if abs(inverse[2, 2]) > 1e-9 else 1e-9
    coefficients = (inverse / scale).ravel()[:8]
    warped = texture.transform(
        (wide, high), Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BILINEAR
    )
    return np.asarray(warped), depth


def _draw_solids(surfaces: Surfaces, camera: Camera, solids: Solids, look: str) -> None:
    boxes = _outlines(solids.corners, camera)
    nearest = ((solids.corners - camera.centre) @ camera.rotation[2]).min(1)
    worthwhile = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > MIN_AREA_PX
    for index in np.flatnonzero(worthwhile):
        quad, (left, top, right, bottom) = solids.quads[index], boxes[index].tolist()
        area = slice(top, bottom), slice(left, right)
        nearness = surfaces.nearness[area]
        if nearest[index] > NEAR_M and nearness.min() >= 1.0 / nearest[index]:
            continue
        seen = _warp(quad, quad.texture(look), camera, (left, top, right, bottom))
        if seen is None:
            continue
        pixels, depth = seen
        mask = (pixels[..., 3] > HOLE_ALPHA) & (depth > nearness)
        np.copyto(nearness, depth, where=mask)
        np.copyto(surfaces.albedo[area], pixels, where=mask[..., None])
        if not quad.glows:
            surfaces.albedo[area][..., 3][mask] = 255
        surfaces.facing[area][mask] = surfaces.add_normal(solids.normals[index])


def _draw_ground(surfaces: Surfaces, camera: Camera, rays: NDArray[np.float32], city: City) -> None:
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


def _draw_sprites(
    surfaces: Surfaces, camera: Camera, city: City, rows: list[Row], moment: int, look: str
) -> list[NDArray[np.float64]]:
    """Draw shadows, trees, lamps and people far to near; return where the lamps shine, (3,) metres each."""
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
                quads.append((ahead + 0.5, _shadow(row, x, y), True))
            else:
                quads.append((ahead, _billboard(item, x, y, camera), False))
    quads.sort(key=lambda entry: -entry[0])
    if quads:
        boxes = _outlines(Solids.gather(tuple(quad for _, quad, _ in quads)).corners, camera)
        for (_, quad, is_shadow), box in zip(quads, boxes.tolist(), strict=True):
            if (box[2] - box[0]) * (box[3] - box[1]) > MIN_AREA_PX:
                _blend(surfaces, camera, quad, look, box, is_shadow=is_shadow)
    return lamps


def _billboard(item: Item, x: float, y: float, camera: Camera) -> Quad:
    wide, tall = sprite_size_m(item.kind)
    east, north = x - camera.centre[0], y - camera.centre[1]
    scale = wide / math.hypot(east, north)
    u = (north * scale, -east * scale, 0.0)
    origin = (x - u[0] / 2, y - u[1] / 2, 0.0)
    return Quad(origin, u, (0.0, 0.0, tall), partial(draw_sprite, item.kind, item.key))


def _shadow(row: Row, x: float, y: float) -> Quad:
    length, width = sprite_size_m("shadow")
    u, v = (
        ((length, 0.0, 0.0), (0.0, width, 0.0)) if row.axis == 0 else ((width, 0.0, 0.0), (0.0, length, 0.0))
    )
    origin = (x - (u[0] + v[0]) / 2, y - (u[1] + v[1]) / 2, 0.02)
    return Quad(origin, u, v, partial(draw_sprite, ("shadow", "shadow_north")[row.axis], 0))


def _blend(
    surfaces: Surfaces,
    camera: Camera,
    quad: Quad,
    look: str,
    box: tuple[int, int, int, int],
    *,
    is_shadow: bool,
) -> None:
    seen = _warp(quad, quad.texture(look), camera, box)
    if seen is None:
        return
    left, top, right, bottom = box
    area = slice(top, bottom), slice(left, right)
    pixels, depth = seen
    nearness, albedo = surfaces.nearness[area], surfaces.albedo[area]
    alpha = np.where(depth > nearness, pixels[..., 3], 0)
    if not alpha.any():
        return
    share = (alpha * np.float32(1 / 255))[..., None]
    albedo[..., :3] = albedo[..., :3] + share * (pixels[..., :3].astype(np.float32) - albedo[..., :3])
    if is_shadow:
        return
    solid = alpha > 128
    albedo[..., 3][solid] = 255
    nearness[solid] = depth[solid]
    surfaces.facing[area][solid] = surfaces.add_normal(np.zeros(3))
