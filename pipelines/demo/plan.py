"""The plan of the procedural city: streets, lots, buildings and what stands on the pavement.

Everything follows from the seed and is computed where a camera looks, so a city of 500 km opens as fast as
one street. World axes: x east, y north, z up, in metres from the city's corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from pipelines.demo.buildings import STYLES, Building, plan_building, plan_repeating

__all__ = ["PLACE_STEP_M", "City", "Item", "Place", "Row", "plan_city", "plan_row"]

PLACE_STEP_M = 10.0
KERB_M = 3.2
# Streets beyond the driven ones, so that no view ends in an empty plain.
MARGIN_LINES = 2
HARD_BLOCK_M, HARD_HALF_WIDTH_M = 90.0, 11.0


@dataclass(frozen=True)
class Item:
    """A thing standing in the street.

    Attributes:
        kind: `tree`, `lamp`, `car`, `van` or `person`.
        along_m: Position along the street.
        across_m: Distance from the street's middle, towards the item's side.
        key: Seed of its looks.
    """

    kind: str
    along_m: float
    across_m: float
    key: int


@dataclass(frozen=True)
class Row:
    """One side of one street between two crossings.

    Attributes:
        axis: 0 for a street running east, 1 for one running north.
        line: Index of the street among those of its axis.
        segment: Index of the crossing it starts from.
        side: 1 left of the direction of the street, -1 right.
        middle_m: The street's position across its direction.
        half_width_m: From the street's middle to the facades.
        buildings: The lots, in order along the street.
        items: Trees and lamps, the same at every moment.
    """

    axis: int
    line: int
    segment: int
    side: int
    middle_m: float
    half_width_m: float
    buildings: tuple[Building, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Place:
    """A point of the camera's drive.

    Attributes:
        axis: 0 on a street running east, 1 on one running north.
        line: Index of the street.
        along_m: Position along the street.
        x_m: East of the city's corner.
        y_m: North of the city's corner.
    """

    axis: int
    line: int
    along_m: float
    x_m: float
    y_m: float


@dataclass(frozen=True)
class City:
    """A grid of streets.

    Attributes:
        seed: Everything in the city follows from it.
        lines_m: For each axis the positions of its streets, across their direction.
        half_widths_m: For each axis the half widths of its streets.
        hard: Whether blocks and facades repeat, and works hide some.
    """

    seed: int
    lines_m: tuple[tuple[float, ...], tuple[float, ...]]
    half_widths_m: tuple[tuple[float, ...], tuple[float, ...]]
    hard: bool = False

    def __hash__(self) -> int:
        """Hash cheaply, by seed and size: cities are cache keys."""
        return hash((self.seed, len(self.lines_m[0])))

    @property
    def drive_m(self) -> float:
        """Length of all driven streets."""
        return sum(self.span_m(axis)[1] - self.span_m(axis)[0] for axis, _ in self.streets())

    def streets(self) -> Iterator[tuple[int, int]]:
        """Yield (axis, line) of the driven streets, the two directions in turn."""
        for line in range(MARGIN_LINES, len(self.lines_m[0]) - MARGIN_LINES):
            yield 0, line
            yield 1, line

    def span_m(self, axis: int) -> tuple[float, float]:
        """Return where driven streets of this axis begin and end."""
        across = self.lines_m[1 - axis]
        return across[MARGIN_LINES], across[-1 - MARGIN_LINES]

    def places(self, spacing_m: float = PLACE_STEP_M) -> Iterator[Place]:
        """Yield the places of the drive, every `spacing_m`, street after street."""
        for axis, line in self.streets():
            start, end = self.span_m(axis)
            middle = self.lines_m[axis][line]
            for step in range(int((end - start) / spacing_m)):
                along = start + (step + 0.5) * spacing_m
                x, y = (along, middle) if axis == 0 else (middle, along)
                yield Place(axis, line, along, x, y)


def plan_city(*, seed: int, places: int, hard: bool = False, spacing_m: float = PLACE_STEP_M) -> City:
    """Plan the smallest square city with room for `places` places.

    Args:
        seed: Everything in the city follows from it.
        places: Number of places of the drive.
        hard: All blocks have one size, all streets one width, and facades repeat.
        spacing_m: Metres between two places.
    """
    for driven in range(2, 1_000):
        count = driven + 2 * MARGIN_LINES
        if hard:
            lines = tuple(HARD_BLOCK_M * line for line in range(count))
            city = City(seed, (lines, lines), ((HARD_HALF_WIDTH_M,) * count,) * 2, hard=True)
        else:
            city = City(
                seed,
                (_line_positions(seed, 0, count), _line_positions(seed, 1, count)),
                (_half_widths(seed, 0, count), _half_widths(seed, 1, count)),
            )
        if sum(int((city.span_m(a)[1] - city.span_m(a)[0]) / spacing_m) for a, _ in city.streets()) >= places:
            return city
    raise AssertionError("callers bound the number of places")


def _random(*parts: object) -> Random:
    """Return a generator seeded by the parts; seeding by text is stable between runs and machines."""
    return Random("/".join(map(str, parts)))


def _line_positions(seed: int, axis: int, count: int) -> tuple[float, ...]:
    random, position, positions = _random(seed, "lines", axis), 0.0, []
    for _ in range(count):
        positions.append(position)
        position += random.uniform(62.0, 128.0)
    return tuple(positions)


def _half_widths(seed: int, axis: int, count: int) -> tuple[float, ...]:
    random = _random(seed, "widths", axis)
    return tuple(random.uniform(9.5, 12.5) for _ in range(count))


@lru_cache(maxsize=4096)
def plan_row(city: City, axis: int, line: int, segment: int, side: int) -> Row:
    """Fill one side of a street between crossings `segment` and `segment` + 1."""
    across, widths = city.lines_m[1 - axis], city.half_widths_m[1 - axis]
    start, end = across[segment] + widths[segment], across[segment + 1] - widths[segment + 1]
    random = _random(city.seed, "row", axis, line, segment, side)
    street = _random(city.seed, "street", axis, line)
    style = street.randrange(len(STYLES))
    tree_share, half_width = street.choice((0.0, 0.15, 0.35)), city.half_widths_m[axis][line]
    if city.hard:
        buildings = plan_repeating(city.seed, random, start, end)
    else:
        buildings = []
        position = start
        while position < end - 1.0:
            building = plan_building(random, position, end, style)
            buildings.append(building)
            position += building.width_m
    items = []
    kerb = half_width - KERB_M
    for step in range(int((end - start) / 9.0)):
        along = start + 4.0 + 9.0 * step
        if step % 3 == (1 if side > 0 else 2):
            items.append(Item("lamp", along, kerb + 0.5, 0))
        elif random.random() < tree_share:
            items.append(Item("tree", along + random.uniform(-1, 1), kerb + 0.9, random.randrange(24)))
    middle = city.lines_m[axis][line]
    return Row(axis, line, segment, side, middle, half_width, tuple(buildings), tuple(items))
