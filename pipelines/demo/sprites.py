"""Sprites of the procedural city: flat pictures of trees, lamps, people and shadows."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from pipelines.demo.camera import Camera
from pipelines.demo.materials import PX_PER_M
from pipelines.demo.plan import Item, Row
from pipelines.demo.solids import Quad

__all__ = ["billboard", "shadow", "sprite_size_m"]

SPRITE_SIZES_M = {
    "tree": (4.4, 7.2),
    "lamp": (1.2, 6.0),
    "person": (0.8, 1.8),
    "shadow": (4.8, 2.2),
    "shadow_north": (2.2, 4.8),
}


def sprite_size_m(kind: str) -> tuple[float, float]:
    """Return the width and height of a sprite in metres."""
    return SPRITE_SIZES_M[kind]


def billboard(item: Item, x: float, y: float, camera: Camera) -> Quad:
    """Stand a sprite at (x, y) metres, turned towards the camera."""
    wide, tall = sprite_size_m(item.kind)
    east, north = x - camera.centre[0], y - camera.centre[1]
    scale = wide / math.hypot(east, north)
    u = (north * scale, -east * scale, 0.0)
    origin = (x - u[0] / 2, y - u[1] / 2, 0.0)
    return Quad(origin, u, (0.0, 0.0, tall), partial(_draw_sprite, item.kind, item.key))


def shadow(row: Row, x: float, y: float) -> Quad:
    """Lay the shadow of a vehicle on the road at (x, y) metres."""
    length, width = sprite_size_m("shadow")
    u, v = (
        ((length, 0.0, 0.0), (0.0, width, 0.0)) if row.axis == 0 else ((width, 0.0, 0.0), (0.0, length, 0.0))
    )
    origin = (x - (u[0] + v[0]) / 2, y - (u[1] + v[1]) / 2, 0.02)
    return Quad(origin, u, v, partial(_draw_sprite, "shadow" if row.axis == 0 else "shadow_north", 0))


@lru_cache(maxsize=160)
def _draw_sprite(kind: str, key: int, light: str) -> Image.Image:
    """Draw a tree, lamp, person or shadow: RGBA, seen by `day`, `night` or `snow`."""
    random = Random(f"{kind}/{key}")
    wide, tall = SPRITE_SIZES_M[kind]
    image = Image.new("RGBA", (round(wide * PX_PER_M * 1.5), round(tall * PX_PER_M * 1.5)), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    w, h = image.size
    if kind == "tree":
        _draw_tree(draw, random, w, h, is_snow=light == "snow")
    elif kind == "lamp":
        draw.rectangle((w // 2 - 2, 12, w // 2 + 2, h), fill=(52, 54, 56, 255))
        draw.rectangle((w // 2 - 4, h - 24, w // 2 + 4, h), fill=(46, 48, 50, 255))
        glass = (255, 226, 160, 255) if light == "night" else (214, 214, 200, 255)
        draw.ellipse((w // 2 - 8, 0, w // 2 + 8, 15), fill=glass)
    elif kind == "person":
        coat = tuple(random.randrange(30, 220) for _ in range(3))
        legs = random.choice(((40, 44, 60), (70, 60, 50), (30, 30, 32)))
        draw.rectangle((w * 0.32, h * 0.5, w * 0.46, h), fill=(*legs, 255))
        draw.rectangle((w * 0.54, h * 0.5, w * 0.68, h), fill=(*legs, 255))
        draw.rounded_rectangle((w * 0.22, h * 0.16, w * 0.78, h * 0.58), radius=5, fill=(*coat, 255))
        draw.ellipse((w * 0.36, 0, w * 0.64, h * 0.17), fill=(random.choice((206, 160, 120)), 140, 110, 255))
    else:
        for inset, alpha in ((0.0, 60), (0.05, 120), (0.1, 170)):
            edge = inset * min(w, h)
            draw.ellipse((edge, edge, w - edge, h - edge), fill=(20, 20, 24, alpha))
    return image


def _draw_tree(draw: ImageDraw.ImageDraw, random: Random, w: int, h: int, *, is_snow: bool) -> None:
    trunk = (84, 66, 50, 255)
    draw.polygon(((w * 0.47, h), (w * 0.53, h), (w * 0.515, h * 0.3), (w * 0.485, h * 0.3)), fill=trunk)
    for _ in range(14):
        x, y = w * random.uniform(0.1, 0.9), h * random.uniform(0.05, 0.42)
        draw.line((w * 0.5, h * random.uniform(0.4, 0.6), x, y), fill=trunk, width=2)
        if is_snow:
            draw.line((w * 0.5, h * 0.5 - 2, x, y - 2), fill=(236, 240, 246, 255), width=1)
    if is_snow:
        return
    hue = random.uniform(0.8, 1.2)
    for _ in range(90):
        angle, reach = random.uniform(0, 6.283), random.random() ** 0.5
        x, y = w * (0.5 + 0.4 * reach * np.cos(angle)), h * (0.27 + 0.23 * reach * np.sin(angle))
        radius, tone = random.uniform(4, 10), random.uniform(0.55, 1.15)
        fill = (int(70 * tone * hue), int(104 * tone), int(48 * tone), 255)
        draw.ellipse((x - radius, y - radius * 0.8, x + radius, y + radius * 0.8), fill=fill)
