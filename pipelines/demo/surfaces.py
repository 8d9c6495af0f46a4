"""The surfaces visible in each pixel of a view, before lighting."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Surfaces"]


@dataclass
class Surfaces:
    """The surface visible in each pixel, before lighting.

    Attributes:
        albedo: (H, W, 4) uint8; the fourth is 255 for what only reflects, less for what emits light.
        nearness: (H, W) float32, 1/depth in 1/metres; 0 is sky.
        facing: (H, W) uint16, index into `normals`; 0 is sky.
        is_road: (H, W) bool.
        normals: Unit vectors; a zero vector is lit alike from all directions.
    """

    albedo: NDArray[np.uint8]
    nearness: NDArray[np.float32]
    facing: NDArray[np.uint16]
    is_road: NDArray[np.bool_]
    normals: list[NDArray[np.float64]] = field(default_factory=lambda: [np.zeros(3)])

    @classmethod
    def empty(cls, height: int, width: int) -> Surfaces:
        """Return a view of sky alone."""
        shape = (height, width)
        albedo = np.zeros((*shape, 4), np.uint8)
        return cls(albedo, np.zeros(shape, np.float32), np.zeros(shape, np.uint16), np.zeros(shape, bool))

    def add_normal(self, normal: NDArray[np.float64]) -> int:
        """Add a surface's direction and return its index."""
        self.normals.append(normal)
        return len(self.normals) - 1
