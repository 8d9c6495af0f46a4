"""Houses, fences and traffic along a row of the procedural city."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from random import Random

from PIL import Image

from pipelines.demo.buildings import Building
from pipelines.demo.facade import draw_facade
from pipelines.demo.materials import draw_roof, draw_wall
from pipelines.demo.plan import KERB_M, City, Item, Row, plan_row
from pipelines.demo.solids import Quad, Solids, corner_quad, flank_quad, street_point

__all__ = ["plan_traffic", "row_solids"]

HOUSE_DEPTH_M = 10.0
GAP_DEPTH_M = 9.0
# Share of parking spaces that are taken, and of vans among the vehicles.
PARKED, HARD_PARKED = 0.15, 0.25
VANS, HARD_VANS = 0.1, 0.25


@lru_cache(maxsize=1024)
def row_solids(city: City, axis: int, line: int, segment: int, side: int) -> Solids:
    """Return the houses and fences of a row."""
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
        quads.append(flank_quad(row, start + 0.05, -1, (front, back), (0.0, top), wall))
    if after_m < top:
        quads.append(flank_quad(row, end - 0.05, 1, (front, back), (0.0, top), wall))
    if building.roof_m:
        a, b = (start, end) if row.side > 0 else (end, start)
        ridge = (front + back) / 2
        corners = (
            street_point(row, a, front, height),
            street_point(row, b, front, height),
            street_point(row, a, ridge, top),
        )
        quads.append(corner_quad(*corners, partial(draw_roof, building)))
    return quads


def _gap_quads(row: Row, building: Building) -> list[Quad]:
    front, back = row.side * row.half_width_m, row.side * (row.half_width_m + GAP_DEPTH_M)
    house = Building(building.key + 7, building.start_m, building.width_m, 7.0, 2, 0.0, building.style, False)
    return [_front(row, building, front), _front(row, house, back)]


def _front(row: Row, building: Building, left: float) -> Quad:
    """Make the facade of a building, `left` metres to the left of the street's middle and facing it."""
    ends = (building.start_m, building.start_m + building.width_m)
    a, b = ends if row.side > 0 else ends[::-1]
    high = street_point(row, a, left, building.height_m)
    front = corner_quad(
        street_point(row, a, left, 0.0), street_point(row, b, left, 0.0), high, partial(draw_facade, building)
    )
    return replace(front, glows=not building.is_gap)


def _wall(building: Building, light: str) -> Image.Image:
    return draw_wall(building, HOUSE_DEPTH_M)


@lru_cache(maxsize=2048)
def plan_traffic(city: City, row: Row, moment: int) -> tuple[Item, ...]:
    """Return the parked cars, people and garden trees of a row at a moment."""
    random = Random(f"{city.seed}/traffic/{row.axis}/{row.line}/{row.segment}/{row.side}/{moment}")
    items: list[Item] = []
    first, last = row.buildings[0], row.buildings[-1]
    start, end = first.start_m + 4.0, last.start_m + last.width_m - 4.0
    kerb = row.half_width_m - KERB_M
    along = start + random.uniform(0.0, 4.0)
    while along < end:
        if random.random() < (HARD_PARKED if city.hard else PARKED):
            kind = "van" if random.random() < (HARD_VANS if city.hard else VANS) else "car"
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
