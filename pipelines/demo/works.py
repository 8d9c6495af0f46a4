"""Scaffolding in front of the houses of the hard city."""

from __future__ import annotations

from functools import lru_cache, partial
from random import Random

from PIL import Image, ImageDraw

from pipelines.demo.buildings import Building
from pipelines.demo.plan import City, Row
from pipelines.demo.solids import Quad, corner_quad, flank_quad, street_point

__all__ = ["works_quads"]

# Share of houses with scaffolding when the database is taken, and at any later moment.
SHARE_AT_FIRST, SHARE_LATER = 0.04, 0.2
DEPTH_M = 1.3
PX_PER_M = 16
NETS = ((92, 128, 104), (206, 208, 204), (60, 92, 140), (170, 120, 70))


@lru_cache(maxsize=2048)
def works_quads(city: City, row: Row, moment: int) -> tuple[Quad, ...]:
    """Return the scaffolding of a row at a moment; 0 is that of the database."""
    random = Random(f"{city.seed}/works/{row.axis}/{row.line}/{row.segment}/{row.side}/{moment}")
    quads: list[Quad] = []
    for building in row.buildings:
        if not building.is_gap and random.random() < (SHARE_LATER if moment else SHARE_AT_FIRST):
            quads += _scaffold(row, building, random.getrandbits(32))
    return tuple(quads)


def _scaffold(row: Row, building: Building, key: int) -> list[Quad]:
    left, wall = row.side * (row.half_width_m - DEPTH_M), row.side * row.half_width_m
    height = building.height_m + 1.0
    ends = (building.start_m, building.start_m + building.width_m)
    a, b = ends if row.side > 0 else ends[::-1]
    front = corner_quad(
        street_point(row, a, left, 0.0),
        street_point(row, b, left, 0.0),
        street_point(row, a, left, height),
        partial(_net, key, round(building.width_m * PX_PER_M), round(height * PX_PER_M)),
    )
    net = partial(_net, key, round(DEPTH_M * PX_PER_M), round(height * PX_PER_M))
    lefts, heights = (left, wall), (0.0, height)
    return [
        front,
        flank_quad(row, ends[0], -1, lefts, heights, net),
        flank_quad(row, ends[1], 1, lefts, heights, net),
    ]


@lru_cache(maxsize=256)
def _net(key: int, width: int, height: int, light: str) -> Image.Image:
    """Draw poles, planks and netting; alpha is the shape."""
    random = Random(key)
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    net, covered = random.choice(NETS), random.uniform(0.3, 1.0)
    storey = 2 * PX_PER_M
    for top in range(0, height - storey, storey):
        if random.random() < covered:
            draw.rectangle((0, top, width, top + storey - 3), fill=(*net, 255))
            for x in range(random.randint(5, 30), width, random.randint(26, 40)):
                draw.line((x, top, x + random.randint(-3, 3), top + storey), fill=(*_darker(net), 255))
        plank = (238, 241, 246) if light == "snow" else (150, 118, 82)
        draw.rectangle((0, top + storey - 3, width, top + storey), fill=(*plank, 255))
    for x in range(0, width, 2 * PX_PER_M):
        draw.rectangle((x, 0, x + 2, height), fill=(126, 130, 134, 255))
    return image


def _darker(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = colour
    return (4 * red // 5, 4 * green // 5, 4 * blue // 5)
