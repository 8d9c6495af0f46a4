"""Solids and sprites of the procedural city: houses, cars, trees, lamps and people as textured rectangles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.demo.facade import PX_PER_M, draw_facade, draw_roof, draw_wall
from pipelines.demo.plan import KERB_M, Building, City, Item, Row, plan_row

__all__ = ["Quad", "Solids", "draw_sprite", "plan_traffic", "row_solids", "sprite_size_m", "vehicle_quads"]

Vector = tuple[float, float, float]
Texture = Callable[[str], Image.Image]
HOUSE_DEPTH_M = 10.0
GAP_DEPTH_M = 9.0


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram, seen from the side that `edge_u` x `edge_v` points to.

    Attributes:
        origin: Lower left corner, metres.
        edge_u: From there to the lower right corner.
        edge_v: From there to the upper left corner.
        texture: Draws it, RGBA, for a light (`day`, `night` or `snow`).
        glows: Whether its alpha tells what shines by itself; otherwise alpha is only the shape.
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
        quads: Q of them.
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


def _point(row: Row, along: float, left: float, up: float) -> Vector:
    """Return the point `left` metres to the left of the street's middle."""
    return (along, row.middle_m + left, up) if row.axis == 0 else (row.middle_m - left, along, up)


def _quad(lower_left: Vector, lower_right: Vector, upper_left: Vector, texture: Texture) -> Quad:
    x, y, z = lower_left
    u = (lower_right[0] - x, lower_right[1] - y, lower_right[2] - z)
    v = (upper_left[0] - x, upper_left[1] - y, upper_left[2] - z)
    return Quad(lower_left, u, v, texture)


def _front(row: Row, building: Building, left: float) -> Quad:
    """Make the facade of a building, `left` metres to the left of the street's middle and facing it."""
    ends = (building.start_m, building.start_m + building.width_m)
    a, b = ends if row.side > 0 else ends[::-1]
    high = _point(row, a, left, building.height_m)
    front = _quad(_point(row, a, left, 0.0), _point(row, b, left, 0.0), high, partial(draw_facade, building))
    return replace(front, glows=not building.is_gap)


