"""Textured rectangles, of which everything upright in the procedural city is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.demo.plan import Row

__all__ = ["Quad", "Solids", "Texture", "Vector", "corner_quad", "flank_quad", "street_point"]

Vector = tuple[float, float, float]
Texture = Callable[[str], Image.Image]


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram, seen from the side that `edge_u` x `edge_v` points to.

    Attributes:
        origin: Lower left corner, metres.
        edge_u: From there to the lower right corner.
        edge_v: From there to the upper left corner.
        texture: Draws it, RGBA, for a light (`day`, `night` or `snow`).
        glows: Whether its alpha marks what emits light; otherwise alpha is only the shape.
    """

    origin: Vector
    edge_u: Vector
    edge_v: Vector
    texture: Texture
    glows: bool = False


@dataclass(frozen=True)
class Solids:
    """Quads with their corners gathered for culling.

    Attributes:
        quads: Q rectangles.
        corners: (Q, 4, 3) float64, metres, in order around the rectangle.
        normals: (Q, 3) float64, unit length.
    """

    quads: tuple[Quad, ...]
    corners: NDArray[np.float64]
    normals: NDArray[np.float64]

    @classmethod
    def gather(cls, quads: tuple[Quad, ...]) -> Solids:
        """Gather the corners and normals of quads."""
        edges = np.array([(q.origin, q.edge_u, q.edge_v) for q in quads], np.float64).reshape(-1, 3, 3)
        origin, u, v = edges[:, 0], edges[:, 1], edges[:, 2]
        normals = u[:, [1, 2, 0]] * v[:, [2, 0, 1]] - u[:, [2, 0, 1]] * v[:, [1, 2, 0]]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return cls(quads, np.stack([origin, origin + u, origin + u + v, origin + v], axis=1), normals)


def street_point(row: Row, along: float, left: float, up: float) -> Vector:
    """Return the point `left` metres to the left of the street's middle."""
    return (along, row.middle_m + left, up) if row.axis == 0 else (row.middle_m - left, along, up)


def corner_quad(lower_left: Vector, lower_right: Vector, upper_left: Vector, texture: Texture) -> Quad:
    """Make a rectangle from three of its corners."""
    x, y, z = lower_left
    u = (lower_right[0] - x, lower_right[1] - y, lower_right[2] - z)
    v = (upper_left[0] - x, upper_left[1] - y, upper_left[2] - z)
    return Quad(lower_left, u, v, texture)


def flank_quad(
    row: Row,
    along: float,
    faces: int,
    lefts: tuple[float, float],
    heights: tuple[float, float],
    texture: Texture,
) -> Quad:
    """Make an upright rectangle across the street that faces along it (`faces` 1) or back (-1)."""
    a, b = (min(lefts), max(lefts)) if faces > 0 else (max(lefts), min(lefts))
    low, high = heights
    return corner_quad(
        street_point(row, along, a, low),
        street_point(row, along, b, low),
        street_point(row, along, a, high),
        texture,
    )
