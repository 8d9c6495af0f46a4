"""A pinhole camera: its pose, and the projection of points and rectangles into the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR_M", "Camera", "Pose"]

NEAR_M = 0.2
FIELD_OF_VIEW_DEG = 78.0


@dataclass(frozen=True)
class Pose:
    """Where the camera stands and looks.

    Attributes:
        x_m: East of the city's corner.
        y_m: North of the city's corner.
        heading_deg: Compass direction of view.
        pitch_deg: Upwards from the horizon.
        height_m: Above the ground.
        field_of_view_deg: Of the lens, from the left to the right edge of the image.
    """

    x_m: float
    y_m: float
    heading_deg: float
    pitch_deg: float = 8.0
    height_m: float = 2.3
    field_of_view_deg: float = FIELD_OF_VIEW_DEG


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
        focal_px = 0.5 * self.width / math.tan(math.radians(pose.field_of_view_deg) / 2)
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

    def outlines(self, corners: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bounding boxes of rectangles in whole pixels, clipped at the near plane.

        Args:
            corners: (Q, 4, 3) float64, metres.

        Returns:
            (Q, 4) int64: left, top, right, bottom; zero area if nothing is in view.
        """
        view = (corners - self.centre) @ self.matrix.T
        depths = view[..., 2]
        flat = view[..., :2] / np.maximum(depths, NEAR_M)[..., None]
        low, high = flat.min(1), flat.max(1)
        for index in np.flatnonzero((depths < NEAR_M).any(1)):
            points = _clip_near(view[index])
            low[index], high[index] = (points.min(0), points.max(0)) if len(points) else (0.0, 0.0)
        bounds = np.array([self.width, self.height])
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