def _flank(
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
    return _quad(_point(row, along, a, low), _point(row, along, b, low), _point(row, along, a, high), texture)


@lru_cache(maxsize=1024)
def row_solids(city: City, axis: int, line: int, segment: int, side: int) -> Solids:
    """Build the houses and fences of a row."""
    row = plan_row(city, axis, line, segment, side)
    quads: list[Quad] = []
    heights = [0.0, *(0.0 if b.is_gap else b.height_m for b in row.buildings), 0.0]
    for number, building in enumerate(row.buildings):
        if building.is_gap:
            quads += _gap_quads(row, building)
        else:
            quads += _house_quads(row, building, heights[number], heights[number + 2])
    return Solids.gather(tuple(quads))


def _house_quads(row: Row, building: Building, before_m: float, after_m: float) -> list[Quad]:
    start, end = building.start_m, building.start_m + building.width_m
    front, back = row.side * row.half_width_m, row.side * (row.half_width_m + HOUSE_DEPTH_M)
    height, top = building.height_m, building.height_m + building.roof_m
    quads = [_front(row, building, front)]
    wall = partial(_wall, building)
    if before_m < top:
        quads.append(_flank(row, start + 0.05, -1, (front, back), (0.0, top), wall))
    if after_m < top:
        quads.append(_flank(row, end - 0.05, 1, (front, back), (0.0, top), wall))
    if building.roof_m:
        a, b = (start, end) if row.side > 0 else (end, start)
        ridge = (front + back) / 2
        corners = _point(row, a, front, height), _point(row, b, front, height), _point(row, a, ridge, top)
        quads.append(_quad(*corners, partial(draw_roof, building)))
    return quads


def _gap_quads(row: Row, building: Building) -> list[Quad]:
    front, back = row.side * row.half_width_m, row.side * (row.half_width_m + GAP_DEPTH_M)
    house = Building(building.key + 7, building.start_m, building.width_m, 7.0, 2, 0.0, building.style, False)
    return [_front(row, building, front), _front(row, house, back)]


def _wall(building: Building, light: str) -> Image.Image:
    return draw_wall(building, HOUSE_DEPTH_M)


@lru_cache(maxsize=2048)
def plan_traffic(city: City, row: Row, moment: int) -> tuple[Item, ...]:
    """Park cars along a row and put people on its pavement, as they are at this moment."""
    random = Random(f"{city.seed}/traffic/{row.axis}/{row.line}/{row.segment}/{row.side}/{moment}")
    items: list[Item] = []
    first, last = row.buildings[0], row.buildings[-1]
    start, end = first.start_m + 4.0, last.start_m + last.width_m - 4.0
    kerb = row.half_width_m - KERB_M
    along = start + random.uniform(0.0, 4.0)
    while along < end:
        if random.random() < 0.15:
            kind = "van" if random.random() < 0.1 else "car"
            items.append(Item(kind, along, kerb - 1.05, random.randrange(1 << 20)))
        along += random.uniform(5.4, 7.5)
    for _ in range(random.randint(0, max(1, int((end - start) / 18.0)))):
        across = random.uniform(kerb + 0.7, row.half_width_m - 0.6)
        items.append(Item("person", random.uniform(start, end), across, random.randrange(24)))
    # A garden behind each fence.
    for building in row.buildings:
        if building.is_gap:
            garden = Random(building.key + 3)
            for _ in range(int(building.width_m / 4.0)):
                at = building.start_m + garden.uniform(1.5, building.width_m - 1.5)
                items.append(
                    Item("tree", at, row.half_width_m + garden.uniform(2.5, 6.0), garden.randrange(24))
                )
    return tuple(items)


@lru_cache(maxsize=256)
def _plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGBA", (8, 8), (*colour, 255))


@lru_cache(maxsize=256)
def vehicle_quads(row: Row, item: Item, *, is_snow: bool) -> tuple[Quad, ...]:
    """Build a parked car or van as an open box with a cabin."""
    random = Random(item.key)
    paint = random.choice(
        (
            (196, 30, 34),
            (28, 60, 130),
            (236, 236, 236),
            (40, 42, 46),
            (150, 154, 158),
            (84, 96, 60),
            (210, 170, 40),
        )
    )
    is_van = item.kind == "van"
    length, width, waist, height = (
        (5.0, 1.9, 1.1, 2.1) if is_van else (random.uniform(3.7, 4.6), 1.75, 0.85, 1.45)
    )
    top: Texture = lambda light: _plain((238, 241, 246) if is_snow else paint)  # noqa: E731
    dark: Texture = lambda light: _plain((40, 46, 54))  # noqa: E731
    end: Texture = lambda light: _plain((int(0.8 * paint[0]), int(0.8 * paint[1]), int(0.8 * paint[2])))  # noqa: E731
    side: Texture = lambda light: _car_side(paint, round(length * 30), round(height * 30), is_van)  # noqa: E731
    middle = row.side * item.across_m
    lefts, a, b = (
        (middle - width / 2, middle + width / 2),
        item.along_m - length / 2,
        item.along_m + length / 2,
    )
    cabin_a, cabin_b = (a + 0.6, b - 0.05) if is_van else (a + 0.33 * length, b - 0.27 * length)
    quads = [
        _flank(row, a, -1, lefts, (0.25, waist), end),
        _flank(row, b, 1, lefts, (0.25, waist), end),
        _flank(row, cabin_a, -1, lefts, (waist, height), dark),
        _flank(row, cabin_b, 1, lefts, (waist, height), dark),
    ]
    for low, high, level in ((a, b, waist), (cabin_a, cabin_b, height)):
        right, left = (_point(row, low, edge, level) for edge in lefts)
        quads.append(_quad(right, _point(row, high, lefts[0], level), left, top))
    for edge, p, q in ((lefts[0], a, b), (lefts[1], b, a)):
        quads.append(
            _quad(_point(row, p, edge, 0.0), _point(row, q, edge, 0.0), _point(row, p, edge, height), side)
        )
    return tuple(quads)


@lru_cache(maxsize=128)
def _car_side(paint: tuple[int, int, int], width: int, height: int, is_van: bool) -> Image.Image:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    ground, waist = height - round(0.25 * 30), round(height * (0.47 if is_van else 0.42))
    fill, glass = (*paint, 255), (44, 52, 62, 255)
    if is_van:
        cabin = ((0.12, 0.0), (0.99, 0.0), (0.99, 1.0), (0.0, 1.0))
        panes = ((0.15, 0.30), (0.15, 0.30))
    else:
        cabin = ((0.36, 0.0), (0.70, 0.0), (0.82, 1.0), (0.22, 1.0))
        panes = ((0.34, 0.50), (0.53, 0.70))
    draw.polygon([(x * width, y * waist) for x, y in cabin], fill=fill)
    draw.rounded_rectangle((0, waist, width - 1, ground), radius=5, fill=fill)
    for left, right in panes:
        draw.rectangle((left * width, 0.25 * waist, right * width, 0.95 * waist), fill=glass)
    shade = tuple(int(0.6 * c) for c in paint)
    draw.line((0, ground - 8, width, ground - 8), fill=(*shade, 255), width=2)
    for at in (0.2, 0.8):
        x = at * width
        draw.ellipse((x - 10, height - 20, x + 10, height - 1), fill=(26, 26, 28, 255))
        draw.ellipse((x - 5, height - 15, x + 5, height - 6), fill=(150, 152, 156, 255))
    return image


SPRITE_SIZES_M = {
    "tree": (4.4, 7.2),
    "lamp": (1.2, 6.0),
    "person": (0.8, 1.8),
    "shadow": (4.8, 2.2),
    "shadow_north": (2.2, 4.8),
}


def sprite_size_m(kind: str) -> tuple[float, float]:
    """Return width and height of a sprite."""
    return SPRITE_SIZES_M[kind]


@lru_cache(maxsize=160)
def draw_sprite(kind: str, key: int, light: str) -> Image.Image:
    """Draw a tree, lamp or person, RGBA with soft edges."""
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
