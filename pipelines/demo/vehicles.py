"""Parked cars and vans of the procedural city."""

from __future__ import annotations

from functools import lru_cache, partial
from random import Random

from PIL import Image, ImageDraw

from pipelines.demo.materials import Colour
from pipelines.demo.plan import Item, Row
from pipelines.demo.solids import Quad, corner_quad, flank_quad, street_point

__all__ = ["vehicle_quads"]

PAINTS = (
    (196, 30, 34),
    (28, 60, 130),
    (236, 236, 236),
    (40, 42, 46),
    (150, 154, 158),
    (84, 96, 60),
    (210, 170, 40),
)
SNOW, GLASS = (238, 241, 246), (40, 46, 54)
SIDE_PX_PER_M = 30


@lru_cache(maxsize=256)
def vehicle_quads(row: Row, item: Item, *, is_snow: bool) -> tuple[Quad, ...]:
    """Build a parked car or van as an open box with a cabin."""
    random = Random(item.key)
    paint = random.choice(PAINTS)
    is_van = item.kind == "van"
    if is_van:
        length, width, waist, height = 5.0, 1.9, 1.1, 2.1
    else:
        length, width, waist, height = random.uniform(3.7, 4.6), 1.75, 0.85, 1.45
    top = partial(_plain, SNOW if is_snow else paint)
    dark = partial(_plain, GLASS)
    end = partial(_plain, (int(0.8 * paint[0]), int(0.8 * paint[1]), int(0.8 * paint[2])))
    side = partial(_side, paint, round(length * SIDE_PX_PER_M), round(height * SIDE_PX_PER_M), is_van)
    middle = row.side * item.across_m
    lefts = (middle - width / 2, middle + width / 2)
    a, b = item.along_m - length / 2, item.along_m + length / 2
    cabin_a, cabin_b = (a + 0.6, b - 0.05) if is_van else (a + 0.33 * length, b - 0.27 * length)
    quads = [
        flank_quad(row, a, -1, lefts, (0.25, waist), end),
        flank_quad(row, b, 1, lefts, (0.25, waist), end),
        flank_quad(row, cabin_a, -1, lefts, (waist, height), dark),
        flank_quad(row, cabin_b, 1, lefts, (waist, height), dark),
    ]
    for low, high, level in ((a, b, waist), (cabin_a, cabin_b, height)):
        right, left = (street_point(row, low, edge, level) for edge in lefts)
        quads.append(corner_quad(right, street_point(row, high, lefts[0], level), left, top))
    for edge, p, q in ((lefts[0], a, b), (lefts[1], b, a)):
        quads.append(
            corner_quad(
                street_point(row, p, edge, 0.0),
                street_point(row, q, edge, 0.0),
                street_point(row, p, edge, height),
                side,
            )
        )
    return tuple(quads)


@lru_cache(maxsize=256)
def _plain(colour: Colour, light: str) -> Image.Image:
    return Image.new("RGBA", (8, 8), (*colour, 255))


@lru_cache(maxsize=128)
def _side(paint: Colour, width: int, height: int, is_van: bool, light: str) -> Image.Image:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    ground, waist = height - round(0.25 * SIDE_PX_PER_M), round(height * (0.47 if is_van else 0.42))
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
