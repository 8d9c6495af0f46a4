"""Rectangles into pixels, with an exact depth test.

Every surface is a plane, so each one reaches the image by a homography (Hartley & Zisserman, Multiple View
Geometry, 2nd ed., section 8.1.1) and its inverse depth is linear in the pixel coordinates, which makes the
depth test exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.demo.camera import NEAR_M, Camera
from pipelines.demo.front import GLOWING
from pipelines.demo.solids import Quad, Solids
from pipelines.demo.surfaces import Surfaces

__all__ = ["MIN_AREA_PX", "blend_sprite", "draw_solids"]

# Smaller boxes are not drawn.
MIN_AREA_PX = 3
# Below half of the alpha of what glows, a pixel is a hole.
HOLE_ALPHA = GLOWING // 2


def draw_solids(surfaces: Surfaces, camera: Camera, solids: Solids, look: str) -> None:
    """Draw opaque rectangles, nearest first; `look` chooses their textures: `day`, `night` or `snow`."""
    boxes = camera.outlines(solids.corners)
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


def blend_sprite(
    surfaces: Surfaces,
    camera: Camera,
    quad: Quad,
    look: str,
    box: tuple[int, int, int, int],
    *,
    is_shadow: bool,
) -> None:
    """Blend a sprite over what is drawn inside its box (left, top, right, bottom).

    A shadow only darkens; any other sprite hides what is behind its opaque pixels.
    """
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
    # The last row of the inverse is 1/depth as a function of the pixel, see the module's docstring.
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
